//! What becomes of a client's request: a frame for the child under a number of this worker's own, or an answer from here
//! where it would disturb the others on the child.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::params::{Params, mentions, progress_token, task_asked_about, text};
use super::sharing::{Counted, LEVELS, Level, URI, Waiting};
use super::wishes::{Told, Wish};
use super::{Ask, Call, LABEL, Multiplexer, PeerId};
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
    /// The child has to hear it; with what it asks for that lasts.
    Forward(Option<Wish>),
    Local(Bytes),
    Wait,
}

impl Multiplexer {
    /// Registers a call and makes the frame for the child, or answers it here.
    pub(in crate::worker) fn ask(&mut self, peer: PeerId, ask: &Ask<'_>, now: Instant) -> Result<Outgoing, Refused> {
        let (Some(id), Some(original)) = (ask.envelope.id, ask.envelope.raw_id()) else { return Err(Refused::Ended) };
        // A session that has left may still be on its way out.
        if !self.peers.contains_key(&peer) {
            return Err(Refused::Ended);
        }
        let method = ask.envelope.method.as_deref().unwrap_or_default();
        let Ok(token) = progress_token(ask.envelope.params) else {
            return Ok(Outgoing::Local(invalid(&original, "params or params._meta has a member twice")));
        };
        if id.len().max(token.map_or(0, str::len)) > LABEL {
            let text = format!("the id or the progress token is longer than {LABEL} bytes");
            return Ok(Outgoing::Local(error_response(Some(&original), Code::InvalidRequest, &text)));
        }
        let refusal = self.refusal(peer, ask.is_own);
        if Wish::is_made_by(method) && !self.grants(peer) {
            return Err(Refused::Ended);
        }
        let wish = match self.is_shared {
            true => match self.share(peer, ask, method, &original, refusal)? {
                Shared::Forward(wish) => wish,
                Shared::Local(answer) => return Ok(Outgoing::Local(answer)),
                Shared::Wait => return Ok(Outgoing::Wait),
            },
            false if Wish::is_made_by(method) => Wish::of(method, &Params::read(ask.envelope.params)),
            false => None,
        };
        refusal.map_or(Ok(()), Err)?;
        let number = self.number();
        let digits = number.to_string();
        let mut replacements = vec![Splice { old: id, new: &digits }];
        replacements.extend(token.map(|old| Splice { old, new: &digits }));
        let is_shared_level = self.is_shared && matches!(wish, Some(Wish::Level(_)));
        let loudest = self.told.filter(|_| is_shared_level).map(|told| told.level.to_json());
        let level = loudest.as_deref().and_then(|new| Some((Params::read(ask.envelope.params).level?.get(), new)));
        replacements.extend(level.map(|(old, new)| Splice { old, new }));
        let frame = one_line(splice(ask.message, &mut replacements));
        self.register(number, peer, ask, original, now, (token, wish));
        Ok(Outgoing::Forward(frame))
    }

