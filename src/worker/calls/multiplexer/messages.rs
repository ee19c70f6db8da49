//! The messages of calls, both ways: registers a client's request and makes the frame for the child, and decides for
//! each message of the child which exchange or session gets it, and under which id.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Multiplexer;
use crate::jsonrpc::{Code, Envelope, Kind, RawId, error_response, own_frame, own_request};
use crate::mcp::{Cancels, LONGEST_LABEL, TaskState, ambiguity, label, method, task_state};
use crate::telemetry::DropReason;
use crate::worker::calls::{
    Answer, Call, Decision, Draft, Edit, Incoming, LeaseId, LeaseState, Notified, OpenRequest, Outgoing, Refused,
    Reported, Unsolicited, Withdrawn, refusal,
};

impl Multiplexer {
    /// Registers a call, or answers the request here.
    ///
    /// # Errors
    /// The child takes no request of this session now.
    pub(in crate::worker) fn put(&mut self, mut draft: Draft<'_>) -> Result<Outgoing, Refused> {
        let (peer, is_own) = (draft.call.peer, draft.call.is_own);
        // A session that has left may still be on its way out.
        let state = self.leases.get(&peer).ok_or(Refused::Ended)?;
        if let Err(answer) = draft.frame {
            return Ok(Outgoing::Local(answer));
        }
        let refusal = self.refusal(state, is_own);
        self.given += 1;
        draft.call.number.order = self.given;
        let standing = match self.sharing.decide(&mut draft, refusal)? {
            Decision::Forward(standing) => standing,
            Decision::Local(answer) => return Ok(Outgoing::Local(answer)),
            Decision::Wait => {
                self.begin(peer, draft.call.started);
                return Ok(Outgoing::Wait);
            }
        };
        let (number, frame) = self.register(draft);
        let instead = standing.and_then(|standing| self.sharing.sent(number, (peer, is_own), standing));
        let frame = instead.map_or(frame, |standing| own_request(number, standing.method(), &standing.params()));
        Ok(Outgoing::Forward(number, frame))
    }

    /// The reason why a session may not add a call; `None` if it may. Calls of the gateway's own are bounded by the
    /// capacity of the child alone.
    fn refusal(&self, state: &LeaseState, is_own: bool) -> Option<Refused> {
        let left = self.max_in_flight.saturating_sub(self.calls.len() + self.sharing.subscriptions.waits());
        match left {
            0 => Some(Refused::Busy),
            _ => (!is_own && !self.sharing.admits(state.waits(), left)).then_some(Refused::Share),
        }
    }

    /// Puts a call into the table. Returns the number that the child knows the call by, and the frame.
    fn register(&mut self, mut draft: Draft<'_>) -> (u64, Bytes) {
        if let Some(number) = draft.call.task.as_deref().and_then(|task| self.live_tasks.find(task)) {
            self.live_tasks.keep(number, &mut self.timer, draft.call.started);
        }
        self.timer.no_later_than(self.due(&draft.call));
        self.begin(draft.call.peer, draft.call.started);
        loop {
            let number = draft.call.number.wire;
            if !self.is_remembered(number)
                && let Entry::Vacant(place) = self.calls.entry(number)
            {
                place.insert(draft.call);
                return (number, draft.frame.unwrap_or_default());
            }
            // The number was drawn before the lock was taken. Hardly ever has another request the same.
            draft.renumber();
        }
    }

    /// Removes a call whose frame could not be queued: the child does not receive it.
    pub(in crate::worker) fn forget(&mut self, number: u64) {
        if self.take_call(number).is_some() {
            self.sharing.undo(number);
        }
    }

    /// The number of the call that a client's cancellation names; of several with the same id, the latest. `None` if
    /// this session has no such call in flight, if the gateway made the call itself (such as `initialize`), or if it is
    /// a subscribe on a shared child, whose answer others may wait for. Cancels nothing: see [`Self::cancel`].
    pub(in crate::worker) fn cancelled_by_client(&self, peer: LeaseId, envelope: &Envelope<'_>) -> Option<u64> {
        let named = Cancels::read(envelope).request()?;
        let is_it = |call: &Call| call.peer == peer && call.original.as_str() == named && !call.is_own;
        let latest = self.calls.values().filter(|call| is_it(call)).max_by_key(|call| call.number.order)?;
        let number = latest.number.wire;
        (!self.sharing.may_be_awaited_by_others(number)).then_some(number)
    }

    /// Whether a call of a session is in flight.
    pub(in crate::worker) fn has_call(&self, peer: LeaseId, number: u64) -> bool {
        self.calls.get(&number).is_some_and(|call| call.peer == peer)
    }

    /// Removes a call that its client has cancelled.
    pub(in crate::worker) fn cancel(&mut self, number: u64, now: Instant) -> Option<Box<Call>> {
        let call = self.take_call(number)?;
        self.sharing.unsettle(number);
        self.abandon(&call, now);
        Some(call)
    }

