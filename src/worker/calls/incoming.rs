//! Decides for each message of the child which exchange or session gets it, and under which id.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::asked::Asked;
use super::call::Call;
use super::cancel::Withdrawn;
use super::edit::Edit;
use super::lease_id::LeaseId;
use super::numbers::for_asked;
use super::reported::Reported;
use super::subscriptions::Waiting;
use super::table::{Multiplexer, refusal};
use super::unsolicited::Unsolicited;
use crate::jsonrpc::{Code, Envelope, Kind, RawId, error_response, one_line, text};
use crate::mcp::{LONGEST_LABEL, Level, TaskState, cancelled_by_server, label, method, related_task, task_state};
use crate::stream::Exchange;
use crate::telemetry::DropReason;

/// What to do with a message of the child. `M` is first what is to be replaced in it, then the message that is delivered.
#[derive(Debug)]
pub(in crate::worker) enum Incoming<M = Bytes> {
    /// Deliver the answer to a call, which is now over.
    Answer(Answer, M),
    /// Deliver to the exchange of a call that goes on.
    Inform(Arc<Exchange>, M),
    /// Ask these sessions where it goes. A request, for one session only, carries the number that it was given.
    Unsolicited(Unsolicited, M, Option<u64>, Vec<LeaseId>),
    /// The child takes a request back.
    Withdrawn(Withdrawn, M),
    /// Send this back to the child.
    Reply(Bytes),
    /// Nobody gets it.
    Drop(DropReason),
    /// Nobody needs it.
    Ignore,
}

impl Incoming<Edit> {
    /// The same with the message that the client gets. `owns` says whether a task is a session's.
    pub(in crate::worker) fn written(
        self,
        message: &Bytes,
        envelope: &Envelope<'_>,
        owns: impl Fn(LeaseId, &str) -> bool,
    ) -> Incoming<Bytes> {
        let write = |edit: Edit| edit.apply(message, envelope, owns);
        match self {
            Self::Answer(answer, edit) => Incoming::Answer(answer, write(edit)),
            Self::Inform(exchange, edit) => Incoming::Inform(exchange, write(edit)),
            Self::Unsolicited(kind, edit, number, peers) => Incoming::Unsolicited(kind, write(edit), number, peers),
            Self::Withdrawn(withdrawn, edit) => Incoming::Withdrawn(withdrawn, write(edit)),
            Self::Reply(frame) => Incoming::Reply(frame),
            Self::Drop(reason) => Incoming::Drop(reason),
            Self::Ignore => Incoming::Ignore,
        }
    }
}

/// An answer of the child.
#[derive(Debug)]
pub(in crate::worker) struct Answer {
    /// The call.
    pub(in crate::worker) call: Box<Call>,
    /// Who gets the same, under their own ids.
    pub(in crate::worker) waiting: Vec<Waiting>,
    /// What the child has to hear because of it, before anything else.
    pub(in crate::worker) frame: Option<Bytes>,
}

