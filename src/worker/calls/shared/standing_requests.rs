//! Session state that outlives a call: log level and subscriptions. Only what the child has accepted counts, and only
//! that is replayed to its successor.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::sharing::Sharing;
use super::subscriptions::{Counted, LONGEST_URI};
use crate::jsonrpc::{Code, RawId, empty_response, error_response};
use crate::mcp::{LEVELS, Level, label, method};
use crate::memory::Text;
use crate::worker::calls::{Draft, LeaseId, Number, Refused, Standing, StandingInFlight, Told, Waiting};

/// What becomes of a request.
#[derive(Debug)]
pub(in crate::worker::calls) enum Decision {
    /// The child has to hear the request; with its effect that outlives the call, if there is one.
    Forward(Option<Standing>),
    /// The gateway answers.
    Local(Bytes),
    /// The answer to the subscribe of another session will be the answer.
    Wait,
}

impl Sharing {
    /// Decides whether the child has to receive a request. A shared child does not, where the request would change
    /// something for other sessions, or nothing for the child. Updates subscriptions and the log level to match.
    ///
    /// # Errors
    /// `refusal`, the reason why the child takes no more calls now, if the request needs the child. Nothing has changed
    /// then.
    pub(in crate::worker::calls) fn decide(
        &mut self,
        draft: &mut Draft<'_>,
        refusal: Option<Refused>,
    ) -> Result<Decision, Refused> {
        let (peer, envelope) = (draft.call.peer, draft.ask.envelope);
        let name = envelope.method.as_deref().unwrap_or_default();
        let refusal = refusal.map_or(Ok(()), Err);
        let is_standing = Standing::is_made_by(name);
        if is_standing && self.handed_over.contains(&peer) {
            return Err(Refused::Ended);
        }
        if !self.is_shared {
            let standing = is_standing.then(|| Standing::of(name, &envelope.members, draft.uri.take()));
            return refusal.map(|()| Decision::Forward(standing.flatten()));
        }
        let id = &draft.call.original;
        Ok(match name {
            method::PING => Decision::Local(empty_response(id)),
            method::RESOURCES_SUBSCRIBE | method::RESOURCES_UNSUBSCRIBE => match draft.uri.take() {
                None => invalid(id, "params.uri must be a string"),
                Some(uri) if uri.len() > LONGEST_URI => {
                    invalid(id, &format!("params.uri is longer than {LONGEST_URI} bytes"))
                }
                // A server that ends a text at a NUL, as C does, would take the URI for another one.
                Some(uri) if uri.contains('\0') => invalid(id, "params.uri must have no NUL in it"),
                Some(uri) if name == method::RESOURCES_SUBSCRIBE => return self.subscribe(draft, uri, refusal),
                Some(uri) => return self.unsubscribe(peer, id, uri, refusal),
            },
            method::LOGGING_SET_LEVEL => match label(envelope.members.level).as_deref().and_then(Level::parse) {
                Some(level) => return self.set_level(draft, level, refusal),
                None => invalid(id, &format!("params.level must be one of {}", LEVELS.join(", "))),
            },
            // A session is told the same of a task of another session as of one that does not exist.
            _ if self.names_a_foreign_task(peer, envelope) => invalid(id, "there is no such task"),
            _ => return refusal.map(|()| Decision::Forward(None)),
        })
    }

    fn subscribe(&mut self, draft: &Draft<'_>, uri: Text, refusal: Result<(), Refused>) -> Result<Decision, Refused> {
        let call = &draft.call;
        let counted = self.subscriptions.would_subscribe(&uri, call.peer);
        if matches!(counted, Counted::Forward | Counted::Wait) {
            refusal?;
        }
        Ok(match counted {
            Counted::Forward => {
                self.subscriptions.ask(&uri, call.peer);
                Decision::Forward(Some(Standing::Subscribe(uri)))
            }
            Counted::Wait => {
                let (id, exchange) = (call.original.clone(), Arc::clone(&call.exchange));
                let waiting = Waiting { peer: call.peer, id, exchange, timeout: call.timeout(), is_own: call.is_own };
                self.subscriptions.wait(&uri, waiting);
                Decision::Wait
            }
            Counted::Local => {
                self.subscriptions.hold(&uri, call.peer);
                Decision::Local(empty_response(&call.original))
            }
            Counted::TooMany => {
                let text = "the session has too many subscriptions: unsubscribe from some of them";
                Decision::Local(error_response(Some(&call.original), Code::Overloaded, text))
            }
        })
    }

