//! The changing state of a link: the data under its mutex, and the transitions that need nothing else.
//!
//! Invariant: after a child of no use to the client, another is started unasked only for a client that listens or has
//! subscriptions, and after a pause; after a child that was ended as idle, none is started unasked.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::handshake::Handshake;
use super::queue::PendingQueue;
use super::slot::{Outcome, Slot};
use crate::config::Restart;
use crate::pool::backoff;
use crate::worker::Lease;

/// The state of a link.
#[derive(Default)]
pub(super) struct State {
    /// The current child.
    pub(super) slot: Slot,
    /// Leases on children that have been replaced, or are about to exit, and still have work of this link, in the order
    /// of their replacement.
    pub(super) draining: Vec<Arc<Lease>>,
    /// The progress of the handshake.
    pub(super) handshake: Handshake,
    /// The client's messages that no child has taken yet.
    pub(super) queue: PendingQueue,
    /// The starting child to which the handshake is being replayed.
    pub(super) replaying: Weak<Lease>,
    /// Whether a task restarts the child although no message is queued.
    pub(super) is_restarting: bool,
    /// Whether the last child was ended as idle, and none has started since. Then no child is started before the client
    /// needs one.
    is_without_need: bool,
    /// Consecutive children that failed to start or exited before answering a client call; the current one not
    /// included.
    useless: usize,
    /// When the client last used the link; `None` before the first message.
    last_used: Option<Instant>,
}

impl State {
    /// Notes that the client uses the link now.
    pub(super) fn touch(&mut self) {
        self.last_used = Some(Instant::now());
    }

    /// When the client last used the link: sent a message, or got an answer. `None` while something is in flight or
    /// queued.
    pub(super) fn last_use(&mut self) -> Option<Instant> {
        if self.is_busy(Lease::is_idle) {
            self.touch();
            return None;
        }
        self.last_used.max(self.slot.leased().and_then(|lease| lease.last_use()))
    }

    /// Whether something is in flight or queued, or a child is being started for the client. `is_idle` decides whether
    /// a child has no work of this link.
    pub(super) fn is_busy(&self, is_idle: fn(&Lease) -> bool) -> bool {
        // A restart without a queued message is not a use by the client: a crashing server would keep the link for
        // ever.
        let is_starting = self.slot.is_starting() && !self.is_restarting;
        let has_work = self.slot.live().is_some_and(|lease| !is_idle(&lease));
        is_starting || has_work || self.busy_draining(is_idle) > 0 || self.queue.is_being_drained
    }

    /// The number of draining children that live and have work of this link, as decided by `is_idle`.
    pub(super) fn busy_draining(&self, is_idle: fn(&Lease) -> bool) -> usize {
        self.draining.iter().filter(|lease| lease.is_alive() && !is_idle(lease)).count()
    }

    /// The draining leases whose capacity the next child may inherit.
    pub(super) fn leaving(&self) -> Vec<Arc<Lease>> {
        self.draining.iter().filter(|lease| lease.leaves_capacity()).cloned().collect()
    }

    /// The living leases that a message about something in flight may concern, the current child's first. Empty if the
    /// current child is the only one: then such a message goes the usual way.
    pub(super) fn leases_in_flight(&self) -> Vec<Arc<Lease>> {
        let replaying = if self.slot.is_starting() { self.replaying.upgrade() } else { None };
        if self.draining.is_empty() && replaying.is_none() {
            return Vec::new();
        }
        let current = self.slot.live().or(replaying);
        current.into_iter().chain(self.draining.iter().rev().cloned()).collect()
    }

    /// The leases whose children take no new calls, the latest first.
    pub(super) fn retired_leases(&self) -> Vec<Arc<Lease>> {
        let current = self.slot.live().filter(|lease| lease.worker().is_retired());
        current.into_iter().chain(self.draining.iter().rev().cloned()).collect()
    }

