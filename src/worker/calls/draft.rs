//! A request for a child whose frame is written before the tables are locked, so that the lock is held for a short
//! time.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::numbers::{self, Number};
use super::{Ask, Call, Kept, LeaseId, Refused};
use crate::jsonrpc::{Code, RawId, Splice, error_response, request_frame, text};
use crate::mcp::{LONGEST_LABEL, ambiguity, method, task_asked_about};
use crate::memory::Text;

/// A request that is ready to be put to a child.
#[derive(Debug)]
pub(in crate::worker) struct Draft<'a> {
    /// The request.
    pub(in crate::worker) ask: &'a Ask<'a>,
    /// The entry for the table of calls, under a number that is most likely free. The tables set the order of the
    /// number.
    pub(super) call: Box<Call>,
    /// The frame for the child. `Err` is the error response, where the request itself is invalid.
    pub(super) frame: Result<Bytes, Bytes>,
    /// The URI of a `resources/subscribe` or `resources/unsubscribe`; `None` if that is no string, and for other
    /// methods.
    pub(super) uri: Option<Text>,
}

impl<'a> Draft<'a> {
    /// Makes the entry and the frame for a session's request. The frame is charged to the account of the exchange.
    /// `kept` is needed to send the request again after a crash.
    ///
    /// # Errors
    /// `Memory` if the account has no room for the frame or the URI, `Ended` if the request has no valid id.
    pub(in crate::worker) fn new(
        ask: &'a Ask<'a>,
        peer: LeaseId,
        kept: Option<Kept>,
        now: Instant,
    ) -> Result<Self, Refused> {
        let (Some(id), Some(original)) = (ask.envelope.id, ask.envelope.raw_id()) else { return Err(Refused::Ended) };
        let token = ask.envelope.members.meta.progress_token;
        let number = numbers::for_call(|_| false);
        let frame = if let Some(ambiguity) = ambiguity(ask.envelope) {
            Err(error_response(Some(&original), ambiguity.code(), &ambiguity.to_string()))
        } else if id.len().max(token.map_or(0, str::len)) > LONGEST_LABEL {
            let text = format!("the id or the progress token is longer than {LONGEST_LABEL} bytes");
            Err(error_response(Some(&original), Code::InvalidRequest, &text))
        } else {
            Ok(ask.exchange.account().freeze(frame(ask, number))?)
        };
        let is_subscription =
            matches!(ask.envelope.method.as_deref(), Some(method::RESOURCES_SUBSCRIBE | method::RESOURCES_UNSUBSCRIBE));
        let members = &ask.envelope.members;
        let uri = members.uri.filter(|_| is_subscription).and_then(text);
        // Kept for as long as the session is subscribed.
        let uri = uri.map(|uri| ask.exchange.account().text(&uri)).transpose()?;
        let call = Box::new(Call {
            number: Number { wire: number, order: 0 },
            peer,
            original,
            exchange: Arc::clone(ask.exchange),
            method: method::metric_label(ask.envelope.method.as_deref().unwrap_or_default()),
            started: now,
            is_own: ask.is_own,
            task: task_asked_about(ask.envelope),
            may_make_task: members.task.is_some(),
            progress_token: token.and_then(RawId::new),
            is_first_page: members.cursor.is_none(),
            kept,
            deadline: now + ask.timeout,
            timeout: ask.timeout,
        });
        Ok(Self { ask, call, frame, uri })
    }

    /// Draws another number, as the child knows something else by the present one, and rewrites the frame. The new
    /// frame is not charged: that hardly ever happens.
    pub(super) fn renumber(&mut self) {
        self.call.number.wire = numbers::for_call(|_| false);
        self.frame = self.frame.clone().map(|_| frame(self.ask, self.call.number.wire).freeze());
    }
}

fn frame(ask: &Ask<'_>, number: u64) -> BytesMut {
    let digits = RawId::from(number);
    let token = ask.envelope.members.meta.progress_token;
    request_frame(number, ask.envelope, token.map(|old| Splice { old, new: digits.as_str() }).as_mut_slice())
}