impl Multiplexer {
    /// Decides what becomes of a message of the child. `reported` was read of it; `timeout` is what the client has to answer a
    /// request in it.
    pub(in crate::worker) fn receive(
        &mut self,
        envelope: &Envelope<'_>,
        reported: Reported,
        now: Instant,
        timeout: Duration,
    ) -> Incoming<Edit> {
        match envelope.kind {
            Kind::Response => self.answer(envelope, reported, now),
            Kind::Request => self.request(envelope, now, timeout),
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
        let (waiting, frame) = match &call.wish {
            Some(wish) => self.settle(call.peer, wish, call.number, !envelope.is_error),
            None => (Vec::new(), None),
        };
        if self.is_shared {
            reported.elicitations.iter().for_each(|id| self.elicitations.insert(id, call.peer));
        }
        if self.is_shared || call.may_make_task || call.progress_token.is_some() || call.task.is_some() {
            self.note_tasks(&call, envelope, reported, now);
        }
        let edit = match self.is_shared && call.method == method::TASKS_LIST && !envelope.is_error {
            true => Edit::OwnTasks(call.peer, call.original.clone()),
            false => Edit::Id(call.original.clone()),
        };
        Incoming::Answer(Answer { call, waiting, frame }, edit)
    }

    /// An answer that nobody waits for.
    fn late_answer(
        &mut self,
        number: u64,
        envelope: &Envelope<'_>,
        reported: Reported,
        now: Instant,
    ) -> Incoming<Edit> {
        if self.was_unheeded(number) {
            self.level_over(number, !envelope.is_error);
            if let Some(state) = task_state(&envelope.members) {
                self.task_heard_of(&state.id, state.status, now);
            }
            return Incoming::Ignore;
        }
        // A task goes on though its call was answered, even if that is answered twice.
        if self.live_tasks.working(number).is_some() {
            return Incoming::Drop(DropReason::UnknownId);
        }
        let Some(task) = reported.created.filter(TaskState::is_working) else {
            self.abandoned.remove(number);
            return Incoming::Drop(DropReason::UnknownId);
        };
        self.abandon_task(number, task.id, now).map_or(Incoming::Drop(DropReason::UnknownId), Incoming::Reply)
    }

    fn request(&mut self, envelope: &Envelope<'_>, now: Instant, timeout: Duration) -> Incoming<Edit> {
        let (Some(old), Some(original)) = (envelope.id, envelope.raw_id()) else {
            return Incoming::Drop(DropReason::NotJson);
        };
        if envelope.method.as_deref() == Some(method::PING) {
            let pong = format!(r#"{{"jsonrpc":"2.0","id":{old},"result":{{}}}}"#);
            return Incoming::Reply(one_line(BytesMut::from(pong.as_bytes())));
        }
        let offered = |asked: &str| asked != method::ROOTS_LIST && !asked.starts_with(method::TASKS_PREFIX);
        if self.is_shared && !envelope.method.as_deref().is_some_and(offered) {
            let text = "the gateway has not offered this for its clients, who share the server";
            return Incoming::Reply(one_line(BytesMut::from(
                error_response(Some(&original), Code::MethodNotFound, text).as_ref(),
            )));
        }
        let Some(peer) = self.asker(envelope, now) else {
            return Incoming::Reply(refusal(&original, "the gateway cannot tell which client this request is for"));
        };
        if let Some(fault) = envelope.members.fault {
            return Incoming::Reply(refusal(&original, &format!("params, or params._meta, {fault}")));
        }
        let token = envelope.members.meta.progress_token;
        if old.len().max(token.map_or(0, str::len)) > LONGEST_LABEL {
            return Incoming::Reply(refusal(
                &original,
                &format!("its id or progress token is longer than {LONGEST_LABEL} bytes"),
            ));
        }
        if !self.may_be_asked(peer) {
            return Incoming::Reply(refusal(&original, "the client has too many requests to answer"));
        }
        if let Some(id) = label(envelope.members.elicitation_id) {
            self.elicitations.insert(&id, peer);
        }
        let is_used =
            |number| self.asked.contains_key(&number) || self.answered_by_task.iter().any(|it| it.0 == number);
        let number = for_asked(is_used);
        let progress_token = token.and_then(RawId::new);
        let deadline = now + timeout;
        self.timer.no_later_than(deadline);
        self.asked.insert(number, Asked { peer, original, progress_token, deadline, timeout });
        Incoming::Unsolicited(Unsolicited::Request, Edit::Request(number), Some(number), vec![peer])
    }

    /// The one session that can have caused a request of the server: the owner of the task that it names, or the only one
    /// that the child may be working for.
    fn asker(&self, envelope: &Envelope<'_>, now: Instant) -> Option<LeaseId> {
        if let Some(task) = related_task(envelope) {
            let owner = self.tasks.get(&task);
            if self.is_shared || owner.is_some() {
                return owner;
            }
        }
        let caller = self.calls.values().next().map(|call| call.peer);
        self.only_peer(caller.or_else(|| self.abandoned.peers(now)?.next()), now)
    }

    /// The only session on the child, or else this one, if the child works for nobody else. What it does for those who
    /// have left counts too: then it is nobody's.
    fn only_peer(&self, otherwise: Option<LeaseId>, now: Instant) -> Option<LeaseId> {
        let alone = self.peers.keys().next().filter(|_| self.peers.len() == 1).copied();
        if !self.is_shared {
            return alone;
        }
        let peer = alone.or(otherwise).filter(|peer| self.peers.contains_key(peer))?;
        let is_it = |other: LeaseId| other == peer;
        (self.calls.values().map(|call| call.peer).all(is_it) && self.abandoned.peers(now)?.all(is_it)).then_some(peer)
    }

    fn notification(&mut self, envelope: &Envelope<'_>, now: Instant) -> Incoming<Edit> {
        let params = &envelope.members;
        // A shared child's word that can be read in two ways is nobody's.
        let is_clear = !self.is_shared || !params.has_twin();
        let only = || match related_task(envelope).filter(|_| self.is_shared) {
            Some(task) => self.tasks.get(&task),
            None => self.only_peer(None, now),
        };
        let all = || self.peers.keys().copied().collect::<Vec<_>>();
        let to = |kind, peers: Vec<LeaseId>| match peers.is_empty() {
            true => Incoming::Drop(DropReason::Unattributable),
            false => Incoming::Unsolicited(kind, Edit::Nothing, None, peers),
        };
        // Who has another child hears from that one what is new.
        let announce = |peers: Vec<LeaseId>| match peers.iter().all(|peer| self.is_leaving(*peer)) && !peers.is_empty()
        {
            true => Incoming::Ignore,
            false => {
                let staying = peers.into_iter().filter(|peer| !self.is_leaving(*peer)).collect();
                to(Unsolicited::Announcement, staying)
            }
        };
        match envelope.method.as_deref().unwrap_or_default() {
            _ if !is_clear => Incoming::Drop(DropReason::Unattributable),
            method::PROGRESS => self.progress(envelope, now),
            method::CANCELLED => self.cancelled_by_child(envelope),
            method::TOOLS_LIST_CHANGED | method::PROMPTS_LIST_CHANGED | method::RESOURCES_LIST_CHANGED => {
                announce(all())
            }
            method::RESOURCES_UPDATED if self.is_shared => {
                let peers = text(params.uri.unwrap_or_default())
                    .map(|uri| self.subscriptions.subscribers(&uri))
                    .unwrap_or_default();
                announce(peers.into_iter().collect())
            }
            method::RESOURCES_UPDATED => announce(all()),
            method::ELICITATION_COMPLETE if self.is_shared => {
                let owner = label(params.elicitation_id).and_then(|id| self.elicitations.get(&id));
                to(Unsolicited::Announcement, owner.into_iter().collect())
            }
            method::TASKS_STATUS => {
                let state = task_state(params);
                let owner = match self.is_shared {
                    true => state.as_ref().and_then(|state| self.tasks.get(&state.id)),
                    false => only(),
                };
                let status = to(Unsolicited::Notification, owner.into_iter().collect());
                if let Some(state) = state {
                    self.task_heard_of(&state.id, state.status, now);
                }
                status
            }
            method::MESSAGE if self.is_shared => {
                let level = label(params.level).as_deref().and_then(Level::parse);
                let wanted = |peer: &LeaseId| {
                    let asked_for = self.peers.get(peer).and_then(|state| state.level);
                    asked_for.is_none() || level.is_none() || level >= asked_for
                };
                // A log line may hold anybody's data: it goes out only where there is nobody else.
                match only() {
                    Some(only) if !wanted(&only) => Incoming::Ignore,
                    only => to(Unsolicited::Notification, only.into_iter().collect()),
                }
            }
            _ => to(Unsolicited::Notification, only().into_iter().collect()),
        }
    }

    fn cancelled_by_child(&mut self, envelope: &Envelope<'_>) -> Incoming<Edit> {
        let named = cancelled_by_server(envelope);
        let is_it = |asked: &Asked| named == Some(asked.original.as_str());
        let number = self.asked.iter().find(|(_, asked)| is_it(asked)).map(|(number, _)| *number);
        let Some((number, asked)) = number.and_then(|number| self.asked.remove_entry(&number)) else {
            return Incoming::Drop(DropReason::UnknownId);
        };
        let (peer, in_flight) = (asked.peer, self.in_flight(asked.peer));
        Incoming::Withdrawn(Withdrawn { peer, number, in_flight }, Edit::RequestId(number))
    }

    fn progress(&mut self, envelope: &Envelope<'_>, now: Instant) -> Incoming<Edit> {
        let token = envelope.members.progress_token.filter(|_| !envelope.members.has_twin());
        let Some(number) = token.and_then(|token| token.parse().ok()) else {
            return Incoming::Drop(DropReason::LateProgress);
        };
        let Some(call) = self.calls.get_mut(&number) else {
            return self.progress_of_task(number, now);
        };
        call.deadline = now + call.timeout;
        let Some(token) = &call.progress_token else { return Incoming::Drop(DropReason::LateProgress) };
        Incoming::Inform(Arc::clone(&call.exchange), Edit::ProgressToken(token.clone()))
    }

    /// Progress for a call that is over: it may have made a task, whose progress goes on.
    fn progress_of_task(&mut self, number: u64, now: Instant) -> Incoming<Edit> {
        self.abandoned.renew(number, now);
        self.keep_task(number, now);
        let Some(task) = self.live_tasks.working(number) else { return Incoming::Drop(DropReason::LateProgress) };
        // Who waits for its result knows that it goes on.
        let waits = |call: &&mut Box<Call>| call.task.as_ref() == Some(&task.id);
        self.calls.values_mut().filter(waits).for_each(|call| call.deadline = now + call.timeout);
        let Some(token) = &task.token else { return Incoming::Drop(DropReason::LateProgress) };
        let edit = Edit::ProgressToken(token.clone());
        Incoming::Unsolicited(Unsolicited::Notification, edit, None, vec![task.peer])
    }
}