    /// Moves the lease of the current child, if any, to the draining leases, and leaves the slot empty.
    pub(super) fn drain_current(&mut self) {
        self.useless = self.useless_in_a_row();
        if let Slot::Leased(lease) = std::mem::take(&mut self.slot) {
            if let Handshake::Done(done) = &mut self.handshake {
                done.negotiated = lease.negotiated();
            }
            self.draining.push(lease);
        }
    }

    /// Takes the lease on a child that was ended as idle out of the slot, and keeps what the child had granted. `None` if
    /// the child was not ended as idle, or if the client waits for what another child would say.
    pub(super) fn take_idle(&mut self) -> Option<Arc<Lease>> {
        let lease = self.slot.leased().filter(|lease| lease.worker().is_given_up_as_idle()).cloned()?;
        let Handshake::Done(done) = &mut self.handshake else { return None };
        self.last_used = self.last_used.max(lease.last_use());
        done.negotiated = lease.hand_over_now().unwrap_or_else(|| lease.negotiated());
        self.useless = 0;
        self.is_without_need = !done.negotiated.has_subscriptions();
        self.slot = Slot::Empty;
        Some(lease)
    }

    /// Whether the link is about to send its child something, or is waiting for the child's start.
    pub(super) fn needs_child(&self) -> bool {
        self.slot.is_starting() || self.queue.is_being_drained
    }

    /// Removes and returns the leases whose draining children can deliver nothing more. The negotiated state of the
    /// last of them is kept.
    pub(super) fn take_finished(&mut self) -> Vec<Arc<Lease>> {
        let finished: Vec<_> = self.draining.extract_if(.., |lease| lease.is_over()).collect();
        if let Handshake::Done(done) = &mut self.handshake {
            finished.iter().filter_map(|lease| lease.hand_over_now()).for_each(|latest| done.negotiated = latest);
        }
        finished
    }

    /// Ends a start: a started child becomes the current one, unless the link `has_ended` or its `initialize` was given
    /// up. Returns the draining leases that are to be left as soon as they are idle: none after a failed start.
    pub(super) fn finish_start(&mut self, started: &Outcome, has_ended: bool) -> Vec<Arc<Lease>> {
        match started {
            Ok(_) => self.is_without_need = false,
            Err(_) if self.handshake.done().is_some() => self.useless = self.useless.saturating_add(1),
            Err(_) => {}
        }
        self.slot = match started {
            Ok((lease, _)) if !has_ended && !self.handshake.is_none() => Slot::Leased(Arc::clone(lease)),
            Ok(_) | Err(_) => Slot::Empty,
        };
        if started.is_ok() { self.draining.clone() } else { Vec::new() }
    }

    /// The number of consecutive children of no use to the client, including the current one.
    fn useless_in_a_row(&self) -> usize {
        match &self.slot {
            Slot::Leased(lease) if lease.worker().was_of_use() => 0,
            Slot::Leased(_) => self.useless.saturating_add(1),
            Slot::Empty | Slot::Starting(_) => self.useless,
        }
    }

    /// The pause before a child is started although no message is queued: the next call then finds a child, and a
    /// client that only listens goes on to hear from the server. `None` if there is a child, or the client would not
    /// miss one.
    ///
    /// The pause grows with this link's own useless children, besides the pauses of the circuit breaker: successful
    /// calls of other sessions reset the breaker, but say nothing about this link.
    pub(super) fn pause_before_restart(&self, is_listening: impl Fn() -> bool, restart: &Restart) -> Option<Duration> {
        if self.is_without_need {
            return None;
        }
        let useless = self.useless_in_a_row();
        let lease = self.slot.leased();
        let is_gone = !self.slot.is_starting() && lease.is_none_or(|lease| !lease.is_alive());
        let done = self.handshake.done().filter(|_| is_gone)?;
        let has_subscriptions =
            || lease.map_or_else(|| done.negotiated.has_subscriptions(), |lease| lease.has_subscriptions());
        (useless == 0 || has_subscriptions() || is_listening()).then(|| backoff(restart, useless + 1))
    }
}
