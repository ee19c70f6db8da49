//! Ends calls that no client waits for any more: the session has left, the client has cancelled, or the time-out has passed. The
//! child gets a cancellation.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::call::Call;
use super::lease_id::LeaseId;
use super::numbers::Number;
use super::standing::Standing;
use super::subscriptions::Waiting;
use super::table::{Multiplexer, refusal};
use super::unsolicited::InFlight;
use crate::jsonrpc::{Envelope, one_line};
use crate::mcp::{Cancels, cancelled_notification};

/// What has run out of time, or lost its client.
#[derive(Debug, Default)]
pub(in crate::worker) struct Expired {
    /// Calls to fail.
    pub(in crate::worker) calls: Vec<Box<Call>>,
    /// Others that waited for the answers to these.
    pub(in crate::worker) waiting: Vec<Waiting>,
    /// Requests of the child that clients need not answer any more, and what they are told.
    pub(in crate::worker) withdrawn: Vec<(Withdrawn, Bytes)>,
    /// Frames for the child: cancellations, and errors for requests of its own.
    pub(in crate::worker) frames: Vec<Bytes>,
}

/// A request of the child that is over before its client has answered it.
#[derive(Debug)]
pub(in crate::worker) struct Withdrawn {
    /// Who was asked.
    pub(in crate::worker) peer: LeaseId,
    /// The number that the client knows it by.
    pub(in crate::worker) number: u64,
    /// What was in flight meanwhile.
    pub(in crate::worker) in_flight: InFlight,
}

impl Multiplexer {
    /// Takes a session off the child: its calls are cancelled, what only it wanted is given up.
    pub(in crate::worker) fn detach(&mut self, peer: LeaseId, now: Instant) -> Expired {
        let mut gone = Expired::default();
        if self.peers.remove(&peer).is_none() {
            return gone;
        }
        let (unused, waiting) = self.subscriptions.forget(peer);
        gone.waiting = waiting;
        let calls: Vec<u64> = self.calls.iter().filter(|(_, call)| call.peer == peer).map(|(n, _)| *n).collect();
        for number in calls {
            if !self.bequeath(number, &mut gone) {
                self.give_up(number, "the session has ended", now, &mut gone);
            }
        }
        gone.frames.extend(self.refuse_asked(peer).frames);
        for uri in unused.into_iter().filter(|_| self.is_shared).collect::<Vec<_>>() {
            gone.frames.push(self.unsubscription(&uri));
        }
        if self.is_shared
            && let Some(frame) = self.relevel()
        {
            gone.frames.push(frame);
        }
        for task in self.live_tasks.orphan(peer) {
            // Nobody can ask for its result any more. Whose child goes with the session need not be told.
            if self.is_shared {
                gone.frames.push(self.cancellation_of_task(&task));
            }
        }
        self.tasks.forget(peer);
        self.answered_by_task.retain(|(_, owner, _)| *owner != peer);
        self.elicitations.forget(peer);
        gone
    }

    /// Whoever was asked is not there any more: nobody else answers it.
    pub(in crate::worker) fn refuse_asked(&mut self, peer: LeaseId) -> Expired {
        let asked: Vec<u64> = self.asked.iter().filter(|(_, a)| a.peer == peer).map(|(n, _)| *n).collect();
        let asked = asked.into_iter().filter_map(|number| self.asked.remove(&number));
        let frames = asked.map(|asked| refusal(&asked.original, "the client has gone")).collect();
        Expired { frames, ..Expired::default() }
    }

    /// The client cancels: the number of the call. `None` if no such call of this session is in flight: one of the
    /// gateway's own, such as `initialize`, is not the client's to cancel. It goes on until [`Self::cancel`].
    pub(in crate::worker) fn cancelled_by_client(&self, peer: LeaseId, envelope: &Envelope<'_>) -> Option<u64> {
        let named = Cancels::read(envelope).request()?;
        let is_it = |call: &Call| call.peer == peer && call.original.as_str() == named && !call.is_own;
        // Clients that use one id for everything mean the latest call.
        let latest = self.calls.values().filter(|call| is_it(call)).max_by_key(|call| call.number.order)?;
        // Others may wait for this answer: it goes on for them.
        if self.is_shared && matches!(latest.wish, Some(Standing::Subscribe(_))) {
            return None;
        }
        Some(latest.number.wire)
    }

    /// Whether a call of a session is in flight.
    pub(in crate::worker) fn has_call(&self, peer: LeaseId, number: u64) -> bool {
        self.calls.get(&number).is_some_and(|call| call.peer == peer)
    }