    fn register(
        &mut self,
        number: u64,
        peer: PeerId,
        ask: &Ask<'_>,
        original: RawId,
        now: Instant,
        (token, wish): (Option<&str>, Option<Wish>),
    ) {
        let method = ask.envelope.method.as_deref().unwrap_or_default();
        let task = task_asked_about(method, ask.envelope.params);
        if let Some(number) = task.as_deref().and_then(|task| self.live_tasks.find(task)) {
            self.keep_task(number, now);
        }
        let call = Call {
            peer,
            original,
            exchange: Arc::clone(ask.exchange),
            method: method_label(method),
            started: now,
            is_initialize: method == "initialize",
            is_own: ask.is_own,
            wish,
            task,
            may_make_task: ask.envelope.params.is_some_and(|params| mentions(params, "\"task\"")),
            progress_token: token.and_then(RawId::new),
            is_first_page: ask.envelope.params.is_none_or(|params| !params.contains("cursor")),
            kept: None,
            deadline: now + ask.timeout,
            timeout: ask.timeout,
        };
        self.alarm.no_later_than(self.due(&call));
        self.calls.insert(number, call);
        self.begin(peer);
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

    /// What a request means for the others on the child. Nothing is changed where it has no room on the child,
    /// because of the `refusal`.
    fn share(
        &mut self,
        peer: PeerId,
        ask: &Ask<'_>,
        method: &str,
        id: &RawId,
        refusal: Option<Refused>,
    ) -> Result<Shared, Refused> {
        let params = Params::read(ask.envelope.params);
        Ok(match method {
            "ping" => Shared::Local(empty_response(id)),
            "resources/subscribe" | "resources/unsubscribe" => match text(params.uri) {
                Some(uri) if uri.len() > URI => {
                    Shared::Local(invalid(id, &format!("params.uri is longer than {URI} bytes")))
                }
                Some(uri) if method == "resources/subscribe" => return self.subscribe(peer, ask, id, uri, refusal),
                Some(uri) => return self.unsubscribe(peer, id, uri, refusal),
                None => Shared::Local(invalid(id, "params.uri must be a string")),
            },
            "logging/setLevel" => match text(params.level).as_deref().and_then(Level::parse) {
                Some(level) => return self.set_level(peer, id, level, refusal),
                None => Shared::Local(invalid(id, &format!("params.level must be one of {}", LEVELS.join(", ")))),
            },
            "tasks/get" | "tasks/result" | "tasks/cancel" | "tasks/update" => {
                match text(params.task_id).and_then(|task| self.tasks.get(&task)) {
                    Some(owner) if owner == peer => Shared::Forward(None),
                    // Whose it is, is nobody else's business: it does not exist.
                    _ => Shared::Local(invalid(id, "there is no such task")),
                }
            }
            _ => Shared::Forward(None),
        })
    }

    fn subscribe(
        &mut self,
        peer: PeerId,
        ask: &Ask<'_>,
        id: &RawId,
        uri: String,
        refusal: Option<Refused>,
    ) -> Result<Shared, Refused> {
        let counted = self.subscriptions.would_subscribe(&uri, peer);
        if let Some(refused) = refusal.filter(|_| matches!(counted, Counted::Forward | Counted::Wait)) {
            return Err(refused);
        }
        Ok(match counted {
            Counted::Forward => {
                self.subscriptions.ask(&uri, peer);
                Shared::Forward(Some(Wish::Subscribe(uri)))
            }
            Counted::Wait => {
                let exchange = Arc::clone(ask.exchange);
                let waiting = Waiting { peer, id: id.clone(), exchange, timeout: ask.timeout, is_own: ask.is_own };
                self.subscriptions.wait(&uri, waiting);
                self.begin(peer);
                Shared::Wait
            }
            Counted::Local => {
                self.subscriptions.hold(&uri, peer);
                Shared::Local(empty_response(id))
            }
            Counted::TooMany => {
                let text = "the session has too many subscriptions: unsubscribe from some of them";
                Shared::Local(error_response(Some(id), Code::Overloaded, text))
            }
        })
    }

    fn unsubscribe(
        &mut self,
        peer: PeerId,
        id: &RawId,
        uri: String,
        refusal: Option<Refused>,
    ) -> Result<Shared, Refused> {
        let has_to_hear = self.subscriptions.would_unsubscribe(&uri, peer) == Counted::Forward;
        if let Some(refused) = refusal.filter(|_| has_to_hear) {
            return Err(refused);
        }
        let was = self.subscriptions.unsubscribe(&uri, peer);
        Ok(match has_to_hear {
            true => Shared::Forward(was.then_some(Wish::Unsubscribe(uri))),
            false => Shared::Local(empty_response(id)),
        })
    }

    fn set_level(
        &mut self,
        peer: PeerId,
        id: &RawId,
        level: Level,
        refusal: Option<Refused>,
    ) -> Result<Shared, Refused> {
        let loudest = self.loudest(Some(peer)).map_or(level, |others| others.min(level));
        // What is in flight for another may still be refused.
        if self.told.is_some_and(|told| told.is_done && told.level == loudest) {
            self.grant_level(peer, level, self.next);
            return Ok(Shared::Local(empty_response(id)));
        }
        refusal.map_or(Ok(()), Err)?;
        self.told = Some(Told { level: loudest, by: self.next, is_done: false });
        Ok(Shared::Forward(Some(Wish::Level(level))))
    }
}

fn invalid(id: &RawId, text: &str) -> Bytes {
    error_response(Some(id), Code::InvalidParams, text)
}
