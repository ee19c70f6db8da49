//! The dispatch of a client's messages to a child: one message at once, or the pending queue in its order.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::queue::{DrainToken, Pending};
use crate::config::{Resend, Server};
use crate::heavy;
use crate::jsonrpc::{Envelope, Kind, parse};
use crate::mcp::called_tool;
use crate::stream::Exchange;
use crate::worker::{Ask, DropGuard, Failure, Kept, Lease, Refused};

/// The largest call of which a copy is kept for a retry after a crash, in bytes. At most `max_in_flight` copies are
/// kept.
const MAX_KEPT: usize = 64 * 1024;

impl Context {
    /// Writes one message to the child of a lease. The answer to a request goes to `exchange`.
    ///
    /// # Errors
    /// The child does not take the message. Nothing has been answered then.
    pub(super) fn send(
        &self,
        lease: &Lease,
        message: &[u8],
        envelope: &Envelope<'_>,
        exchange: &Arc<Exchange>,
    ) -> Result<(), Refused> {
        match envelope.kind {
            Kind::Notification => lease.notify(envelope),
            Kind::Response => lease.answer(envelope),
            Kind::Request => {
                let server = self.server();
                let tool = tool_with_settings(server, envelope);
                let timeout = server.call_timeout(tool.as_deref());
                let ask = Ask { envelope, exchange, timeout, is_own: false };
                let kept = tool.filter(|tool| message.len() <= MAX_KEPT && server.resend(tool) != Resend::Never);
                // Where there is no room for a copy, the call is not sent again.
                let kept = kept.and_then(|tool| {
                    Some(Kept { message: self.target.account.copy(message).ok()?, tool: tool.into() })
                });
                lease.call(&ask, kept)
            }
        }
    }

    /// Writes the queued messages to the child of a lease, in their order. Returns `None` when the queue is empty, or
    /// the drain token when the child takes no more.
    pub(super) async fn send_queued(&self, lease: &Lease, mut token: DrainToken) -> Option<DrainToken> {
        loop {
            let (again, position, tool, bytes) = self.state.lock().queue.first(token)?;
            token = again;
            let may_be_sent = self.may_be_sent(lease, tool.as_deref()).await;
            let turn = heavy::BODIES.turn(self.target.principal.tenant(), bytes).await;
            // The client may have cancelled the message meanwhile.
            let Some(mut pending) = self.state.lock().queue.take(position) else { continue };
            let sent = {
                let internal = || self.fail(std::slice::from_ref(&pending), &Failure::internal(&self.server().name));
                let guard = DropGuard::new(internal);
                let sent = match may_be_sent {
                    true => turn.run(|| self.send_pending(lease, &pending)),
                    false => Err(Refused::Busy),
                };
                guard.disarm();
                sent
            };
            match sent {
                Ok(()) => {}
                Err(Refused::Ended) if !pending.was_tried => {
                    pending.was_tried = true;
                    self.state.lock().queue.put_back(pending);
                    // The next child gets this one's capacity only after the exit, which is also when its reason is
                    // known.
                    self.ended.run_until_cancelled(lease.worker().ended()).await;
                    return Some(token);
                }
                // Other sessions used up the child's calls first. That may happen again with the next child, but not
                // for ever.
                Err(Refused::Retired) if pending.refused_for() < self.server().limits.start_timeout => {
                    self.state.lock().queue.put_back(pending);
                    return Some(token);
                }
                Err(refused) => self.fail(&[pending], &Failure::refused(refused)),
            }
        }
    }

    /// Whether the child may get the first queued message. `tool` is the tool of a call that another child has crashed
    /// over: this child's hints for the tool have to allow a retry. Any other message may be sent.
    async fn may_be_sent(&self, lease: &Lease, tool: Option<&str>) -> bool {
        let Some(tool) = tool else { return true };
        let takes_again = self.failing_overdue(lease.takes_again(self.server().resend(tool), tool));
        self.ended.run_until_cancelled(takes_again).await.unwrap_or(false)
    }

    /// Writes one message from the queue.
    fn send_pending(&self, lease: &Lease, pending: &Pending) -> Result<(), Refused> {
        let Pending { message, exchange, retry, .. } = pending;
        // The message was parsed successfully before it was queued.
        let Ok(envelope) = parse(message) else { return Ok(()) };
        let Some((tool, _)) = retry else { return self.send(lease, message, &envelope, exchange) };
        self.log("a call is sent again after a crash");
        let timeout = self.server().call_timeout(Some(tool));
        lease.call_again(&Ask { envelope: &envelope, exchange, timeout, is_own: false })
    }
}

/// The time-out of a request: for the answer of the child, and as much again for the time in the queue.
pub(super) fn call_timeout(server: &Server, envelope: &Envelope<'_>) -> Duration {
    server.call_timeout(tool_with_settings(server, envelope).as_deref())
}

/// The tool that a request calls, if the server has settings for single tools; `None` for any other message.
fn tool_with_settings<'a>(server: &Server, envelope: &Envelope<'a>) -> Option<Cow<'a, str>> {
    server.minds_tools().then(|| called_tool(envelope)).flatten()
}