    /// A call is over, as its client has cancelled it.
    pub(in crate::worker) fn cancel(&mut self, number: u64, now: Instant) -> Option<Box<Call>> {
        let call = self.take_call(number)?;
        self.level_over(number, false);
        self.note_abandoned(call.number, call.peer, now, self.cancel_grace.unwrap_or(call.timeout));
        Some(call)
    }

    /// Removes what has run out of time.
    pub(in crate::worker) fn expire(&mut self, now: Instant) -> Expired {
        debug_assert!(self.is_counted(), "what is in flight is counted wrongly");
        let mut expired = Expired::default();
        self.abandoned.expire(now);
        // Before the calls, on whose streams the clients may have been asked.
        let late: Vec<u64> = self.asked.iter().filter(|(_, a)| a.deadline <= now).map(|(n, _)| *n).collect();
        for number in late {
            let Some(asked) = self.asked.remove(&number) else { continue };
            let text = format!("the client did not answer within {:?}", asked.timeout);
            expired.frames.push(refusal(&asked.original, &text));
            expired.withdrawn.push(self.withdrawn(number, asked.peer, "timed out"));
        }
        let mut late: Vec<Number> = self.calls.values().filter(|c| c.deadline <= now).map(|c| c.number).collect();
        late.sort_unstable_by_key(|number| number.order);
        for Number { wire: number, .. } in late {
            self.give_up(number, "timed out", now, &mut expired);
        }
        let tasks = self.live_tasks.expire(now);
        let calls = self.calls.values().map(|call| self.due(call));
        let next = calls.chain(self.asked.values().map(|asked| asked.deadline)).chain(tasks).min();
        self.timer.set(next);
        expired
    }

    /// When a call has to be looked at: it is out of time, or has overrun.
    pub(super) fn due(&self, call: &Call) -> Instant {
        let overruns = self.harakiri.filter(|_| !call.is_initialize()).map(|harakiri| call.started + harakiri);
        overruns.map_or(call.deadline, |overruns| overruns.min(call.deadline))
    }

    /// Whether a call takes longer than the child may live with it.
    pub(in crate::worker) fn has_overrun(&self, now: Instant) -> Option<Duration> {
        self.harakiri.filter(|harakiri| self.oldest().is_some_and(|since| since + *harakiri <= now))
    }

    fn withdrawn(&self, number: u64, peer: LeaseId, why: &str) -> (Withdrawn, Bytes) {
        (Withdrawn { peer, number, in_flight: self.in_flight(peer) }, cancelled_notification(number, why).into())
    }

    /// Empties the tables, as the child is gone: the calls that were in flight, and who waited with them.
    pub(in crate::worker) fn drain(&mut self) -> Expired {
        let asked = std::mem::take(&mut self.asked);
        let withdrawn = asked.iter().map(|(number, asked)| self.withdrawn(*number, asked.peer, "the server has ended"));
        let mut all = Expired { withdrawn: withdrawn.collect(), ..Expired::default() };
        for (number, call) in std::mem::take(&mut self.calls) {
            self.end(call.peer);
            all.waiting.extend(self.unsay(number, &call));
            all.calls.push(call);
        }
        // Another child may get them, in their order.
        all.calls.sort_by_key(|call| call.number.order);
        all
    }

    /// A first subscription that others wait for as well goes on, as that of the next of them: it is not cancelled.
    pub(super) fn bequeath(&mut self, number: u64, gone: &mut Expired) -> bool {
        let Some(call) = self.calls.get_mut(&number) else { return false };
        let Some(Standing::Subscribe(uri)) = &call.wish else { return false };
        let next = self.subscriptions.next_waiting(uri);
        let Some(Waiting { peer, id, exchange, is_own, .. }) = next else { return false };
        let (wish, task) = (call.wish.take(), call.task.take());
        let heir =
            Call { peer, original: id, exchange, is_own, wish, task, progress_token: None, kept: None, ..**call };
        let call = std::mem::replace(call, Box::new(heir));
        self.end(call.peer);
        gone.calls.push(call);
        true
    }

    pub(super) fn give_up(&mut self, number: u64, why: &str, now: Instant, expired: &mut Expired) {
        let Some(call) = self.take_call(number) else { return };
        if !call.is_initialize() {
            expired.frames.push(one_line(BytesMut::from(cancelled_notification(number, why).as_bytes())));
            self.note_abandoned(call.number, call.peer, now, self.cancel_grace.unwrap_or(call.timeout));
        }
        self.unsettle(number, &call, expired);
        expired.calls.push(call);
    }

    /// The child may go on with a call that nobody waits for.
    pub(super) fn note_abandoned(&mut self, number: Number, peer: LeaseId, now: Instant, patience: Duration) {
        // Where nobody shares the child, everything is its session's anyway.
        if self.is_shared {
            self.abandoned.insert(number, peer, now, patience);
        }
    }
}
