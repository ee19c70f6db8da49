//! Attributes messages of a child to sessions. A child that one session has alone needs none of that: then each
//! question has the same simple answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::abandoned_calls::AbandonedCalls;
use super::owners::Owners;
use super::subscriptions::Subscriptions;
use crate::jsonrpc::{Envelope, text};
use crate::mcp::{Level, is_about_task, label, method, related_task, task_state};
use crate::memory::Text;
use crate::worker::calls::{
    Calls, LeaseId, Leases, Number, Parties, StandingInFlight, Told, Unsolicited, Waiting, left_for,
};

/// The state that sessions on one child have in common.
#[derive(Debug)]
pub(in crate::worker) struct Sharing {
    /// Whether sessions of different owners may be on the child at the same time.
    pub(in crate::worker::calls) is_shared: bool,
    pub(in crate::worker::calls) subscriptions: Subscriptions,
    /// The log level of each session that the child has accepted one of, and the order of the request that set the
    /// level. An older request that is answered later does not change the level.
    pub(super) levels: BTreeMap<LeaseId, (Level, u64)>,
    /// The level that a shared child was told last, unless the child refused the level or may not have received it.
    pub(super) told: Option<Told>,
    /// Standing requests that the child has not answered, by number.
    pub(super) in_flight: BTreeMap<u64, StandingInFlight>,
    /// Sessions whose state another child is asked for. This child grants them nothing more.
    pub(in crate::worker::calls) handed_over: BTreeSet<LeaseId>,
    pub(in crate::worker::calls) tasks: Owners,
    elicitations: Owners,
    pub(in crate::worker::calls) abandoned: AbandonedCalls,
    pub(in crate::worker::calls) parties: Parties,
}

impl Sharing {
    pub(in crate::worker::calls) fn new(capacity: usize, is_shared: bool) -> Self {
        Self {
            is_shared,
            subscriptions: Subscriptions::default(),
            levels: BTreeMap::new(),
            told: None,
            in_flight: BTreeMap::new(),
            handed_over: BTreeSet::new(),
            tasks: Owners::default(),
            elicitations: Owners::default(),
            abandoned: AbandonedCalls::new(capacity),
            parties: Parties::default(),
        }
    }

    /// Fair share: who uses a shared child may add one more while it has less than what is left for the others: a
    /// tenant of the whole, a principal of what is left for its tenant, a session of what is left for its principal.
    /// One alone gets half, two get a third each, and one more always fits. `held` is what each of them has, in this
    /// order, without those that have no rivals.
    pub(in crate::worker::calls) fn admits(&self, held: impl Iterator<Item = usize>, left: usize) -> bool {
        !self.is_shared || held.fold(left, left_for) > 0
    }

    /// Notes that the child may go on with a call that no client waits for. A child of one session needs no such note.
    pub(in crate::worker::calls) fn abandon(
        &mut self,
        number: Number,
        peer: LeaseId,
        now: Instant,
        patience: Duration,
    ) {
        if self.is_shared {
            self.abandoned.insert(number, peer, now, patience);
        }
    }

    /// Makes an elicitation a session's, unless the id is already another session's.
    pub(in crate::worker::calls) fn own_elicitation(&mut self, id: &str, peer: LeaseId) {
        if self.is_shared {
            self.elicitations.insert(id, peer);
        }
    }

    /// Whether a message of a session on a shared child names a task that is not the session's: in the params of a
    /// method about tasks, or as the task that the message belongs to (2025-11-25, "Tasks").
    pub(in crate::worker::calls) fn names_a_foreign_task(&self, peer: LeaseId, envelope: &Envelope<'_>) -> bool {
        if !self.is_shared {
            return false;
        }
        let name = envelope.method.as_deref().unwrap_or_default();
        let must_name_one = is_about_task(name);
        let is_about_tasks = name.starts_with(method::TASKS_PREFIX) || name.starts_with("notifications/tasks/");
        let asked_about = envelope.members.task_id.filter(|_| is_about_tasks);
        let belongs_to = envelope.members.meta.related_task.map(|_| envelope.members.related_task());
        let is_own = |task: Option<&str>| label(task).is_some_and(|task| self.tasks.get(&task) == Some(peer));
        (asked_about.is_some() || must_name_one) && !is_own(asked_about) || belongs_to.is_some_and(|task| !is_own(task))
    }

    /// Whether a notification of a shared child has a member twice: another reader could take it for another session's.
    pub(in crate::worker::calls) fn is_ambiguous(&self, envelope: &Envelope<'_>) -> bool {
        self.is_shared && envelope.members.has_twin()
    }

    /// The session that has caused a request of the child: the owner of the task that the request names, or the only
    /// session that the child works for. `None` if there are several, or none.
    pub(in crate::worker::calls) fn asked_by(
        &self,
        envelope: &Envelope<'_>,
        (leases, calls): (&Leases, &Calls),
        now: Instant,
    ) -> Option<LeaseId> {
        if let Some(task) = related_task(envelope) {
            let owner = self.tasks.get(&task);
            if self.is_shared || owner.is_some() {
                return owner;
            }
        }
        let caller = calls.values().next().map(|call| call.peer);
        self.only_peer(caller.or_else(|| self.abandoned.peers(now)?.next()), (leases, calls), now)
    }