    /// What becomes of a notification of the client, other than a cancellation.
    pub(in crate::worker) fn notified_by_client(
        &self,
        peer: LeaseId,
        envelope: &Envelope<'_>,
    ) -> Notified<Option<RawId>> {
        if ambiguity(envelope).is_some() {
            return Notified::Drop(DropReason::Ambiguous);
        }
        match envelope.method.as_deref() {
            Some(method::PROGRESS) => match self.server_requests.progress_token(peer, envelope) {
                Some(token) => Notified::Forward(Some(token)),
                None => Notified::Drop(DropReason::LateProgress),
            },
            // A shared child has been offered neither roots nor tasks of the client's.
            Some(method::ROOTS_LIST_CHANGED | method::TASKS_STATUS) if self.sharing.is_shared => Notified::Ignore,
            _ if self.sharing.names_a_foreign_task(peer, envelope) => Notified::Drop(DropReason::Unattributable),
            _ => Notified::Forward(None),
        }
    }

    /// Decides what becomes of a message of the child. `reported` was read from the message; `timeout` is the time that
    /// a client has to answer a server request.
    pub(in crate::worker) fn receive(
        &mut self,
        envelope: &Envelope<'_>,
        reported: Reported,
        now: Instant,
        timeout: Duration,
    ) -> Incoming<Edit> {
        match envelope.kind {
            Kind::Response => self.answer(envelope, reported, now),
            Kind::Request => self.request(envelope, now, timeout).unwrap_or_else(Incoming::Reply),
            Kind::Notification => self.notification(envelope, now),
        }
    }

    fn answer(&mut self, envelope: &Envelope<'_>, reported: Reported, now: Instant) -> Incoming<Edit> {
        // Exactly as it was written to the child: a number in another form is another id.
        let Some(number) = envelope.id.and_then(|id| id.parse().ok()) else {
            return Incoming::Drop(DropReason::UnknownId);
        };
        let Some(call) = self.take_call(number) else {
            return self.late_answer(number, envelope, reported, now);
        };
        self.answered += u64::from(!call.is_own);
        self.touch(call.peer, now);
        let (waiting, unwanted) = self.sharing.settle(call.number, !envelope.is_error);
        waiting.iter().for_each(|waiting| self.end(waiting.peer));
        let frame = unwanted.map(|uri| self.unsubscription(uri));
        let is_shared = self.sharing.is_shared;
        reported.elicitations.iter().for_each(|id| self.sharing.own_elicitation(id, call.peer));
        if is_shared || call.may_make_task || call.progress_token.is_some() || call.task.is_some() {
            let tables = (&mut self.sharing, &mut self.timer);
            self.live_tasks.note_answer(&call, envelope, reported, tables, now);
        }
        let edit = match is_shared && call.method == method::TASKS_LIST && !envelope.is_error {
            true => Edit::OwnTasks(call.peer, call.original.clone()),
            false => Edit::Id(call.original.clone()),
        };
        Incoming::Answer(Answer { call, waiting, frame }, edit)
    }

    /// An answer to a request of the gateway's own, or to a call that is over.
    fn late_answer(
        &mut self,
        number: u64,
        envelope: &Envelope<'_>,
        reported: Reported,
        now: Instant,
    ) -> Incoming<Edit> {
        if self.own_requests.remove(&number).is_some() {
            self.sharing.level_over(number, !envelope.is_error);
            if let Some(state) = task_state(&envelope.members) {
                let tables = (&mut self.sharing, &mut self.timer);
                self.live_tasks.heard_of(&state.id, state.status, tables, now);
            }
            return Incoming::Ignore;
        }
        // A task goes on though its call was answered, even if that is answered twice.
        if self.live_tasks.working(number).is_some() {
            return Incoming::Drop(DropReason::UnknownId);
        }
        match reported.created.filter(TaskState::is_working) {
            Some(task) if self.live_tasks.abandon(number, &task.id, &mut self.sharing, now) => {
                Incoming::Reply(self.cancellation_of_task(&task.id))
            }
            Some(_) => Incoming::Drop(DropReason::UnknownId),
            None => {
                self.sharing.abandoned.remove(number);
                Incoming::Drop(DropReason::UnknownId)
            }
        }
    }

