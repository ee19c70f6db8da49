//! The tables of what is in flight on one child, both ways.
//!
//! Invariant: an answer reaches the exchange that asked, or nobody. Every request gets a number of this worker's own;
//! only that number, still in flight, leads back to an exchange, and it does so once. Where sessions share the child,
//! each gets its own only, or what concerns all of them.

mod messages;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::numbers;
use super::{
    Call, Calls, DeadlineTimer, Expired, Held, Holdings, InFlight, LeaseId, LeaseState, Leases, LiveTasks, Party,
    ServerRequests, Sharing, Standing, Waiting, Withdrawn, insert_bounded,
};
use crate::jsonrpc::{Envelope, own_frame, own_request, quoted};
use crate::mcp::{cancelled_notification, method, task_asked_about};
use crate::memory::Text;

/// The tables of one worker.
#[derive(Debug)]
pub(in crate::worker) struct Multiplexer {
    calls: Calls,
    leases: Leases,
    pub(in crate::worker) server_requests: ServerRequests,
    /// The order of each request of the gateway's own whose answer nobody needs, by number. At most `max_in_flight`;
    /// the oldest is forgotten.
    own_requests: BTreeMap<u64, u64>,
    pub(super) live_tasks: LiveTasks,
    pub(in crate::worker) sharing: Sharing,
    /// When something in flight may time out.
    pub(in crate::worker) timer: DeadlineTimer,
    max_in_flight: usize,
    /// How long a call may be in flight, whatever its progress, before the child is ended. A call that has timed out is
    /// in flight no more, and `initialize` does not count. `None`: no limit.
    pub(in crate::worker) harakiri: Option<Duration>,
    /// How long a shared child may go on with a cancelled call. `None`: for the time-out of the call.
    pub(in crate::worker) cancel_grace: Option<Duration>,
    /// The number of requests that the child has been given an order for.
    given: u64,
    /// The number of client requests that the child has received.
    pub(in crate::worker) total: u64,
    /// The number of client calls that the child has answered.
    pub(in crate::worker) answered: u64,
}

impl Multiplexer {
    /// Empty tables. `is_shared`: sessions of different owners may be on the child at the same time.
    pub(in crate::worker) fn new(max_in_flight: usize, is_shared: bool) -> Self {
        Self {
            calls: Calls::default(),
            leases: Leases::new(),
            server_requests: ServerRequests::new(max_in_flight),
            own_requests: BTreeMap::new(),
            live_tasks: LiveTasks::new(max_in_flight),
            sharing: Sharing::new(max_in_flight, is_shared),
            timer: DeadlineTimer::default(),
            max_in_flight,
            harakiri: None,
            cancel_grace: None,
            given: 0,
            total: 0,
            answered: 0,
        }
    }

    /// Puts a session on the child, for which what it holds counts alone.
    #[cfg(test)]
    pub(in crate::worker) fn attach(&mut self, peer: LeaseId) {
        self.attach_of(peer, &[]);
    }

    /// Puts a session of these parties on the child, the tenant before the principal. Returns what the parties hold.
    pub(in crate::worker) fn attach_of(&mut self, peer: LeaseId, parties: &[Party]) -> Holdings {
        let holdings = self.sharing.parties.join(parties);
        self.leases.insert(peer, LeaseState { holdings: holdings.clone(), ..LeaseState::default() });
        holdings
    }

    /// Whether the child may still use this number, though it is of no call in flight.
    fn is_remembered(&self, number: u64) -> bool {
        self.own_requests.contains_key(&number) || self.sharing.abandoned.has(number) || self.live_tasks.has(number)
    }

    /// Makes a request of the gateway's own, whose answer nobody needs: its number, and the frame. `params` is JSON.
    /// The request is no call: it neither counts nor keeps anything busy.
    pub(in crate::worker) fn own_request(&mut self, method: &str, params: &str) -> (u64, Bytes) {
        self.given += 1;
        let number = numbers::for_call(|number| self.calls.contains_key(&number) || self.is_remembered(number));
        insert_bounded(&mut self.own_requests, self.max_in_flight, (number, self.given), |order| *order);
        (number, own_request(number, method, params))
    }

    fn unsubscription(&mut self, uri: Text) -> Bytes {
        let standing = Standing::Unsubscribe(uri);
        self.own_request(standing.method(), &standing.params()).1
    }

