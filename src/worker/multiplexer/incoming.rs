//! What becomes of a message of the child: whose it is, under which id, or that it is nobody's.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::params::{Params, asked_elicitations, created_task, mentions, related_task, text};
use super::sharing::{Level, Waiting};
use super::{Asked, Call, Multiplexer, PeerId, refusal};
use crate::jsonrpc::{Envelope, Kind, RawId, Splice, one_line, parse, splice};
use crate::stream::Exchange;
use crate::telemetry::DropReason;
use crate::worker::peer::Unsolicited;

/// What to do with a message of the child.
#[derive(Debug)]
pub(in crate::worker) enum Incoming {
    /// Deliver the answer to a call, which is now over, and the same to whoever waited with it.
    Answer(Box<Call>, Bytes, Vec<Waiting>),
    /// Deliver to the exchange of a call that goes on.
    Inform(Arc<Exchange>, Bytes),
    /// Ask these sessions where it goes. A request, for one session only, carries the number that it was given.
    Unsolicited(Unsolicited, Bytes, Option<u64>, Vec<PeerId>),
    /// Send this back to the child.
    Reply(Bytes),
    /// Nobody gets it.
    Drop(DropReason),
    /// Nobody needs it.
    Ignore,
}

impl Multiplexer {
    /// Decides what becomes of a message of the child. `timeout` is what the client has to answer a request in it.
    pub(in crate::worker) fn receive(
        &mut self,
        message: Bytes,
        envelope: &Envelope<'_>,
        now: Instant,
        timeout: Duration,
    ) -> Incoming {
        match envelope.kind {
            Kind::Response => self.answer(&message, envelope),
            Kind::Request => self.request(message, envelope, now, timeout),
            Kind::Notification => self.notification(message, envelope, now),
        }
    }

    fn answer(&mut self, message: &Bytes, envelope: &Envelope<'_>) -> Incoming {
        let (Some(old), Some(number)) = (envelope.id, envelope.id.and_then(RawId::new).and_then(|id| id.as_u64()))
        else {
            return Incoming::Drop(DropReason::UnknownId);
        };
        let Some(mut call) = self.calls.remove(&number) else {
            let expected = self.unheeded.remove(&number);
            return if expected { Incoming::Ignore } else { Incoming::Drop(DropReason::UnknownId) };
        };
        self.answered += u64::from(!call.is_initialize);
        if let Some(result) = envelope.result.filter(|_| call.is_first_page) {
            self.lists.note(call.method, result);
        }
        let mut waiting = Vec::new();
        if self.is_shared {
            if let Some(uri) = call.subscribing.take() {
                let still_here = self.peers.contains_key(&call.peer).then_some(call.peer);
                waiting = self.subscriptions.subscribed(&uri, still_here, !envelope.is_error);
            }
            if envelope.is_error && call.method == "logging/setLevel" {
                self.level = None;
            }
            self.note_owner(&call, message, envelope);
        }
        let mut message = splice(message, &mut [Splice { old, new: call.original.as_str() }]).freeze();
        if self.is_shared && call.method == "tasks/list" {
            message = self.only_own_tasks(&message, call.peer);
        }
        Incoming::Answer(Box::new(call), message, waiting)
    }

    /// Remembers whose the tasks and elicitations are that an answer names.
    fn note_owner(&mut self, call: &Call, message: &[u8], envelope: &Envelope<'_>) {
        if let Some(task) = envelope.result.and_then(created_task) {
            self.tasks.insert(task, call.peer);
        }
        if envelope.is_error {
            for id in asked_elicitations(message) {
                self.elicitations.insert(id, call.peer);
            }
        }
    }

