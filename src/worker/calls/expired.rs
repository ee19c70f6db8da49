//! Calls and server requests that end without an answer.

use std::time::Duration;

use bytes::Bytes;

use super::{Call, InFlight, LeaseId};
use crate::jsonrpc::RawId;
use crate::stream::Exchange;
use std::sync::Arc;

/// Calls and server requests that end without an answer: they timed out, or their session or child has gone.
#[derive(Debug, Default)]
pub(in crate::worker) struct Expired {
    /// The calls to fail.
    #[expect(clippy::vec_box, reason = "a call is large, and moves as a pointer")]
    pub(in crate::worker) calls: Vec<Box<Call>>,
    /// Requests to fail that waited for the answers to these calls.
    pub(in crate::worker) waiting: Vec<Waiting>,
    /// Server requests that clients need no longer answer, and the cancellation for each client.
    pub(in crate::worker) withdrawn: Vec<(Withdrawn, Bytes)>,
    /// Frames for the child: cancellations, and errors that answer server requests.
    pub(in crate::worker) frames: Vec<Bytes>,
}

/// A server request that is over before its client has answered.
#[derive(Debug)]
pub(in crate::worker) struct Withdrawn {
    /// The session that was asked.
    pub(in crate::worker) peer: LeaseId,
    /// The id of the request towards the client.
    pub(in crate::worker) number: u64,
    /// The calls of the session at that moment.
    pub(in crate::worker) in_flight: InFlight,
}

/// A `resources/subscribe` that waits for the answer to the subscribe of another session for the same URI.
#[derive(Debug)]
pub(in crate::worker) struct Waiting {
    pub(in crate::worker) peer: LeaseId,
    pub(in crate::worker) id: RawId,
    pub(in crate::worker) exchange: Arc<Exchange>,
    /// The call time-out, for the error text.
    pub(in crate::worker) timeout: Duration,
    /// Whether the gateway made the request, and no client.
    pub(in crate::worker) is_own: bool,
}