    fn cancellation_of_task(&mut self, id: &str) -> Bytes {
        self.own_request(method::TASKS_CANCEL, &format!(r#"{{"taskId":{}}}"#, quoted(id))).1
    }

    /// Counts one more answer that a session waits for.
    fn begin(&mut self, peer: LeaseId, now: Instant) {
        self.leases.entry(peer).and_modify(|state| state.begin(now));
    }

    /// Counts one answer less that a session waits for, if the session is still on the child.
    fn end(&mut self, peer: LeaseId) {
        self.leases.entry(peer).and_modify(LeaseState::end);
    }

    fn take_call(&mut self, number: u64) -> Option<Box<Call>> {
        let call = self.calls.remove(&number)?;
        self.end(call.peer);
        Some(call)
    }

    /// Removes a session from the child: cancels its calls, and ends what only this session wanted.
    pub(in crate::worker) fn detach(&mut self, peer: LeaseId, now: Instant) -> Expired {
        let mut gone = Expired::default();
        let Some(state) = self.leases.remove(&peer) else { return gone };
        state.holdings.end(state.in_flight);
        let (unused, waiting) = self.sharing.forget(peer);
        gone.waiting = waiting;
        let calls: Vec<u64> = self.calls.iter().filter(|(_, call)| call.peer == peer).map(|(n, _)| *n).collect();
        self.give_up_or_pass_on(calls, "the session has ended", now, &mut gone);
        gone.frames.extend(self.server_requests.refuse(peer));
        self.server_requests.forget(peer);
        gone.frames.extend(unused.into_iter().map(|uri| self.unsubscription(uri)));
        if let Some(level) = self.sharing.level_to_tell() {
            let (number, frame) = self.own_request(method::LOGGING_SET_LEVEL, &Standing::Level(level).params());
            self.sharing.tell_level(level, number);
            gone.frames.push(frame);
        }
        // Nobody can fetch the result any more. A child of this session alone ends too, and need not be told.
        let orphans = self.live_tasks.orphan(peer).into_iter().filter(|_| self.sharing.is_shared);
        gone.frames.extend(orphans.collect::<Vec<_>>().iter().map(|task| self.cancellation_of_task(task)));
        gone
    }

    /// Ends the standing requests of a session, whose state another child is asked for now. This child grants the
    /// session nothing more.
    pub(in crate::worker) fn hand_over(&mut self, peer: LeaseId, now: Instant) -> Expired {
        let mut gone = Expired::default();
        if self.leases.contains_key(&peer) {
            let (waiting, requests) = self.sharing.hand_over(peer);
            self.fail(waiting, &mut gone);
            self.give_up_or_pass_on(requests, "another server has taken over", now, &mut gone);
        }
        gone
    }

    /// Whether this child can still grant a session a standing request.
    pub(in crate::worker) fn grants(&self, peer: LeaseId) -> bool {
        self.leases.contains_key(&peer) && !self.sharing.handed_over.contains(&peer)
    }

    /// Removes everything that has timed out, and sets the timer anew.
    pub(in crate::worker) fn expire(&mut self, now: Instant) -> Expired {
        debug_assert!(self.is_counted(), "what is in flight is counted wrongly");
        let mut expired = Expired::default();
        self.sharing.abandoned.expire(now);
        // Before the calls, on whose streams the clients may have been asked.
        for (number, peer, refusal) in self.server_requests.expire(now) {
            expired.frames.push(refusal);
            expired.withdrawn.push(self.withdrawn(number, peer, "timed out"));
        }
        let mut late: Vec<_> = self.calls.values().filter(|c| c.deadline <= now).map(|c| c.number).collect();
        late.sort_unstable_by_key(|number| number.order);
        late.into_iter().for_each(|number| self.give_up(number.wire, "timed out", now, &mut expired));
        let tasks = self.live_tasks.expire(now);
        let calls = self.calls.values().map(|call| self.due(call));
        self.timer.set(calls.chain(self.server_requests.next_deadline()).chain(tasks).min());
        expired
    }

    /// When a call has to be looked at: when it times out, or overruns `limits.harakiri`.
    fn due(&self, call: &Call) -> Instant {
        let overruns = self.harakiri.filter(|_| !call.is_initialize()).map(|harakiri| call.started + harakiri);
        overruns.map_or(call.deadline, |overruns| overruns.min(call.deadline))
    }

    /// `limits.harakiri`, if a call has taken longer than that.
    pub(in crate::worker) fn has_overrun(&self, now: Instant) -> Option<Duration> {
        self.harakiri.filter(|harakiri| self.oldest().is_some_and(|since| since + *harakiri <= now))
    }

    fn withdrawn(&self, number: u64, peer: LeaseId, why: &str) -> (Withdrawn, Bytes) {
        (Withdrawn { peer, number, in_flight: self.in_flight(peer) }, cancelled_notification(number, why).into())
    }

    /// Empties the tables, as the child has ended. Returns the calls in the order in which they were made.
    pub(in crate::worker) fn drain(&mut self) -> Expired {
        let requests = self.server_requests.drain().into_iter();
        let withdrawn = requests.map(|(number, peer)| self.withdrawn(number, peer, "the server has ended")).collect();
        let mut all = Expired { withdrawn, ..Expired::default() };
        for (number, call) in std::mem::take(&mut self.calls) {
            self.end(call.peer);
            let waiting = self.sharing.undo(number);
            self.fail(waiting, &mut all);
            all.calls.push(call);
        }
        all.calls.sort_by_key(|call| call.number.order);
        all
    }

    /// Fails requests that waited for the answer to another.
    fn fail(&mut self, waiting: Vec<Waiting>, expired: &mut Expired) {
        waiting.iter().for_each(|waiting| self.end(waiting.peer));
        expired.waiting.extend(waiting);
    }

    /// Gives up calls of a session. A first subscribe that other sessions wait for goes on instead, as that of the next
    /// of them.
    fn give_up_or_pass_on(&mut self, calls: Vec<u64>, why: &str, now: Instant, gone: &mut Expired) {
        for number in calls {
            let Some(Waiting { peer, id, exchange, is_own, .. }) = self.sharing.pass_on(number) else {
                self.give_up(number, why, now, gone);
                continue;
            };
            let Some(call) = self.calls.get_mut(&number) else { continue };
            let task = call.task.take();
            let heir = Call { peer, original: id, exchange, is_own, task, progress_token: None, kept: None, ..**call };
            let call = std::mem::replace(call, Box::new(heir));
            self.end(call.peer);
            gone.calls.push(call);
        }
    }

    /// Removes a call that nobody waits for any more. The child gets a cancellation, but for `initialize`.
    fn give_up(&mut self, number: u64, why: &str, now: Instant, expired: &mut Expired) {
        let Some(call) = self.take_call(number) else { return };
        if !call.is_initialize() {
            expired.frames.push(own_frame(cancelled_notification(number, why).as_bytes()));
            self.abandon(&call, now);
        }
        let (waiting, uri) = self.sharing.unsettle(number);
        self.fail(waiting, expired);
        expired.frames.extend(uri.map(|uri| self.unsubscription(uri)));
        expired.calls.push(call);
    }

    fn abandon(&mut self, call: &Call, now: Instant) {
        self.sharing.abandon(call.number, call.peer, now, self.cancel_grace.unwrap_or(call.timeout()));
    }

    /// The calls of a session's client that a message without a call may belong to.
    pub(in crate::worker) fn in_flight(&self, peer: LeaseId) -> InFlight {
        if self.waits(peer) == 0 {
            return InFlight::default();
        }
        let mut count = 0;
        let calls = self.calls.values().filter(|call| call.peer == peer && !call.is_own);
        let latest = calls.inspect(|_| count += 1).max_by_key(|call| call.number.order);
        InFlight { latest: latest.map(|call| Arc::clone(&call.exchange)), count }
    }

    /// Whether nothing is in flight, either way, and the child is kept for no task.
    pub(in crate::worker) fn is_idle(&self) -> bool {
        self.calls.is_empty() && self.server_requests.is_empty() && self.live_tasks.awaited().next().is_none()
    }

    /// Notes that a session uses the child now.
    pub(in crate::worker) fn touch(&mut self, peer: LeaseId, now: Instant) {
        self.leases.entry(peer).and_modify(|state| state.used = Some(now));
    }

    /// When a session took its lease, made a call, or got an answer, whichever came last. `None` for one that is not on
    /// the child.
    pub(in crate::worker) fn last_use_by(&self, peer: LeaseId) -> Option<Instant> {
        self.leases.get(&peer)?.used
    }

    /// The last use by any session that is on the child; `None` if none is.
    pub(in crate::worker) fn last_use(&self) -> Option<Instant> {
        self.leases.values().filter_map(|state| state.used).max()
    }

    /// Whether the child could go though sessions are on it: nothing is in flight, either way, the child is kept for no
    /// task, and no session is subscribed.
    pub(in crate::worker) fn is_unused(&self) -> bool {
        self.is_idle() && !self.sharing.subscriptions.has_any()
    }

    /// Whether nothing of this session is in flight, either way, and the child is kept for no task of it.
    pub(in crate::worker) fn is_idle_for(&self, peer: LeaseId) -> bool {
        self.is_done_for(peer) && self.live_tasks.awaited().all(|task| task.peer != peer)
    }

    /// Whether the child has nothing to do for this session. Results of tasks may be left to fetch.
    pub(in crate::worker) fn is_done_for(&self, peer: LeaseId) -> bool {
        self.waits(peer) == 0
            && self.server_requests.of(peer) == 0
            && self.live_tasks.awaited().all(|task| task.peer != peer || task.is_over)
    }

    /// The number of answers that a session waits for.
    fn waits(&self, peer: LeaseId) -> usize {
        self.leases.get(&peer).map_or(0, |state| state.in_flight)
    }

    /// The number of calls in flight.
    pub(in crate::worker) fn load(&self) -> usize {
        self.calls.len()
    }

    /// When the oldest call in flight was made, `initialize` not counted.
    pub(in crate::worker) fn oldest(&self) -> Option<Instant> {
        self.calls.values().filter(|call| !call.is_initialize()).map(|call| call.started).min()
    }

    /// Whether the child works on a task that it is kept for.
    pub(in crate::worker) fn works_on_task(&self) -> bool {
        self.live_tasks.awaited().any(|task| !task.is_over)
    }

    /// Whether a request is about a task of a session that has something in flight, or a task, on this child. Then the
    /// child takes the request even if it takes no new calls.
    pub(in crate::worker) fn is_about_task_here(&self, peer: LeaseId, envelope: &Envelope<'_>) -> bool {
        let task = task_asked_about(envelope);
        // A session with nothing in flight may be about to leave.
        task.is_some_and(|task| self.owns_task(peer, &task)) && !self.is_idle_for(peer)
    }

    /// Whether a task is a session's.
    pub(in crate::worker) fn owns_task(&self, peer: LeaseId, task: &str) -> bool {
        self.sharing.tasks.get(task) == Some(peer)
    }

    /// Marks a session as one that has another child: announcements of this child no longer go to that session.
    pub(in crate::worker) fn leave_when_idle(&mut self, peer: LeaseId) {
        self.leases.entry(peer).and_modify(|state| state.is_leaving = true);
    }

    /// The sessions that have another child, and on this one nothing in flight and no task.
    pub(in crate::worker) fn ready_to_leave(&self) -> Vec<LeaseId> {
        let leaving = self.leases.iter().filter(|(_, state)| state.is_leaving).map(|(peer, _)| *peer);
        leaving.filter(|peer| self.is_idle_for(*peer)).collect()
    }

    /// Whether the counts of what sessions wait for are right.
    pub(super) fn is_counted(&self) -> bool {
        let in_flight = |peer: LeaseId| {
            let calls = self.calls.values().filter(|call| call.peer == peer).count();
            calls + self.sharing.subscriptions.waiting().filter(|waiting| waiting.peer == peer).count()
        };
        // What the sessions of each party wait for, beside what is counted for it.
        let mut parties: BTreeMap<*const Held, (usize, usize)> = BTreeMap::new();
        for state in self.leases.values() {
            for held in state.holdings.all() {
                parties.entry(Arc::as_ptr(held)).or_insert((held.calls(), 0)).1 += state.in_flight;
            }
        }
        parties.values().all(|(counted, waits)| counted == waits)
            && self.leases.iter().all(|(peer, state)| state.in_flight == in_flight(*peer))
            && self.sharing.subscriptions.waits() == self.sharing.subscriptions.waiting().count()
    }

    /// The tables that are not empty though no session is on the child, apart from the requests and tasks that the
    /// child has not said to be over.
    #[cfg(test)]
    pub(in crate::worker) fn left_behind(&self) -> Vec<String> {
        let tables: [(&dyn std::fmt::Debug, bool); 3] = [
            (&self.calls, self.calls.is_empty()),
            (&self.server_requests, self.server_requests.is_clear()),
            (&self.leases, self.leases.is_empty()),
        ];
        let own = tables.into_iter().filter(|(_, is_empty)| !is_empty).map(|(table, _)| format!("{table:?}"));
        own.chain(self.sharing.left_behind()).collect()
    }
}