    fn unsubscribe(
        &mut self,
        peer: LeaseId,
        id: &RawId,
        uri: Text,
        refusal: Result<(), Refused>,
    ) -> Result<Decision, Refused> {
        let is_last = self.subscriptions.is_last(&uri, peer);
        if is_last {
            refusal?;
        }
        // At once, and not when the child has agreed: the next session that subscribes is sent to the child.
        let was = self.subscriptions.unsubscribe(&uri, peer);
        Ok(match is_last {
            true => Decision::Forward(was.then_some(Standing::Unsubscribe(uri))),
            false => Decision::Local(empty_response(id)),
        })
    }

    fn set_level(
        &mut self,
        draft: &Draft<'_>,
        level: Level,
        refusal: Result<(), Refused>,
    ) -> Result<Decision, Refused> {
        let (peer, number) = (draft.call.peer, draft.call.number);
        let loudest = self.loudest(Some(peer)).map_or(level, |others| others.min(level));
        // A level that is still in flight may be refused.
        if self.told.is_some_and(|told| told.is_done && told.level == loudest) {
            self.grant_level(peer, level, number.order);
            return Ok(Decision::Local(empty_response(&draft.call.original)));
        }
        refusal?;
        // The number is known when the call is in the table.
        self.told = Some(Told { level: loudest, by: 0, is_done: false });
        Ok(Decision::Forward(Some(Standing::Level(level))))
    }

    /// Notes that a standing request is sent to the child. Returns the request that a shared child gets instead, if
    /// that is another: the most verbose level of all sessions.
    pub(in crate::worker::calls) fn sent(
        &mut self,
        number: u64,
        (peer, is_own): (LeaseId, bool),
        standing: Standing,
    ) -> Option<Standing> {
        let is_level = self.is_shared && matches!(standing, Standing::Level(_));
        self.in_flight.insert(number, StandingInFlight { peer, is_own, standing });
        let told = self.told.as_mut().filter(|_| is_level)?;
        told.by = number;
        Some(Standing::Level(told.level))
    }

    /// The child has answered a request; `accepted` if with a result. Returns the requests that get the same answer,
    /// and the URI that the child is to be unsubscribed from, as nobody wants it any more.
    pub(in crate::worker::calls) fn settle(&mut self, number: Number, accepted: bool) -> (Vec<Waiting>, Option<Text>) {
        let Some(StandingInFlight { peer, standing, .. }) = self.in_flight.remove(&number.wire) else {
            return (Vec::new(), None);
        };
        match standing {
            Standing::Level(level) => {
                if accepted {
                    self.grant_level(peer, level, number.order);
                }
                self.level_over(number.wire, accepted);
            }
            Standing::Subscribe(uri) if self.is_shared => {
                let (waiting, is_unwanted) = self.subscriptions.subscribed(&uri, accepted);
                return (waiting, is_unwanted.then_some(uri));
            }
            Standing::Subscribe(uri) if accepted => self.subscriptions.remember(&uri, peer),
            Standing::Unsubscribe(uri) if self.is_shared && !accepted => self.subscriptions.hold(&uri, peer),
            Standing::Unsubscribe(uri) if !self.is_shared && accepted => {
                self.subscriptions.unsubscribe(&uri, peer);
            }
            Standing::Subscribe(_) | Standing::Unsubscribe(_) => {}
        }
        (Vec::new(), None)
    }

    /// A request will not be answered, though the child may act on it. Returns the requests that fail with it, and the
    /// URI that the child is to be unsubscribed from, in case that it has subscribed.
    pub(in crate::worker::calls) fn unsettle(&mut self, number: u64) -> (Vec<Waiting>, Option<Text>) {
        self.level_over(number, false);
        match self.in_flight.remove(&number).map(|request| request.standing) {
            Some(Standing::Subscribe(uri)) if self.is_shared => {
                let (waiting, _) = self.subscriptions.subscribed(&uri, false);
                let is_held = self.subscriptions.is_held(&uri);
                (waiting, (!is_held).then_some(uri))
            }
            _ => (Vec::new(), None),
        }
    }

