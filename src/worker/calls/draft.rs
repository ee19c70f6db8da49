//! A request for a child whose frame is written before the tables are locked, so that the lock is held for a short time.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::call::{Ask, Call, Kept};
use super::lease_id::LeaseId;
use super::numbers::{self, Number};
use crate::jsonrpc::{Code, RawId, Splice, error_response, request_frame, text};
use crate::mcp::{LONGEST_LABEL, ambiguity, method, task_asked_about};

/// A request that is ready to be put to a child.
#[derive(Debug)]
pub(in crate::worker) struct Draft<'a> {
    /// The request.
    pub(in crate::worker) ask: &'a Ask<'a>,
    /// The entry for the table. The table sets the order of the number, and what the request asks for that lasts.
    pub(super) call: Box<Call>,
    /// The frame for the child; or the answer, where the request is refused whatever else there is.
    pub(super) frame: Result<Bytes, Bytes>,
    /// The URI that is subscribed to, or no more; `None` where it is no text.
    pub(super) uri: Option<String>,
}

impl<'a> Draft<'a> {
    /// Makes the frame of a request of a session. `kept` is what another child would need, should this one crash. `None` where
    /// the request has no id.
    pub(in crate::worker) fn new(ask: &'a Ask<'a>, peer: LeaseId, kept: Option<Kept>, now: Instant) -> Option<Self> {
        let (id, original) = (ask.envelope.id?, ask.envelope.raw_id()?);
        let token = ask.envelope.members.meta.progress_token;
        let number = numbers::for_call(|_| false);
        let frame = if let Some(ambiguity) = ambiguity(ask.envelope) {
            Err(error_response(Some(&original), ambiguity.code(), &ambiguity.to_string()))
        } else if id.len().max(token.map_or(0, str::len)) > LONGEST_LABEL {
            let text = format!("the id or the progress token is longer than {LONGEST_LABEL} bytes");
            Err(error_response(Some(&original), Code::InvalidRequest, &text))
        } else {
            Ok(frame(ask, number))
        };
        let is_subscription =
            matches!(ask.envelope.method.as_deref(), Some(method::RESOURCES_SUBSCRIBE | method::RESOURCES_UNSUBSCRIBE));
        let members = &ask.envelope.members;
        let uri = members.uri.filter(|_| is_subscription).and_then(text).map(Cow::into_owned);
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
        Some(Self { ask, call, frame, uri })
    }

    /// The child has the number for something else already.
    pub(super) fn renumber(&mut self) {
        self.call.number.wire = numbers::for_call(|_| false);
        self.frame = self.frame.clone().map(|_| frame(self.ask, self.call.number.wire));
    }
}

fn frame(ask: &Ask<'_>, number: u64) -> Bytes {
    let digits = RawId::from(number);
    let token = ask.envelope.members.meta.progress_token;
    request_frame(number, ask.envelope, token.map(|old| Splice { old, new: digits.as_str() }).as_mut_slice())
}
