//! The index of sessions by use: which session of a principal makes room for another, and which sessions have to be looked
//! at for their idle time-out. Neither question looks at all sessions.
//!
//! Invariant: a session is in the index from its opening to its end. The noted use of a session is never later than the
//! real one: whoever is noted as unused for long is asked before anything follows from it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::place::{Place, SessionNumber};
use super::session::Session;
use crate::auth::Principal;
use crate::config::TenantId;

/// The sessions that a search for the longest unused one asks at once. Of a principal with more, the search is exact
/// among the sessions that were noted as unused for longest.
const ASKED: usize = 32;
/// A session without an open stream that has been unused for so long goes before all others. One that was used later may
/// be new, or between two calls.
pub(super) const SETTLED: Duration = Duration::from_secs(10);
/// The rounds of a search in which every session that was asked is in use. A search that finds none has asked at most
/// [`ROUNDS`] times [`ASKED`] sessions of a principal, under the lock of all.
const ROUNDS: usize = 4;
/// The principals of a tenant that are asked for a session, those with the most sessions first.
const PRINCIPALS: usize = 8;

/// The sessions by their use.
#[derive(Default)]
pub(super) struct IdleIndex(Mutex<State>);

#[derive(Default)]
struct State {
    /// The sessions of each principal that has any.
    principals: HashMap<Principal, Roster>,
    /// The principals of each tenant, by the number of their sessions.
    by_count: HashMap<TenantId, BTreeSet<(usize, RosterNumber)>>,
    /// The principals by the numbers of their rosters.
    owners: HashMap<RosterNumber, Principal>,
    /// The sessions by the time of the next look at each.
    due: BTreeMap<(Instant, SessionNumber), Arc<Session>>,
    /// The number of rosters made so far.
    made: RosterNumber,
}

/// The number of a roster: unique in its index.
type RosterNumber = u64;

/// The sessions of one principal.
struct Roster {
    number: RosterNumber,
    /// The sessions by their noted use.
    by_use: BTreeMap<(Instant, SessionNumber), Arc<Session>>,
}

impl IdleIndex {
    /// Adds a session that was just opened. The session is looked at from `due` on.
    pub(super) fn add(&self, session: &Arc<Session>, due: Instant) {
        let (number, now) = (session.number(), Instant::now());
        let mut state = self.0.lock();
        *session.place().lock() = Some(Place { used: now, due });
        state.due.insert((due, number), Arc::clone(session));
        let principal = session.principal();
        let count = state.roster(principal).by_use.len();
        state.roster(principal).by_use.insert((now, number), Arc::clone(session));
        state.count(principal, count, count + 1);
    }

    /// Removes a session that has ended. Without effect on one that is not in the index.
    pub(super) fn remove(&self, session: &Session) {
        let mut state = self.0.lock();
        let Some(Place { used, due }) = session.place().lock().take() else { return };
        let (number, principal) = (session.number(), session.principal());
        let at_due = state.due.remove(&(due, number));
        let Some(roster) = state.principals.get_mut(principal) else { return };
        let in_roster = roster.by_use.remove(&(used, number));
        let count = roster.by_use.len();
        state.count(principal, count + 1, count);
        drop(state);
        // The last reference may be among these: not under the lock.
        drop((at_due, in_roster));
    }

    /// Takes the sessions that are due for a look out of the order of looks, at most `most` of them. Each goes back by
    /// [`Self::look_again`], or is removed.
    pub(super) fn take_due(&self, now: Instant, most: usize) -> Vec<Arc<Session>> {
        let mut state = self.0.lock();
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(first) = state.due.first_entry().filter(|first| first.key().0 <= now)
        {
            taken.push(first.remove());
        }
        taken
    }

    /// Notes when a session is to be looked at next. Without effect on a session that has ended.
    pub(super) fn look_again(&self, session: &Arc<Session>, due: Instant) {
        let mut state = self.0.lock();
        let mut place = session.place().lock();
        let Some(place) = place.as_mut() else { return };
        state.due.remove(&(place.due, session.number()));
        place.due = due;
        state.due.insert((due, session.number()), Arc::clone(session));
    }