    /// The child has not received a request, or has ended: the state is as before. Returns the requests that fail with
    /// it.
    pub(in crate::worker::calls) fn undo(&mut self, number: u64) -> Vec<Waiting> {
        self.level_over(number, false);
        match self.in_flight.remove(&number) {
            Some(StandingInFlight { standing: Standing::Subscribe(uri), .. }) => {
                self.subscriptions.subscribed(&uri, false).0
            }
            Some(StandingInFlight { standing: Standing::Unsubscribe(uri), peer, .. }) if self.is_shared => {
                self.subscriptions.hold(&uri, peer);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// Passes a first subscribe in flight on to the next request that waits for its answer, which is removed from there
    /// and returned. `None` if the number is no subscribe in flight, or nobody waits.
    pub(in crate::worker::calls) fn pass_on(&mut self, number: u64) -> Option<Waiting> {
        let request = self.in_flight.get_mut(&number)?;
        let Standing::Subscribe(uri) = &request.standing else { return None };
        let next = self.subscriptions.next_waiting(uri)?;
        (request.peer, request.is_own) = (next.peer, next.is_own);
        Some(next)
    }

    /// Whether a call is a subscribe on a shared child: others may wait for its answer, so that one of them cannot
    /// cancel it.
    pub(in crate::worker::calls) fn may_be_awaited_by_others(&self, number: u64) -> bool {
        let request = self.in_flight.get(&number).filter(|_| self.is_shared);
        request.is_some_and(|request| matches!(request.standing, Standing::Subscribe(_)))
    }

    /// Whether a standing request of a session has no answer yet. `of_client`: the gateway's own do not count.
    pub(in crate::worker) fn has_standing_request(&self, peer: LeaseId, of_client: bool) -> bool {
        let counts = |of: LeaseId, is_own: bool| of == peer && !(of_client && is_own);
        self.in_flight.values().any(|request| counts(request.peer, request.is_own))
            || self.subscriptions.waiting().any(|waiting| counts(waiting.peer, waiting.is_own))
    }

    /// The standing requests of a session that the child has accepted. An unsubscribe counts when the child has
    /// accepted it.
    pub(in crate::worker) fn granted(&self, peer: LeaseId) -> BTreeSet<Standing> {
        let level = self.levels.get(&peer).map(|(level, _)| Standing::Level(*level));
        let requests = self.in_flight.values().filter(|request| request.peer == peer && self.is_shared);
        let unsubscribing = requests.filter_map(|request| match &request.standing {
            Standing::Unsubscribe(uri) => Some(uri),
            Standing::Subscribe(_) | Standing::Level(_) => None,
        });
        let uris = self.subscriptions.of(peer).chain(unsubscribing);
        level.into_iter().chain(uris.cloned().map(Standing::Subscribe)).collect()
    }

    /// Another child is asked for the state of a session: this child grants the session nothing more. Returns the
    /// requests of the session that wait, and the numbers of its standing requests in flight, which all end now.
    pub(in crate::worker::calls) fn hand_over(&mut self, peer: LeaseId) -> (Vec<Waiting>, Vec<u64>) {
        self.handed_over.insert(peer);
        let requests = self.in_flight.iter().filter(|(_, request)| request.peer == peer);
        let numbers = requests.map(|(number, _)| *number).collect();
        (self.subscriptions.withdraw(peer), numbers)
    }

    /// The most verbose level that the sessions have or have asked for, `but` for one of them.
    fn loudest(&self, but: Option<LeaseId>) -> Option<Level> {
        let have = self.levels.iter().map(|(peer, (level, _))| (*peer, *level));
        let asked_for = self.in_flight.values().filter_map(|request| match request.standing {
            Standing::Level(level) => Some((request.peer, level)),
            Standing::Subscribe(_) | Standing::Unsubscribe(_) => None,
        });
        have.chain(asked_for).filter(|(peer, _)| Some(*peer) != but).map(|(_, level)| level).min()
    }

    /// The child has accepted the level of a session, by the request of this `order`.
    fn grant_level(&mut self, peer: LeaseId, level: Level, order: u64) {
        if self.levels.get(&peer).is_none_or(|(_, by)| *by <= order) {
            self.levels.insert(peer, (level, order));
        }
    }

    /// The request `number` is over. If it told the child a level, and the child has not accepted that, the level is
    /// forgotten: the next session that wants the same tells the child again.
    pub(in crate::worker::calls) fn level_over(&mut self, number: u64, is_done: bool) {
        if let Some(told) = self.told.filter(|told| told.by == number) {
            self.told = is_done.then_some(Told { is_done, ..told });
        }
    }

    /// The level that a shared child is to be told, as a session has left and the child was told another.
    pub(in crate::worker::calls) fn level_to_tell(&self) -> Option<Level> {
        let level = self.loudest(None).filter(|_| self.is_shared)?;
        self.told.is_none_or(|told| told.level != level).then_some(level)
    }

    /// Notes that the child is told a level by the gateway's own request `number`.
    pub(in crate::worker::calls) fn tell_level(&mut self, level: Level, number: u64) {
        self.told = Some(Told { level, by: number, is_done: false });
    }
}

fn invalid(id: &RawId, text: &str) -> Decision {
    Decision::Local(error_response(Some(id), Code::InvalidParams, text))
}
