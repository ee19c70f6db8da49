//! A request for a child whose frame is written before the tables are locked, so that the lock is held for a short time.

use std::borrow::Cow;

use bytes::Bytes;

use super::call::Ask;
use super::numbers;
use super::subscriptions::URI;
use crate::jsonrpc::{Code, RawId, Splice, error_response, request_frame, text};
use crate::mcp::{LONGEST_LABEL, ambiguity, method, task_asked_about};

/// A request that is ready to be put to a child.
#[derive(Debug)]
pub(in crate::worker) struct Draft<'a> {
    /// The request.
    pub(in crate::worker) ask: &'a Ask<'a>,
    /// The number that the child is to know the request by.
    pub(super) number: u64,
    /// The frame for the child; or the answer, where the request is refused whatever else there is.
    pub(super) frame: Result<Bytes, Bytes>,
    pub(super) original: RawId,
    /// The URI that is subscribed to, or no more; `None` where it is no text.
    pub(super) uri: Option<String>,
    /// The task that the request asks about.
    pub(super) task: Option<String>,
}

impl<'a> Draft<'a> {
    /// Makes the frame of a request. `None` where it has no id.
    pub(in crate::worker) fn new(ask: &'a Ask<'a>) -> Option<Self> {
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
        let uri = ask.envelope.members.uri.filter(|_| is_subscription).and_then(text).map(Cow::into_owned);
        Some(Self { ask, number, frame, original, uri, task: task_asked_about(ask.envelope) })
    }

    /// The child has the number for something else already.
    pub(super) fn renumber(&mut self) {
        self.number = numbers::for_call(|_| false);
        self.frame = self.frame.clone().map(|_| frame(self.ask, self.number));
    }

    /// Whether the URI is longer than what sessions may subscribe to.
    pub(super) fn has_long_uri(&self) -> bool {
        self.uri.as_ref().is_some_and(|uri| uri.len() > URI)
    }
}

fn frame(ask: &Ask<'_>, number: u64) -> Bytes {
    let digits = RawId::from(number);
    let token = ask.envelope.members.meta.progress_token;
    request_frame(number, ask.envelope, token.map(|old| Splice { old, new: digits.as_str() }).as_mut_slice())
}
