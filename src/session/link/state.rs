//! The changing state of a link: the data under its mutex, and the transitions that need nothing else.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::draining::DrainingLeases;
use super::handshake::Handshake;
use super::queue::PendingQueue;
use super::slot::{Outcome, Slot};
use crate::worker::Lease;

/// The state of a link.
#[derive(Default)]
pub(super) struct State {
    /// The current child.
    pub(super) slot: Slot,
    /// The replaced children with work of this link.
    pub(super) draining: DrainingLeases,
    /// The progress of the handshake.
    pub(super) handshake: Handshake,
    /// The client's messages that no child has taken yet.
    pub(super) queue: PendingQueue,
    /// The starting child to which the handshake is being replayed.
    pub(super) replaying: Weak<Lease>,
    /// Whether a task restarts the child although no message is queued.
    pub(super) is_restarting: bool,
    /// Consecutive children that failed to start or exited before answering a client call; the current one not included.
    pub(super) useless: usize,
    /// When the client last used the link; `None` before the first message.
    last_used: Option<Instant>,
}

impl State {
    /// Notes that the client uses the link now.
    pub(super) fn touch(&mut self) {
        self.last_used = Some(Instant::now());
    }

    /// The time since the client last used the link; `None` while something is in flight or queued.
    pub(super) fn idle_for(&mut self) -> Option<Duration> {
        if self.is_busy(Lease::is_idle) {
            self.touch();
            return None;
        }
        self.last_used.map(|since| since.elapsed())
    }

    /// Whether something is in flight or queued, or a child is being started for the client. `is_idle` decides for each
    /// lease.
    pub(super) fn is_busy(&self, is_idle: fn(&Lease) -> bool) -> bool {
        // A restart without a queued message is not a use by the client: a crashing server would keep the link for ever.
        let is_unasked = self.is_restarting && self.slot.is_starting();
        (self.slot.is_busy(is_idle) && !is_unasked) || self.draining.busy(is_idle) > 0 || self.queue.is_being_drained()
    }

    /// The living leases that a message about something in flight may concern, the current child's first. Empty if the current child is
    /// the only one: then such a message goes the usual way.
    pub(super) fn leases_in_flight(&self) -> Vec<Arc<Lease>> {
        let replaying = if self.slot.is_starting() { self.replaying.upgrade() } else { None };
        if self.draining.is_empty() && replaying.is_none() {
            return Vec::new();
        }
        let current = self.slot.live().or(replaying);
        current.into_iter().chain(self.draining.latest_first().cloned()).collect()
    }

    /// The leases whose children take no new calls, the latest first.
    pub(super) fn retired_leases(&self) -> Vec<Arc<Lease>> {
        let current = self.slot.live().filter(|lease| lease.worker().is_retired());
        current.into_iter().chain(self.draining.latest_first().cloned()).collect()
    }

    /// Moves the lease of the current child, if any, to the draining leases, and leaves the slot empty.
    pub(super) fn drain_current(&mut self) {
        self.useless = self.slot.useless_in_a_row(self.useless);
        if let Slot::Leased(lease) = std::mem::take(&mut self.slot) {
            if let Some(done) = self.handshake.done_mut() {
                done.negotiated = lease.negotiated();
            }
            self.draining.push(lease);
        }
    }

    /// Removes and returns the leases whose draining children can deliver nothing more. The negotiated state of the last of
    /// them is kept.
    pub(super) fn take_finished(&mut self) -> Vec<Arc<Lease>> {
        let finished = self.draining.take_finished();
        if let Some(done) = self.handshake.done_mut() {
            finished.iter().filter_map(|lease| lease.hand_over_now()).for_each(|latest| done.negotiated = latest);
        }
        finished
    }

    /// Ends a start: a started child becomes the current one, unless the link `has_ended` or its `initialize` was given up.
    /// Returns the draining leases that are to be left as soon as they are idle.
    pub(super) fn finish_start(&mut self, started: &Outcome, has_ended: bool) -> Vec<Arc<Lease>> {
        if started.is_err() && self.handshake.done().is_some() {
            self.useless = self.useless.saturating_add(1);
        }
        self.slot = match started {
            Ok((lease, _)) if !has_ended && !self.handshake.is_none() => Slot::Leased(Arc::clone(lease)),
            Ok(_) | Err(_) => Slot::Empty,
        };
        self.draining.latest_first().filter(|_| started.is_ok()).cloned().collect()
    }
}
