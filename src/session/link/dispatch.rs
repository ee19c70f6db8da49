//! The dispatch of a client's messages to a child: one message at once, or the pending queue in its order.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::context::Context;
use super::queue::{DrainToken, Pending};
use crate::config::{Resend, Server};
use crate::heavy;
use crate::jsonrpc::{Envelope, Kind, parse};
use crate::mcp::called_tool;
use crate::stream::Exchange;
use crate::worker::{Ask, DropGuard, Failure, Kept, Lease, Refused};

/// The largest call of which a copy is kept for a retry after a crash, in bytes. At most `max_in_flight` copies are kept.
const MAX_KEPT: usize = 64 * 1024;

/// The way from a link's messages to one child.
pub(super) struct Dispatch<'a> {
    /// The link.
    pub(super) context: &'a Context,
    /// The lease on the child.
    pub(super) lease: &'a Lease,
}

impl Dispatch<'_> {
    /// Writes one message to the child. The answer to a request goes to `exchange`.
    ///
    /// # Errors
    /// The child does not take the message. Nothing has been answered then.
    pub(super) fn send(
        &self,
        message: &[u8],
        envelope: &Envelope<'_>,
        exchange: &Arc<Exchange>,
    ) -> Result<(), Refused> {
        match envelope.kind {
            Kind::Notification => self.lease.notify(envelope),
            Kind::Response => self.lease.answer(envelope),
            Kind::Request => {
                let server = &self.context.target.server;
                let tool = tool_with_settings(server, envelope);
                let timeout = server.call_timeout(tool.as_deref());
                let ask = Ask { envelope, exchange, timeout, is_own: false };
                let kept = tool.filter(|tool| message.len() <= MAX_KEPT && server.resend(tool) != Resend::Never);
                let kept = kept.map(|tool| Kept { message: Bytes::copy_from_slice(message), tool: tool.into() });
                self.lease.call(&ask, kept)
            }
        }
    }

    /// Writes the queued messages in their order. Returns `None` when the queue is empty, or the drain token when the child
    /// takes no more.
    pub(super) async fn send_queued(&self, mut token: DrainToken) -> Option<DrainToken> {
        let Context { target, state, ended, .. } = self.context;
        loop {
            let (again, position, tool, bytes) = state.lock().queue.first(token)?;
            token = again;
            let may_be_sent = self.may_be_sent(tool.as_deref()).await;
            let turn = heavy::BODIES.turn(self.context.target.principal.tenant(), bytes).await;
            // The client may have cancelled the message meanwhile.
            let Some(mut pending) = state.lock().queue.take(position) else { continue };
            let sent = {
                let internal = || self.context.fail(&pending, Failure::internal(&target.server.name));
                let guard = DropGuard::new(internal);
                let sent = match may_be_sent {
                    true => turn.run(|| self.send_pending(&pending)),
                    false => Err(Refused::Busy),
                };
                guard.disarm();
                sent
            };
            match sent {
                Ok(()) => {}
                Err(Refused::Ended) if !pending.was_tried => {
                    pending.was_tried = true;
                    state.lock().queue.put_back(pending);
                    // The next child gets this one's capacity only after the exit, which is also when its reason is known.
                    tokio::select! {
                        _ = self.lease.worker().ended() => {}
                        () = ended.cancelled() => {}
                    }
                    return Some(token);
                }
                // Other sessions used up the child's calls first. That may happen again with the next child, but not for ever.
                Err(Refused::Retired) if pending.refused_for() < target.server.limits.start_timeout => {
                    state.lock().queue.put_back(pending);
                    return Some(token);
                }
                Err(refused) => self.context.fail(&pending, Failure::refused(refused)),
            }
        }
    }

    /// Whether the child may get the first queued message. `tool` is the tool of a call that another child has crashed over:
    /// this child's hints for the tool have to allow a retry. Any other message may be sent.
    async fn may_be_sent(&self, tool: Option<&str>) -> bool {
        let Some(tool) = tool else { return true };
        let takes_again = self.lease.takes_again(self.context.target.server.resend(tool), tool);
        tokio::select! {
            takes = self.context.failing_overdue(takes_again) => takes,
            () = self.context.ended.cancelled() => false,
        }
    }

    /// Writes one message from the queue.
    fn send_pending(&self, pending: &Pending) -> Result<(), Refused> {
        let Pending { message, exchange, retry, .. } = pending;
        // The message was parsed successfully before it was queued.
        let Ok(envelope) = parse(message) else { return Ok(()) };
        match retry {
            None => self.send(message, &envelope, exchange),
            Some((tool, _)) => {
                self.context.log("a call is sent again after a crash");
                let timeout = self.context.target.server.call_timeout(Some(tool));
                self.lease.call_again(&Ask { envelope: &envelope, exchange, timeout, is_own: false })
            }
        }
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
