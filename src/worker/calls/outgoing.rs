//! Registers a client's request and produces the frame for the child, or answers the request here where the child would change
//! something for other sessions.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::call::{Ask, Call, Kept};
use super::draft::Draft;
use super::lease_id::LeaseId;
use super::numbers::Number;
use super::refused::Refused;
use super::standing::{Standing, Told};
use super::standing_requests::level_params;
use super::subscriptions::{Counted, URI, Waiting};
use super::table::Multiplexer;
use crate::jsonrpc::{Code, RawId, empty_response, error_response, own_request};
use crate::mcp::{LEVELS, Level, label, method};

/// What becomes of a request.
#[derive(Debug)]
pub(in crate::worker) enum Outgoing {
    /// The frame for the child, and the number that it knows the call by; the answer will come.
    Forward(u64, Bytes),
    /// Answered here.
    Local(Bytes),
    /// The answer to another request will be its answer too.
    Wait,
}

/// What a request means for the others on the child.
enum Shared {
    /// The child has to hear it; with what it asks for that lasts.
    Forward(Option<Standing>),
    Local(Bytes),
    Wait,
}

impl Multiplexer {
    /// Registers a call, or answers it here.
    pub(in crate::worker) fn put(
        &mut self,
        peer: LeaseId,
        mut draft: Draft<'_>,
        now: Instant,
    ) -> Result<Outgoing, Refused> {
        // A session that has left may still be on its way out.
        if !self.peers.contains_key(&peer) {
            return Err(Refused::Ended);
        }
        if let Err(answer) = &draft.frame {
            return Ok(Outgoing::Local(answer.clone()));
        }
        let ask = draft.ask;
        let name = ask.envelope.method.as_deref().unwrap_or_default();
        let refusal = self.refusal(peer, ask.is_own);
        if Standing::is_made_by(name) && !self.grants(peer) {
            return Err(Refused::Ended);
        }
        let number = self.number_of(&mut draft);
        let wish = match self.is_shared {
            true => match self.share(peer, &mut draft, number, refusal)? {
                Shared::Forward(wish) => wish,
                Shared::Local(answer) => return Ok(Outgoing::Local(answer)),
                Shared::Wait => return Ok(Outgoing::Wait),
            },
            false if Standing::is_made_by(name) => Standing::of(name, &ask.envelope.members, draft.uri.take()),
            false => None,
        };
        refusal.map_or(Ok(()), Err)?;
        let loudest =
            self.told.filter(|_| self.is_shared && matches!(wish, Some(Standing::Level(_)))).map(|told| told.level);
        let frame = match loudest {
            // The child hears of a level, and of nothing else that one of its sessions has written.
            Some(level) => own_request(number.wire, name, &level_params(level)),
            None => std::mem::replace(&mut draft.frame, Ok(Bytes::new())).unwrap_or_default(),
        };
        self.register(number, peer, draft, now, wish);
        Ok(Outgoing::Forward(number.wire, frame))
    }

    /// The number of a request, which the child has for nothing else that it may still speak of.
    fn number_of(&mut self, draft: &mut Draft<'_>) -> Number {
        // The number was drawn before the lock was taken. Hardly ever has another call the same.
        while self.is_used(draft.number) {
            draft.renumber();
        }
        self.given += 1;
        Number { wire: draft.number, order: self.given }
    }

    fn register(&mut self, number: Number, peer: LeaseId, draft: Draft<'_>, now: Instant, wish: Option<Standing>) {
        let Draft { ask, original, task, .. } = draft;
        let name = ask.envelope.method.as_deref().unwrap_or_default();
        let members = &ask.envelope.members;
        if let Some(number) = task.as_deref().and_then(|task| self.live_tasks.find(task)) {
            self.keep_task(number, now);
        }
        let call = Call {
            number,
            peer,
            original,
            exchange: Arc::clone(ask.exchange),
            method: method::metric_label(name),
            started: now,
            is_initialize: name == method::INITIALIZE,
            is_own: ask.is_own,
            wish,
            task,
            may_make_task: members.task.is_some(),
            progress_token: members.meta.progress_token.and_then(RawId::new),
            is_first_page: members.cursor.is_none(),
            kept: None,
            deadline: now + ask.timeout,
            timeout: ask.timeout,
        };
        self.timer.no_later_than(self.due(&call));
        self.calls.insert(number.wire, call);
        self.begin(peer);
    }

