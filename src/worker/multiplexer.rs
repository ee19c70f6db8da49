//! The tables of what is in flight on one child, both ways. It rewrites ids and progress tokens and does no I/O.
//!
//! Invariant: an answer reaches the exchange that asked, or nobody. Every request gets a number of this worker's own;
//! only that number, still in flight, leads back to an exchange, and it does so once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::error::Refused;
use super::peer::{InFlight, Unsolicited};
use crate::jsonrpc::{Code, Envelope, Kind, RawId, Splice, error_response, one_line, splice};
use crate::stream::Exchange;
use crate::telemetry::{DropReason, method_label};

/// A call in flight.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) original: RawId,
    pub(super) exchange: Arc<Exchange>,
    pub(super) method: &'static str,
    pub(super) started: Instant,
    pub(super) is_initialize: bool,
    progress_token: Option<RawId>,
    deadline: Instant,
    timeout: Duration,
}

/// A request of the server that the client has not answered yet.
#[derive(Debug)]
struct Asked {
    original: RawId,
    deadline: Instant,
    timeout: Duration,
}

/// A request on its way to the child.
#[derive(Debug)]
pub struct Ask<'a> {
    /// The whole message.
    pub message: &'a [u8],
    /// Its envelope.
    pub envelope: &'a Envelope<'a>,
    /// Where the answer goes.
    pub exchange: &'a Arc<Exchange>,
    /// Time until the answer; progress starts it anew.
    pub timeout: Duration,
}

/// What to do with a message of the child.
#[derive(Debug)]
pub(super) enum Incoming {
    /// Deliver the answer to a call, which is now over.
    Answer(Box<Call>, Bytes),
    /// Deliver to the exchange of a call that goes on.
    Inform(Arc<Exchange>, Bytes),
    /// Ask the peer where it goes. A request carries the number that it was given.
    Unsolicited(Unsolicited, Bytes, Option<u64>),
    /// Send this back to the child.
    Reply(Bytes),
    /// Nobody gets it.
    Drop(DropReason),
}

/// What has run out of time.
#[derive(Debug, Default)]
pub(super) struct Expired {
    /// Calls to fail.
    pub(super) calls: Vec<Call>,
    /// Frames for the child: cancellations, and errors for requests of its own.
    pub(super) frames: Vec<Bytes>,
}

/// The tables of one worker.
#[derive(Debug)]
pub(super) struct Multiplexer {
    next: u64,
    calls: BTreeMap<u64, Call>,
    asked: BTreeMap<u64, Asked>,
    max_in_flight: usize,
}

/// The members of `params` that routing needs.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Params<'a> {
    #[serde(borrow, default, rename = "_meta")]
    meta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    progress_token: Option<&'a RawValue>,
    #[serde(borrow, default)]
    request_id: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Meta<'a> {
    #[serde(borrow, default)]
    progress_token: Option<&'a RawValue>,
}

impl<'a> Params<'a> {
    /// Params that are no object of this shape have none of these members: the child may judge them.
    fn read(params: Option<&'a str>) -> Self {
        params.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }
}

/// The raw `params._meta.progressToken`, if there is one that may be a token.
fn progress_token<'a>(params: Option<&'a str>) -> Option<&'a str> {
    // Most calls have none, and are spared the parsing.
    let params = params.filter(|text| memchr::memmem::find(text.as_bytes(), b"progressToken").is_some())?;
    let meta: Meta<'a> = serde_json::from_str(Params::read(Some(params)).meta?.get()).ok()?;
    meta.progress_token.map(RawValue::get)
}

impl Multiplexer {
    pub(super) fn new(max_in_flight: usize) -> Self {
        Self { next: 1, calls: BTreeMap::new(), asked: BTreeMap::new(), max_in_flight }
    }

    fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// Registers a call and makes the frame for the child.
    pub(super) fn ask(&mut self, ask: &Ask<'_>, now: Instant) -> Result<Bytes, Refused> {
        if self.calls.len() >= self.max_in_flight {
            return Err(Refused::Busy);
        }
        let (Some(id), Some(original)) = (ask.envelope.id, ask.envelope.raw_id()) else { return Err(Refused::Ended) };
        let number = self.number();
        let text = number.to_string();
        let token = progress_token(ask.envelope.params);
        let mut replacements = vec![Splice { old: id, new: &text }];
        replacements.extend(token.map(|old| Splice { old, new: &text }));
        let frame = one_line(splice(ask.message, &mut replacements));
        let method = ask.envelope.method.as_deref().unwrap_or_default();
        self.calls.insert(
            number,
            Call {
                original,
                exchange: Arc::clone(ask.exchange),
                method: method_label(method),
                started: now,
                is_initialize: method == "initialize",
                progress_token: token.and_then(RawId::new),
                deadline: now + ask.timeout,
                timeout: ask.timeout,
            },
        );
        Ok(frame)
    }

    /// Takes back the call that was registered last, because its frame could not be queued.
    pub(super) fn forget_last(&mut self) {
        self.calls.pop_last();
    }

    /// The client cancels: the frame for the child, and the call, which is over. `None` if no such call is in flight,
    /// or it is `initialize`, which must not be cancelled.
    pub(super) fn cancel(&mut self, message: &[u8], envelope: &Envelope<'_>) -> Option<(Bytes, Call)> {
        let old = Params::read(envelope.params).request_id?.get();
        let original = RawId::new(old)?;
        // Clients that use one id for everything mean the latest call.
        let number = self
            .calls
            .iter()
            .rev()
            .find(|(_, c)| c.original == original && !c.is_initialize)
            .map(|(number, _)| *number)?;
        let call = self.calls.remove(&number)?;
        let frame = one_line(splice(message, &mut [Splice { old, new: &number.to_string() }]));
        Some((frame, call))
    }

    /// The client answers a request of the server: the frame for the child, or `None` if it was not asked.
    pub(super) fn answered_by_client(&mut self, message: &[u8], envelope: &Envelope<'_>) -> Option<Bytes> {
        let id = envelope.id?;
        let asked = self.asked.remove(&RawId::new(id)?.as_u64()?)?;
        Some(one_line(splice(message, &mut [Splice { old: id, new: asked.original.as_str() }])))
    }

    /// The client reports progress on a request of the server, or anything else: as it is. Tokens of the server's own
    /// requests are not rewritten, because only this one session sees them.
    pub(super) fn pass(message: &[u8]) -> Bytes {
        one_line(BytesMut::from(message))
    }

    /// Decides what becomes of a message of the child.
    pub(super) fn receive(
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
        let number = envelope.id.and_then(RawId::new).and_then(|id| id.as_u64());
        match (number.and_then(|number| self.calls.remove(&number)), envelope.id) {
            (Some(call), Some(old)) => {
                let message = splice(message, &mut [Splice { old, new: call.original.as_str() }]).freeze();
                Incoming::Answer(Box::new(call), message)
            }
            _ => Incoming::Drop(DropReason::UnknownId),
        }
    }

