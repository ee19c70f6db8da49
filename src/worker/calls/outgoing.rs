//! Registers a client's request and produces the frame for the child, or answers the request here where the child would change
//! something for other sessions.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use bytes::Bytes;

use super::call::Ask;
use super::draft::Draft;
use super::lease_id::LeaseId;
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
    pub(in crate::worker) fn put(&mut self, mut draft: Draft<'_>) -> Result<Outgoing, Refused> {
        let peer = draft.call.peer;
        // A session that has left may still be on its way out.
        if !self.peers.contains_key(&peer) {
            return Err(Refused::Ended);
        }
        if let Err(answer) = &draft.frame {
            return Ok(Outgoing::Local(answer.clone()));
        }
        let name = draft.ask.envelope.method.as_deref().unwrap_or_default();
        let refusal = self.refusal(peer, draft.call.is_own);
        if Standing::is_made_by(name) && !self.grants(peer) {
            return Err(Refused::Ended);
        }
        draft.call.wish = match self.is_shared {
            true => match self.share(&mut draft, refusal)? {
                Shared::Forward(wish) => wish,
                Shared::Local(answer) => return Ok(Outgoing::Local(answer)),
                Shared::Wait => return Ok(Outgoing::Wait),
            },
            false if Standing::is_made_by(name) => Standing::of(name, &draft.ask.envelope.members, draft.uri.take()),
            false => None,
        };
        refusal.map_or(Ok(()), Err)?;
        let is_level = self.is_shared && matches!(draft.call.wish, Some(Standing::Level(_)));
        let (number, frame) = self.register(draft);
        let told = self.told.as_mut().filter(|_| is_level);
        let frame = match told {
            // The child hears of a level, and of nothing else that one of its sessions has written.
            Some(told) => {
                told.by = number;
                own_request(number, name, &level_params(told.level))
            }
            None => frame,
        };
        Ok(Outgoing::Forward(number, frame))
    }

    /// Puts a call into the table. Returns the number that the child knows the call by, and the frame.
    fn register(&mut self, mut draft: Draft<'_>) -> (u64, Bytes) {
        if let Some(number) = draft.call.task.as_deref().and_then(|task| self.live_tasks.find(task)) {
            self.keep_task(number, draft.call.started);
        }
        self.given += 1;
        draft.call.number.order = self.given;
        self.timer.no_later_than(self.due(&draft.call));
        self.begin(draft.call.peer);
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
    fn share(&mut self, draft: &mut Draft<'_>, refusal: Option<Refused>) -> Result<Shared, Refused> {
        let (ask, peer, id) = (draft.ask, draft.call.peer, draft.call.original.clone());
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
                Some(level) => return self.set_level(peer, id, level, refusal),
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
        level: Level,
        refusal: Option<Refused>,
    ) -> Result<Shared, Refused> {
        let loudest = self.loudest(Some(peer)).map_or(level, |others| others.min(level));
        // What is in flight for another may still be refused.
        if self.told.is_some_and(|told| told.is_done && told.level == loudest) {
            self.given += 1;
            self.grant_level(peer, level, self.given);
            return Ok(Shared::Local(empty_response(id)));
        }
        refusal.map_or(Ok(()), Err)?;
        // The number is known when the call is in the table.
        self.told = Some(Told { level: loudest, by: 0, is_done: false });
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