    /// Keeps what is needed to send a call again.
    pub(in crate::worker) fn keep(&mut self, number: u64, kept: Kept) {
        if let Some(call) = self.calls.get_mut(&number) {
            call.kept = Some(kept);
        }
    }

    /// A `ping` of the gateway's own: its number, and the frame. It is no call: it neither counts nor keeps anything busy.
    pub(in crate::worker) fn ping(&mut self) -> (u64, Bytes) {
        let (number, frame) = self.own_request(method::PING, "{}");
        (number.wire, frame)
    }

    /// Decides whether a child that sessions share has to receive a request: forwards the request, answers it here, or lets it
    /// wait for the answer to another session's request. Updates subscriptions and the log level to match.
    ///
    /// # Errors
    /// `refusal`, the reason why the child takes no more calls now, if the request needs the child. Nothing has changed then.
    fn share(
        &mut self,
        peer: LeaseId,
        draft: &mut Draft<'_>,
        number: Number,
        refusal: Option<Refused>,
    ) -> Result<Shared, Refused> {
        let (ask, id) = (draft.ask, draft.original.clone());
        let id = &id;
        let params = &ask.envelope.members;
        let name = ask.envelope.method.as_deref().unwrap_or_default();
        Ok(match name {
            method::PING => Shared::Local(empty_response(id)),
            method::RESOURCES_SUBSCRIBE | method::RESOURCES_UNSUBSCRIBE if draft.has_long_uri() => {
                Shared::Local(invalid(id, &format!("params.uri is longer than {URI} bytes")))
            }
            method::RESOURCES_SUBSCRIBE | method::RESOURCES_UNSUBSCRIBE => match draft.uri.take() {
                Some(uri) if is_cut_short(&uri) => Shared::Local(invalid(id, "params.uri must have no NUL in it")),
                Some(uri) if name == method::RESOURCES_SUBSCRIBE => return self.subscribe(peer, ask, id, uri, refusal),
                Some(uri) => return self.unsubscribe(peer, id, uri, refusal),
                None => Shared::Local(invalid(id, "params.uri must be a string")),
            },
            method::LOGGING_SET_LEVEL => match label(params.level).as_deref().and_then(Level::parse) {
                Some(level) => return self.set_level(peer, id, (level, number), refusal),
                None => Shared::Local(invalid(id, &format!("params.level must be one of {}", LEVELS.join(", ")))),
            },
            // Whose it is, is nobody else's business: it does not exist.
            _ if self.names_a_foreign_task(peer, ask.envelope) => Shared::Local(invalid(id, "there is no such task")),
            _ => Shared::Forward(None),
        })
    }

    fn subscribe(
        &mut self,
        peer: LeaseId,
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
                Shared::Forward(Some(Standing::Subscribe(uri)))
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
        peer: LeaseId,
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
            true => Shared::Forward(was.then_some(Standing::Unsubscribe(uri))),
            false => Shared::Local(empty_response(id)),
        })
    }

    fn set_level(
        &mut self,
        peer: LeaseId,
        id: &RawId,
        (level, number): (Level, Number),
        refusal: Option<Refused>,
    ) -> Result<Shared, Refused> {
        let loudest = self.loudest(Some(peer)).map_or(level, |others| others.min(level));
        // What is in flight for another may still be refused.
        if self.told.is_some_and(|told| told.is_done && told.level == loudest) {
            self.grant_level(peer, level, number.order);
            return Ok(Shared::Local(empty_response(id)));
        }
        refusal.map_or(Ok(()), Err)?;
        self.told = Some(Told { level: loudest, by: number.wire, is_done: false });
        Ok(Shared::Forward(Some(Standing::Level(level))))
    }
}

/// Whether a server that ends a text at a NUL, as C does, takes a name for another one.
fn is_cut_short(name: &str) -> bool {
    name.contains('\0')
}

fn invalid(id: &RawId, text: &str) -> Bytes {
    error_response(Some(id), Code::InvalidParams, text)
}