    /// The answer to `tasks/list`, without the tasks of others: the one answer that is decoded and encoded again.
    fn only_own_tasks(&self, message: &Bytes, peer: PeerId) -> Bytes {
        let id = parse(message).ok().and_then(|envelope| envelope.raw_id());
        let Some((id, mut value)) = id.zip(serde_json::from_slice::<serde_json::Value>(message).ok()) else {
            return message.clone();
        };
        let Some(tasks) = value.pointer_mut("/result/tasks").and_then(|tasks| tasks.as_array_mut()) else {
            return message.clone();
        };
        let owner = |task: &serde_json::Value| self.tasks.get(task.get("taskId")?.as_str()?);
        tasks.retain(|task| owner(task) == Some(peer));
        let result = value.get("result").cloned().unwrap_or_default();
        format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, id.as_str()).into()
    }

    fn request(&mut self, message: Bytes, envelope: &Envelope<'_>, now: Instant, timeout: Duration) -> Incoming {
        let (Some(old), Some(original)) = (envelope.id, envelope.raw_id()) else {
            return Incoming::Drop(DropReason::NotJson);
        };
        if envelope.method.as_deref() == Some("ping") {
            let pong = format!(r#"{{"jsonrpc":"2.0","id":{old},"result":{{}}}}"#);
            return Incoming::Reply(one_line(BytesMut::from(pong.as_bytes())));
        }
        let Some(peer) = self.asker(envelope) else {
            return Incoming::Reply(refusal(&original, "the gateway cannot tell which client this request is for"));
        };
        if self.asked.len() >= self.max_in_flight {
            return Incoming::Reply(refusal(&original, "the client has too many requests to answer"));
        }
        if let Some(id) = text(Params::read(envelope.params).elicitation_id) {
            self.elicitations.insert(id, peer);
        }
        let number = self.number();
        self.asked.insert(number, Asked { peer, original, deadline: now + timeout, timeout });
        let message = splice(&message, &mut [Splice { old, new: &number.to_string() }]).freeze();
        Incoming::Unsolicited(Unsolicited::Request, message, Some(number), vec![peer])
    }

    /// The one session that can have caused a request of the server: the owner of the task that it names, the only one
    /// on the child, or the only one with calls in flight.
    fn asker(&self, envelope: &Envelope<'_>) -> Option<PeerId> {
        if let Some(task) = related_task(envelope.params) {
            let owner = self.tasks.get(&task);
            if self.is_shared || owner.is_some() {
                return owner;
            }
        }
        if let Some(only) = self.only_peer() {
            return Some(only);
        }
        let mut callers = self.calls.values().map(|call| call.peer);
        let first = callers.next()?;
        callers.all(|peer| peer == first).then_some(first)
    }

    fn only_peer(&self) -> Option<PeerId> {
        self.peers.keys().next().filter(|_| self.peers.len() == 1).copied()
    }

    fn notification(&mut self, message: Bytes, envelope: &Envelope<'_>, now: Instant) -> Incoming {
        let params = || Params::read(envelope.params);
        let all = || self.peers.keys().copied().collect::<Vec<_>>();
        let to = |kind, peers: Vec<PeerId>| match peers.is_empty() {
            true => Incoming::Drop(DropReason::Unattributable),
            false => Incoming::Unsolicited(kind, message.clone(), None, peers),
        };
        match envelope.method.as_deref().unwrap_or_default() {
            "notifications/progress" => self.progress(&message, envelope, now),
            "notifications/cancelled" => self.cancelled_by_child(&message, envelope),
            "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed" => to(Unsolicited::Announcement, all()),
            "notifications/resources/updated" if self.is_shared => {
                let peers = text(params().uri).map(|uri| self.subscriptions.subscribers(&uri)).unwrap_or_default();
                to(Unsolicited::Announcement, peers.into_iter().collect())
            }
            "notifications/resources/updated" => to(Unsolicited::Announcement, all()),
            "notifications/elicitation/complete" if self.is_shared => {
                let owner = text(params().elicitation_id).and_then(|id| self.elicitations.get(&id));
                to(Unsolicited::Announcement, owner.into_iter().collect())
            }
            "notifications/tasks/status" if self.is_shared => {
                let owner = text(params().task_id).and_then(|task| self.tasks.get(&task));
                to(Unsolicited::Announcement, owner.into_iter().collect())
            }
            "notifications/message" if self.is_shared => {
                let level = text(params().level).as_deref().and_then(Level::parse);
                let wanted = |peer: &PeerId| {
                    let asked_for = self.peers.get(peer).and_then(|peering| peering.level);
                    asked_for.is_none() || level.is_none() || level >= asked_for
                };
                // A log line may hold anybody's data: it goes out only where there is nobody else.
                match self.only_peer() {
                    Some(only) if !wanted(&only) => Incoming::Ignore,
                    only => to(Unsolicited::Notification, only.into_iter().collect()),
                }
            }
            _ => to(Unsolicited::Notification, self.only_peer().into_iter().collect()),
        }
    }

    fn cancelled_by_child(&mut self, message: &Bytes, envelope: &Envelope<'_>) -> Incoming {
        let old = Params::read(envelope.params).request_id.map(RawValue::get);
        let original = old.and_then(RawId::new);
        let number = self.asked.iter().find(|(_, a)| Some(&a.original) == original.as_ref()).map(|(n, _)| *n);
        let (Some(old), Some(number)) = (old, number) else { return Incoming::Drop(DropReason::UnknownId) };
        let Some(asked) = self.asked.remove(&number) else { return Incoming::Drop(DropReason::UnknownId) };
        let message = splice(message, &mut [Splice { old, new: &number.to_string() }]).freeze();
        Incoming::Unsolicited(Unsolicited::Notification, message, None, vec![asked.peer])
    }

    fn progress(&mut self, message: &Bytes, envelope: &Envelope<'_>, now: Instant) -> Incoming {
        let old = envelope.params.filter(|params| mentions(params, "progressToken"));
        let old = Params::read(old).progress_token.map(RawValue::get);
        let number = old.and_then(RawId::new).and_then(|token| token.as_u64());
        let call = number.and_then(|number| self.calls.get_mut(&number));
        let (Some(old), Some(call)) = (old, call) else { return Incoming::Drop(DropReason::LateProgress) };
        call.deadline = now + call.timeout;
        let Some(token) = &call.progress_token else { return Incoming::Drop(DropReason::LateProgress) };
        let message = splice(message, &mut [Splice { old, new: token.as_str() }]).freeze();
        Incoming::Inform(Arc::clone(&call.exchange), message)
    }
}
