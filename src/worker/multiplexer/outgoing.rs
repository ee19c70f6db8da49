//! What becomes of a client's request: a frame for the child under a number of this worker's own, or an answer from here
//! where it would disturb the others on the child.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::params::{Params, progress_token, text};
use super::sharing::{Counted, Level, Waiting};
use super::{Ask, Call, Multiplexer, PeerId};
use crate::jsonrpc::{Code, RawId, Splice, empty_response, error_response, one_line, splice};
use crate::telemetry::method_label;
use crate::worker::error::Refused;
use crate::worker::resend::Kept;

/// What becomes of a request.
#[derive(Debug)]
pub(in crate::worker) enum Outgoing {
    /// The frame for the child; the answer will come.
    Forward(Bytes),
    /// Answered here.
    Local(Bytes),
    /// The answer to another request will be its answer too.
    Wait,
}

/// What a request means for the others on the child.
enum Shared {
    /// The child has to hear it; with the URI that it is the first to subscribe to.
    Forward(Option<String>),
    Local(Bytes),
    Wait,
}

impl Multiplexer {
    /// Registers a call and makes the frame for the child, or answers it here.
    pub(in crate::worker) fn ask(&mut self, peer: PeerId, ask: &Ask<'_>, now: Instant) -> Result<Outgoing, Refused> {
        let (Some(id), Some(original)) = (ask.envelope.id, ask.envelope.raw_id()) else { return Err(Refused::Ended) };
        // A session that has left may still be on its way out.
        if self.is_closed || !self.peers.contains_key(&peer) {
            return Err(Refused::Ended);
        }
        let method = ask.envelope.method.as_deref().unwrap_or_default();
        let mut subscribing = None;
        if self.is_shared {
            match self.share(peer, ask, method, &original) {
                Shared::Forward(uri) => subscribing = uri,
                Shared::Local(answer) => return Ok(Outgoing::Local(answer)),
                Shared::Wait => return Ok(Outgoing::Wait),
            }
        }
        if self.calls.len() >= self.max_in_flight {
            self.untold(method, subscribing);
            return Err(Refused::Busy);
        }
        let number = self.number();
        let digits = number.to_string();
        let token = progress_token(ask.envelope.params);
        let mut replacements = vec![Splice { old: id, new: &digits }];
        replacements.extend(token.map(|old| Splice { old, new: &digits }));
        if method == "logging/setLevel"
            && self.is_shared
            && let (Some(old), Some(loudest)) = (Params::read(ask.envelope.params).level.map(RawValue::get), self.level)
        {
            let new = format!("\"{}\"", loudest.as_str());
            replacements.push(Splice { old, new: &new });
            let frame = one_line(splice(ask.message, &mut replacements));
            self.register(number, peer, ask, original, now, (token, subscribing));
            return Ok(Outgoing::Forward(frame));
        }
        let frame = one_line(splice(ask.message, &mut replacements));
        self.register(number, peer, ask, original, now, (token, subscribing));
        Ok(Outgoing::Forward(frame))
    }

    fn register(
        &mut self,
        number: u64,
        peer: PeerId,
        ask: &Ask<'_>,
        original: RawId,
        now: Instant,
        (token, subscribing): (Option<&str>, Option<String>),
    ) {
        let method = ask.envelope.method.as_deref().unwrap_or_default();
        let call = Call {
            peer,
            original,
            exchange: Arc::clone(ask.exchange),
            method: method_label(method),
            started: now,
            is_initialize: method == "initialize",
            subscribing,
            progress_token: token.and_then(RawId::new),
            is_first_page: ask.envelope.params.is_none_or(|params| !params.contains("cursor")),
            kept: None,
            deadline: now + ask.timeout,
            timeout: ask.timeout,
        };
        self.total += 1;
        self.calls.insert(number, call);
    }

    /// Keeps what is needed to send the call again that was registered last.
    pub(in crate::worker) fn keep_for_last(&mut self, kept: Kept) {
        if let Some(mut last) = self.calls.last_entry() {
            last.get_mut().kept = Some(kept);
        }
    }

    /// A `ping` of the gateway's own: its number, and the frame. It is no call: it neither counts nor keeps anything busy.
    pub(in crate::worker) fn ping(&mut self) -> (u64, Bytes) {
        let frame = self.own_request("ping", &serde_json::json!({}));
        (self.next - 1, frame)
    }

    /// What a request means for the others on the child.
    fn share(&mut self, peer: PeerId, ask: &Ask<'_>, method: &str, id: &RawId) -> Shared {
        let params = || Params::read(ask.envelope.params);
        let waiting = || Waiting { peer, id: id.clone(), exchange: Arc::clone(ask.exchange) };
        let done = || Shared::Local(empty_response(id));
        match method {
            "ping" => done(),
            "resources/subscribe" => match text(params().uri) {
                Some(uri) => match self.subscriptions.subscribe(&uri, waiting, peer) {
                    Counted::Forward => Shared::Forward(Some(uri)),
                    Counted::Local => done(),
                    Counted::Wait => Shared::Wait,
                },
                None => Shared::Forward(None),
            },
            "resources/unsubscribe" => match text(params().uri) {
                Some(uri) => match self.subscriptions.unsubscribe(&uri, peer) {
                    Counted::Forward => Shared::Forward(None),
                    Counted::Local | Counted::Wait => done(),
                },
                None => Shared::Forward(None),
            },
            "logging/setLevel" => match text(params().level).as_deref().and_then(Level::parse) {
                Some(level) => {
                    self.peers.entry(peer).or_default().level = Some(level);
                    let loudest = self.loudest();
                    if loudest == self.level {
                        return done();
                    }
                    self.level = loudest;
                    Shared::Forward(None)
                }
                None => Shared::Forward(None),
            },
            "tasks/get" | "tasks/result" | "tasks/cancel" | "tasks/update" => {
                match text(params().task_id).and_then(|task| self.tasks.get(&task)) {
                    Some(owner) if owner == peer => Shared::Forward(None),
                    // Whose it is, is nobody else's business: it does not exist.
                    _ => Shared::Local(error_response(Some(id), Code::InvalidParams, "there is no such task")),
                }
            }
            _ => Shared::Forward(None),
        }
    }
}