    fn request(&mut self, message: Bytes, envelope: &Envelope<'_>, now: Instant, timeout: Duration) -> Incoming {
        let (Some(old), Some(original)) = (envelope.id, envelope.raw_id()) else {
            return Incoming::Drop(DropReason::NotJson);
        };
        if envelope.method.as_deref() == Some("ping") {
            let pong = format!(r#"{{"jsonrpc":"2.0","id":{old},"result":{{}}}}"#);
            return Incoming::Reply(one_line(BytesMut::from(pong.as_bytes())));
        }
        if self.asked.len() >= self.max_in_flight {
            return Incoming::Reply(refusal(&original, "the client has too many requests to answer"));
        }
        let number = self.number();
        self.asked.insert(number, Asked { original, deadline: now + timeout, timeout });
        let message = splice(&message, &mut [Splice { old, new: &number.to_string() }]).freeze();
        Incoming::Unsolicited(Unsolicited::Request, message, Some(number))
    }

    fn notification(&mut self, message: Bytes, envelope: &Envelope<'_>, now: Instant) -> Incoming {
        match envelope.method.as_deref().unwrap_or_default() {
            "notifications/progress" => self.progress(&message, envelope, now),
            "notifications/cancelled" => {
                let old = Params::read(envelope.params).request_id.map(RawValue::get);
                let original = old.and_then(RawId::new);
                let number = self.asked.iter().find(|(_, a)| Some(&a.original) == original.as_ref()).map(|(n, _)| *n);
                let (Some(old), Some(number)) = (old, number) else { return Incoming::Drop(DropReason::UnknownId) };
                self.asked.remove(&number);
                let message = splice(&message, &mut [Splice { old, new: &number.to_string() }]).freeze();
                Incoming::Unsolicited(Unsolicited::Notification, message, None)
            }
            "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed"
            | "notifications/resources/updated" => Incoming::Unsolicited(Unsolicited::Announcement, message, None),
            _ => Incoming::Unsolicited(Unsolicited::Notification, message, None),
        }
    }

    fn progress(&mut self, message: &Bytes, envelope: &Envelope<'_>, now: Instant) -> Incoming {
        let old = Params::read(envelope.params).progress_token.map(RawValue::get);
        let call =
            old.and_then(RawId::new).and_then(|token| token.as_u64()).and_then(|number| self.calls.get_mut(&number));
        let (Some(old), Some(call)) = (old, call) else { return Incoming::Drop(DropReason::LateProgress) };
        call.deadline = now + call.timeout;
        let Some(token) = &call.progress_token else { return Incoming::Drop(DropReason::LateProgress) };
        let message = splice(message, &mut [Splice { old, new: token.as_str() }]).freeze();
        Incoming::Inform(Arc::clone(&call.exchange), message)
    }

    /// A request of the server could not be put to the client: the error for the child.
    pub(super) fn undelivered(&mut self, number: u64) -> Option<Bytes> {
        let asked = self.asked.remove(&number)?;
        Some(refusal(&asked.original, "the client has no open stream to be asked on"))
    }

    /// The calls that something unsolicited may belong to.
    pub(super) fn in_flight(&self) -> InFlight {
        let latest = self.calls.last_key_value().map(|(_, call)| Arc::clone(&call.exchange));
        InFlight { count: self.calls.len(), latest }
    }

    /// Whether nothing is in flight, either way.
    pub(super) fn is_idle(&self) -> bool {
        self.calls.is_empty() && self.asked.is_empty()
    }

    /// Removes what has run out of time.
    pub(super) fn expire(&mut self, now: Instant) -> Expired {
        let mut expired = Expired::default();
        let late: Vec<u64> = self.calls.iter().filter(|(_, c)| c.deadline <= now).map(|(n, _)| *n).collect();
        for number in late {
            let Some(call) = self.calls.remove(&number) else { continue };
            if !call.is_initialize {
                expired.frames.push(cancelled(number));
            }
            expired.calls.push(call);
        }
        let late: Vec<u64> = self.asked.iter().filter(|(_, a)| a.deadline <= now).map(|(n, _)| *n).collect();
        for asked in late.into_iter().filter_map(|number| self.asked.remove(&number)) {
            let text = format!("the client did not answer within {:?}", asked.timeout);
            expired.frames.push(refusal(&asked.original, &text));
        }
        expired
    }

    /// Empties the tables: the calls that were in flight.
    pub(super) fn drain(&mut self) -> Vec<Call> {
        self.asked.clear();
        std::mem::take(&mut self.calls).into_values().collect()
    }
}

impl Call {
    /// The time that it was given.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }
}

fn refusal(id: &RawId, text: &str) -> Bytes {
    one_line(BytesMut::from(error_response(Some(id), Code::Internal, text).as_ref()))
}

fn cancelled(number: u64) -> Bytes {
    let text = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{number},"reason":"timed out"}}}}"#
    );
    one_line(BytesMut::from(text.as_bytes()))
}
