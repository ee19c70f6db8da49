//! How a session's messages get to its child: at once where there is one, else in their order as soon as there is. A call
//! that a child has crashed over goes before them, if it may be sent again.

use std::borrow::Cow;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::acquire::Slot;
use super::queue::{ID, Parked, Turn};
use crate::config::Resend;
use crate::jsonrpc::{Code, Envelope, Kind, error_response, parse, text};
use crate::session::session::{Received, Session};
use crate::stream::Exchange;
use crate::telemetry::Cause;
use crate::worker::{Ask, DropGuard, Failure, Kept, Lease, Orphan, Refused};

/// The largest call that is kept to be sent again, in bytes: as many may be kept as are in flight.
const KEPT: usize = 64 * 1024;

/// How often calls that have waited too long are looked for.
const TICK: Duration = Duration::from_millis(500);

impl Session {
    /// Sends a message to a child that is there.
    pub(in crate::session) fn send(
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
                let tool = if self.server.minds_tools() { tool(envelope) } else { None };
                let timeout = self.server.call_timeout(tool.as_deref());
                let ask = Ask { envelope, exchange, timeout, is_own: false };
                let kept = tool.filter(|tool| message.len() <= KEPT && self.server.resend(tool) != Resend::Never);
                let kept = kept.map(|tool| Kept { message: Bytes::copy_from_slice(message), tool: tool.into() });
                lease.call(&ask, kept)
            }
        }
    }

    /// What is about something in flight goes to the child that it is in flight on, which may be one that is being
    /// replaced, or one that is still being told what it has to know. `None` if there is none of those, or it is about
    /// nothing in flight.
    pub(in crate::session) fn receive_follow_up(
        &self,
        message: &[u8],
        envelope: &Envelope<'_>,
        exchange: &Arc<Exchange>,
    ) -> Option<Received> {
        if envelope.kind == Kind::Request {
            return self.receive_about_task(message, envelope, exchange);
        }
        let holds: Vec<_> = {
            let state = self.state.lock();
            let told = if matches!(state.slot, Slot::Starting(_)) { state.told.upgrade() } else { None };
            if state.before.is_empty() && told.is_none() {
                return None;
            }
            // Clients that use one id for everything mean the latest call.
            let latest = state.slot.live().or(told);
            latest.into_iter().chain(state.before.latest_first().cloned()).collect()
        };
        let taken = holds.iter().find_map(|lease| lease.follow_up(envelope))?;
        Some(match taken {
            Err(refused) if refused.is_busy() => Received::Refused(refused),
            Ok(()) | Err(_) => Received::Accepted,
        })
    }

    /// What is asked about a task goes to the child that the task is on, though that takes no new calls.
    fn receive_about_task(
        &self,
        message: &[u8],
        envelope: &Envelope<'_>,
        exchange: &Arc<Exchange>,
    ) -> Option<Received> {
        if !envelope.method.as_deref().is_some_and(|method| method.starts_with("tasks/")) {
            return None;
        }
        let retired: Vec<_> = {
            let mut state = self.state.lock();
            state.last_used = Some(Instant::now());
            let latest = state.slot.live().filter(|lease| lease.worker().is_retired());
            latest.into_iter().chain(state.before.latest_first().cloned()).collect()
        };
        // A server may count its tasks, each child from the same number: the latest is meant.
        let lease = retired.iter().find(|lease| lease.takes_about_task(envelope))?;
        match self.send(lease, message, envelope, exchange) {
            Ok(()) => Some(Received::Accepted),
            Err(refused @ (Refused::Busy | Refused::Share)) => Some(Received::Refused(refused)),
            // It was over just then: another child may know of it.
            Err(Refused::Ended | Refused::Retired) => None,
        }
    }

    /// There is no child (yet, or any more): the message waits for one, off the caller's path.
    pub(in crate::session) fn receive_later(
        &self,
        message: &[u8],
        envelope: &Envelope<'_>,
        exchange: &Arc<Exchange>,
    ) -> Received {
        let (id, timeout) = match envelope.kind {
            // To a child that is gone.
            Kind::Response => return Received::Accepted,
            Kind::Notification => (None, None),
            Kind::Request => (envelope.raw_id(), Some(self.timeout(envelope))),
        };
        if let Some(id) = id.as_ref().filter(|id| id.as_str().len() > ID) {
            let text = format!("the id is longer than {ID} bytes");
            self.answer(exchange, error_response(Some(id), Code::InvalidRequest, &text));
            return Received::Accepted;
        }
        // Not under the lock: that takes as long as the message is large.
        let message = Bytes::copy_from_slice(message);
        let taken = self.state.lock().waiting.push(message, id, exchange, timeout, &self.server.limits);
        self.begin_sending();
        if taken { Received::Accepted } else { Received::Refused(Refused::Busy) }
    }

    /// Takes calls that a child has crashed over; returns those that are to fail.
    pub(in crate::session) fn park_again(&self, calls: Vec<Orphan>) -> Vec<Orphan> {
        if self.ended.is_cancelled() {
            return calls;
        }
        let timeout = |tool: &str| self.server.call_timeout(Some(tool));
        let refused = self.state.lock().waiting.push_again(calls, timeout, &self.server.limits);
        self.begin_sending();
        refused
    }

    /// How long a call may wait for its answer, and as long before that for a child.
    fn timeout(&self, envelope: &Envelope<'_>) -> Duration {
        let tool = if self.server.minds_tools() { tool(envelope) } else { None };
        self.server.call_timeout(tool.as_deref())
    }

    fn begin_sending(&self) {
        let Some(this) = self.this.upgrade() else { return };
        let turn = self.state.lock().waiting.begin();
        if let Some(turn) = turn {
            self.surroundings.tasks.spawn(async move { this.send_waiting(turn).await });
        }
    }

    /// Sends what waits, in its order, until nothing waits. What waits for a child that does not start fails with it: one
    /// attempt for all.
    pub(in crate::session) async fn send_waiting(&self, turn: Turn) {
        let guard = DropGuard::new(|| self.abandon_waiting());
        self.send_each(turn).await;
        guard.disarm();
    }

    /// The task that was to send what waits has failed: so does what waits.
    pub(in crate::session) fn abandon_waiting(&self) {
        let all = self.state.lock().waiting.abandon();
        all.iter().for_each(|parked| self.fail(parked, Failure::internal(&self.server.name)));
    }

    async fn send_each(&self, mut turn: Turn) {
        let mut was_tried = false;
        loop {
            let Some((again, ..)) = self.state.lock().waiting.first(turn) else { return };
            turn = again;
            match self.meanwhile(self.lease()).await {
                Ok(lease) => {
                    let Some(again) = self.send_all(&lease, turn).await else { return };
                    turn = again;
                    was_tried = false;
                }
                // It ended just when it was there: one more try, not one for each child of a server that always ends.
                Err(failure) if failure.is_ended() && !was_tried => was_tried = true,
                Err(failure) => {
                    let all = self.state.lock().waiting.take_all();
                    all.iter().for_each(|parked| self.fail(parked, failure.clone()));
                }
            }
        }
    }

    /// Sends what waits, until nothing does, or the child takes no more: then it is still the caller's turn.
    async fn send_all(&self, lease: &Lease, mut turn: Turn) -> Option<Turn> {
        loop {
            let (again, place, tool) = self.state.lock().waiting.first(turn)?;
            turn = again;
            let may_be_sent = self.may_be_sent(lease, tool.as_deref()).await;
            // Its client may have cancelled it meanwhile.
            let Some(mut parked) = self.state.lock().waiting.take(place) else { continue };
            let sent = {
                let guard = DropGuard::new(|| self.fail(&parked, Failure::internal(&self.server.name)));
                let sent = if may_be_sent { self.send_parked(lease, &parked) } else { Err(Refused::Busy) };
                guard.disarm();
                sent
            };
            match sent {
                Ok(()) => {}
                Err(Refused::Ended) if !parked.was_tried => {
                    parked.was_tried = true;
                    self.state.lock().waiting.put_back(parked);
                    // How it ended is known in a moment, and only then is there room for another.
                    tokio::select! {
                        _ = lease.worker().ended() => {}
                        () = self.ended.cancelled() => {}
                    }
                    return Some(turn);
                }
                // Others have had the calls that the child takes. It may happen again with the next one, but not for ever.
                Err(Refused::Retired) if parked.refused_for() < self.server.limits.start_timeout => {
                    self.state.lock().waiting.put_back(parked);
                    return Some(turn);
                }
                Err(refused) => self.fail(&parked, Failure::refused(refused)),
            }
        }
    }

    /// Whether this child may get a call of this tool that another has crashed over; anything else it may.
    async fn may_be_sent(&self, lease: &Lease, tool: Option<&str>) -> bool {
        let Some(tool) = tool else { return true };
        tokio::select! {
            takes = self.meanwhile(lease.takes_again(self.server.resend(tool), tool)) => takes,
            () = self.ended.cancelled() => false,
        }
    }

    /// Waits for something that calls wait for. Those for which it takes too long fail.
    pub(in crate::session) async fn meanwhile<T>(&self, something: impl Future<Output = T>) -> T {
        let mut something = pin!(something);
        loop {
            tokio::select! {
                done = &mut something => return done,
                () = tokio::time::sleep(TICK) => {
                    let overdue = self.state.lock().waiting.take_overdue();
                    for parked in overdue {
                        let after = parked.timeout.unwrap_or_default();
                        let failure = Failure::waited(&self.server.name, after, self.server.timeout_key(after));
                        self.fail(&parked, failure);
                    }
                }
            }
        }
    }

    fn send_parked(&self, lease: &Lease, parked: &Parked) -> Result<(), Refused> {
        let Parked { message, exchange, again, .. } = parked;
        // It was read when it came.
        let Ok(envelope) = parse(message) else { return Ok(()) };
        match again {
            None => self.send(lease, message, &envelope, exchange),
            Some((tool, _)) => {
                if Cause::info("a call is sent again after a crash", self.server.name.to_string()).is_news(20) {
                    tracing::info!(server = %self.server.name, session = %self.id.public(), "a call is sent again after a crash");
                }
                let timeout = self.server.call_timeout(Some(tool));
                lease.call_again(&Ask { envelope: &envelope, exchange, timeout, is_own: false })
            }
        }
    }

    /// Nothing becomes of a message that waits.
    pub(in crate::session) fn fail(&self, parked: &Parked, failure: Failure) {
        if let Some(response) = parked.response(failure) {
            self.answer(&parked.exchange, response);
        }
    }
}

/// The tool that a request calls.
fn tool<'a>(envelope: &Envelope<'a>) -> Option<Cow<'a, str>> {
    text(envelope.members.name.filter(|_| envelope.method.as_deref() == Some("tools/call"))?)
}