    /// Puts a request of the child to the session that has caused the request. `Err` is the gateway's own answer.
    fn request(&mut self, envelope: &Envelope<'_>, now: Instant, timeout: Duration) -> Result<Incoming<Edit>, Bytes> {
        let (Some(old), Some(original)) = (envelope.id, envelope.raw_id()) else {
            return Ok(Incoming::Drop(DropReason::NotJson));
        };
        if envelope.method.as_deref() == Some(method::PING) {
            let pong = format!(r#"{{"jsonrpc":"2.0","id":{old},"result":{{}}}}"#);
            return Err(own_frame(pong.as_bytes()));
        }
        let refuse = |text: &str| Err(refusal(&original, text));
        let offered = |asked: &str| asked != method::ROOTS_LIST && !asked.starts_with(method::TASKS_PREFIX);
        if self.sharing.is_shared && !envelope.method.as_deref().is_some_and(offered) {
            let text = "the gateway has not offered this for its clients, who share the server";
            return Err(own_frame(&error_response(Some(&original), Code::MethodNotFound, text)));
        }
        let Some(peer) = self.sharing.asked_by(envelope, (&self.leases, &self.calls), now) else {
            return refuse("the gateway cannot tell which client this request is for");
        };
        if let Some(fault) = envelope.members.fault {
            return refuse(&format!("params, or params._meta, {fault}"));
        }
        let token = envelope.members.meta.progress_token;
        if old.len().max(token.map_or(0, str::len)) > LONGEST_LABEL {
            return refuse(&format!("its id or progress token is longer than {LONGEST_LABEL} bytes"));
        }
        let left = self.server_requests.left();
        if left == 0 || !self.may_be_asked(peer, left) {
            return refuse("the client has too many requests to answer");
        }
        if let Some(id) = label(envelope.members.elicitation_id) {
            self.sharing.own_elicitation(&id, peer);
        }
        let (progress_token, deadline) = (token.and_then(RawId::new), now + timeout);
        self.timer.no_later_than(deadline);
        let number = self.server_requests.insert(OpenRequest { peer, original, progress_token, deadline, timeout });
        Ok(Incoming::Unsolicited(Unsolicited::Request, Edit::Request(number), Some(number), vec![peer]))
    }

    /// Whether a session may have one more request to answer, where `left` are left.
    fn may_be_asked(&self, peer: LeaseId, left: usize) -> bool {
        let Some(state) = self.leases.get(&peer) else { return false };
        let is_of = |other: LeaseId, party: &_| self.leases.get(&other).is_some_and(|state| state.is_of(party));
        let of_party = |party: &_| self.server_requests.count(|other| is_of(other, party));
        self.sharing.admits(state.holdings.counted(of_party, self.server_requests.of(peer)), left)
    }

    fn notification(&mut self, envelope: &Envelope<'_>, now: Instant) -> Incoming<Edit> {
        if self.sharing.is_ambiguous(envelope) {
            return Incoming::Drop(DropReason::Unattributable);
        }
        match envelope.method.as_deref().unwrap_or_default() {
            method::PROGRESS => self.progress(envelope, now),
            method::CANCELLED => self.cancelled_by_child(envelope),
            name => {
                let concerned = self.sharing.concerned(envelope, (&self.leases, &self.calls), now);
                if let Some(state) = task_state(&envelope.members).filter(|_| name == method::TASKS_STATUS) {
                    let tables = (&mut self.sharing, &mut self.timer);
                    self.live_tasks.heard_of(&state.id, state.status, tables, now);
                }
                match concerned {
                    None => Incoming::Ignore,
                    Some((_, peers)) if peers.is_empty() => Incoming::Drop(DropReason::Unattributable),
                    Some((kind, peers)) => Incoming::Unsolicited(kind, Edit::Nothing, None, peers),
                }
            }
        }
    }

    fn cancelled_by_child(&mut self, envelope: &Envelope<'_>) -> Incoming<Edit> {
        let Some((number, peer)) = self.server_requests.cancelled(envelope) else {
            return Incoming::Drop(DropReason::UnknownId);
        };
        let in_flight = self.in_flight(peer);
        Incoming::Withdrawn(Withdrawn { peer, number, in_flight }, Edit::RequestId(number))
    }

    /// Passes progress on, and gives the call its time-out again.
    fn progress(&mut self, envelope: &Envelope<'_>, now: Instant) -> Incoming<Edit> {
        let token = envelope.members.progress_token.filter(|_| !envelope.members.has_twin());
        let Some(number) = token.and_then(|token| token.parse().ok()) else {
            return Incoming::Drop(DropReason::LateProgress);
        };
        let Some(call) = self.calls.get_mut(&number) else {
            return self.progress_of_task(number, now);
        };
        call.deadline = now + call.timeout();
        let Some(token) = &call.progress_token else { return Incoming::Drop(DropReason::LateProgress) };
        Incoming::Inform(Arc::clone(&call.exchange), Edit::ProgressToken(token.clone()))
    }

    /// Progress of a call that is over: the call may have made a task, whose progress goes on.
    fn progress_of_task(&mut self, number: u64, now: Instant) -> Incoming<Edit> {
        self.sharing.abandoned.renew(number, now);
        self.live_tasks.keep(number, &mut self.timer, now);
        let Some(task) = self.live_tasks.working(number) else { return Incoming::Drop(DropReason::LateProgress) };
        // Calls that wait for the result of the task get their time-out again too.
        let waits = |call: &&mut Box<Call>| call.task.as_ref() == Some(&task.id);
        self.calls.values_mut().filter(waits).for_each(|call| call.deadline = now + call.timeout());
        let Some(token) = &task.token else { return Incoming::Drop(DropReason::LateProgress) };
        let edit = Edit::ProgressToken(token.clone());
        Incoming::Unsolicited(Unsolicited::Notification, edit, None, vec![task.peer])
    }
}