    /// The only session on the child, or else `otherwise`, if the child works for nobody else. Abandoned calls count,
    /// also those of sessions that have left.
    fn only_peer(
        &self,
        otherwise: Option<LeaseId>,
        (leases, calls): (&Leases, &Calls),
        now: Instant,
    ) -> Option<LeaseId> {
        let alone = leases.keys().next().filter(|_| leases.len() == 1).copied();
        if !self.is_shared {
            return alone;
        }
        let peer = alone.or(otherwise).filter(|peer| leases.contains_key(peer))?;
        let is_it = |other: LeaseId| other == peer;
        (calls.values().map(|call| call.peer).all(is_it) && self.abandoned.peers(now)?.all(is_it)).then_some(peer)
    }

    /// The sessions that a notification of the child concerns: none, if that cannot be told. `None` if nobody needs the
    /// notification: the only session wants no messages of that log level, or all sessions have another child.
    pub(in crate::worker::calls) fn concerned(
        &self,
        envelope: &Envelope<'_>,
        (leases, calls): (&Leases, &Calls),
        now: Instant,
    ) -> Option<(Unsolicited, Vec<LeaseId>)> {
        let params = &envelope.members;
        let is_leaving = |peer: &LeaseId| leases.get(peer).is_some_and(|state| state.is_leaving);
        // A session that has another child hears from that one what is new.
        let announced = |peers: Vec<LeaseId>| match peers.iter().all(is_leaving) && !peers.is_empty() {
            true => None,
            false => Some((Unsolicited::Announcement, peers.into_iter().filter(|peer| !is_leaving(peer)).collect())),
        };
        let (kind, peer) = match envelope.method.as_deref().unwrap_or_default() {
            method::RESOURCES_UPDATED if self.is_shared => {
                let uri = text(params.uri.unwrap_or_default());
                return announced(uri.map(|uri| self.subscriptions.subscribers(&uri)).unwrap_or_default());
            }
            method::TOOLS_LIST_CHANGED
            | method::PROMPTS_LIST_CHANGED
            | method::RESOURCES_LIST_CHANGED
            | method::RESOURCES_UPDATED => return announced(leases.keys().copied().collect()),
            method::ELICITATION_COMPLETE if self.is_shared => {
                let id = label(params.elicitation_id);
                (Unsolicited::Announcement, id.and_then(|id| self.elicitations.get(&id)))
            }
            method::TASKS_STATUS if self.is_shared => {
                (Unsolicited::Notification, task_state(params).and_then(|state| self.tasks.get(&state.id)))
            }
            name => {
                let peer = match related_task(envelope).filter(|_| self.is_shared) {
                    Some(task) => self.tasks.get(&task),
                    None => self.only_peer(None, (leases, calls), now),
                };
                // A log line may hold anybody's data: it goes out only where there is nobody else.
                if name == method::MESSAGE && peer.is_some_and(|peer| !self.wants(peer, envelope)) {
                    return None;
                }
                (Unsolicited::Notification, peer)
            }
        };
        Some((kind, peer.into_iter().collect()))
    }

    /// Whether a log message is of the level that a session has asked for, or above. A session that has asked for no
    /// level gets all; a child of one session keeps to the level itself.
    fn wants(&self, peer: LeaseId, message: &Envelope<'_>) -> bool {
        if !self.is_shared {
            return true;
        }
        let level = label(message.members.level).as_deref().and_then(Level::parse);
        let asked_for = self.levels.get(&peer).map(|(level, _)| *level);
        asked_for.is_none() || level.is_none() || level >= asked_for
    }

    /// Removes the state of a session. Returns the URIs that a shared child is to be unsubscribed from, and the
    /// requests of the session that waited for the subscribe of another session.
    pub(in crate::worker::calls) fn forget(&mut self, peer: LeaseId) -> (Vec<Text>, Vec<Waiting>) {
        self.levels.remove(&peer);
        self.handed_over.remove(&peer);
        self.tasks.forget(peer);
        self.elicitations.forget(peer);
        let (unused, waiting) = self.subscriptions.forget(peer);
        (if self.is_shared { unused } else { Vec::new() }, waiting)
    }

    /// The tables that are not empty, apart from the level that the child was told.
    #[cfg(test)]
    pub(in crate::worker::calls) fn left_behind(&self) -> Vec<String> {
        let tables: [(&dyn std::fmt::Debug, bool); 7] = [
            (&self.subscriptions, self.subscriptions.is_empty()),
            (&self.levels, self.levels.is_empty()),
            (&self.in_flight, self.in_flight.is_empty()),
            (&self.handed_over, self.handed_over.is_empty()),
            (&self.tasks, self.tasks.is_empty()),
            (&self.abandoned, self.abandoned.is_empty()),
            (&self.elicitations, self.elicitations.is_empty()),
        ];
        tables.into_iter().filter(|(_, is_empty)| !is_empty).map(|(table, _)| format!("{table:?}")).collect()
    }
}