    /// The session of this principal that makes room: the longest unused one, one without an open stream that
    /// has been unused for [`SETTLED`] before all others. `None` if all are in use.
    pub(super) fn longest_unused(&self, principal: &Principal) -> Option<Arc<Session>> {
        self.0.lock().principals.get_mut(principal)?.longest_unused()
    }

    /// The session of this principal's tenant that makes room: of the principal with the most sessions, or of the next
    /// ones if all of those are in use. The principal itself comes first among those with as many. `None` if all that
    /// were asked are in use.
    pub(super) fn longest_unused_of_tenant(&self, principal: &Principal) -> Option<Arc<Session>> {
        let mut state = self.0.lock();
        let own = state.principals.get(principal).map_or(0, |roster| roster.by_use.len());
        let largest = state.by_count.get(principal.tenant()).into_iter().flat_map(|by_count| by_count.iter().rev());
        let larger = largest.take_while(|(count, _)| *count > own).take(PRINCIPALS);
        let larger: Vec<_> = larger.filter_map(|(_, number)| state.owners.get(number).cloned()).collect();
        let mut asked = larger.iter().chain([principal]);
        asked.find_map(|principal| state.principals.get_mut(principal)?.longest_unused())
    }

    /// Whether a session is unused, of those that are looked at next.
    pub(super) fn has_unused(&self) -> bool {
        self.0.lock().due.values().take(ASKED).any(|session| session.last_use().is_some())
    }

    /// The time until the first session ends, if all stay unused as they are, of those that are looked at next. `None` if
    /// all of those are in use or have an open stream.
    pub(super) fn first_to_end(&self, idle_timeout: Duration) -> Option<Duration> {
        let state = self.0.lock();
        let idle = state.due.values().take(ASKED).filter_map(|session| session.idle_for());
        idle.max().map(|longest| idle_timeout.saturating_sub(longest))
    }
}

impl State {
    /// The roster of a principal, made if there is none.
    fn roster(&mut self, principal: &Principal) -> &mut Roster {
        let (made, owners) = (&mut self.made, &mut self.owners);
        self.principals.entry(principal.clone()).or_insert_with(|| {
            *made += 1;
            owners.insert(*made, principal.clone());
            Roster { number: *made, by_use: BTreeMap::new() }
        })
    }

    /// Notes that a principal had `before` sessions, and has `after` now. Without sessions its roster goes.
    fn count(&mut self, principal: &Principal, before: usize, after: usize) {
        let Some(number) = self.principals.get(principal).map(|roster| roster.number) else { return };
        let by_count = self.by_count.entry(principal.tenant().clone()).or_default();
        by_count.remove(&(before, number));
        if after > 0 {
            by_count.insert((after, number));
            return;
        }
        if by_count.is_empty() {
            self.by_count.remove(principal.tenant());
        }
        self.owners.remove(&number);
        self.principals.remove(principal);
    }
}

impl Roster {
    /// The longest unused session, one without an open stream that has been unused for [`SETTLED`] before all others;
    /// `None` if all that were asked are in use.
    fn longest_unused(&mut self) -> Option<Arc<Session>> {
        let begin = Instant::now();
        for _ in 0..ROUNDS {
            let first: Vec<_> =
                self.by_use.iter().take(ASKED).map(|(key, session)| (*key, Arc::clone(session))).collect();
            let mut unused = Vec::new();
            let mut is_news = false;
            for (key, session) in first {
                is_news |= key.0 < begin;
                let last_use = session.last_use();
                self.note(key, last_use.map_or(begin, |(_, at)| at));
                unused.extend(last_use.map(|(has_stream, at)| (has_stream, at, session)));
            }
            let is_settled = |has_stream: bool, at: Instant| !has_stream && begin.duration_since(at) >= SETTLED;
            let longest = unused.into_iter().min_by_key(|(has_stream, at, _)| (!is_settled(*has_stream, *at), *at));
            if let Some((_, _, session)) = longest {
                return Some(session);
            }
            if !is_news {
                return None;
            }
        }
        None
    }

    /// Notes the use of the session at `key`.
    fn note(&mut self, key: (Instant, SessionNumber), used: Instant) {
        if key.0 == used {
            return;
        }
        if let Some(session) = self.by_use.remove(&key) {
            if let Some(place) = session.place().lock().as_mut() {
                place.used = used;
            }
            self.by_use.insert((used, key.1), session);
        }
    }
}
