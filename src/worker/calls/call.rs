//! A call in flight on a child, and the request that it is made of.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{LeaseId, Number, NumberHasher};
use crate::jsonrpc::{Envelope, RawId};
use crate::mcp::method;
use crate::stream::Exchange;

/// The calls in flight, by the number of each. In no order: the numbers are random.
pub(super) type Calls = HashMap<u64, Box<Call>, BuildHasherDefault<NumberHasher>>;

/// A call in flight. Held in a box, which moves from its draft to the table and from there to its answer.
#[derive(Debug)]
pub(in crate::worker) struct Call {
    /// The number that the child knows the call by.
    pub(super) number: Number,
    pub(in crate::worker) peer: LeaseId,
    /// The client's id of the call.
    pub(in crate::worker) original: RawId,
    pub(in crate::worker) exchange: Arc<Exchange>,
    pub(in crate::worker) method: &'static str,
    pub(in crate::worker) started: Instant,
    /// Whether the gateway makes the call, and no client.
    pub(in crate::worker) is_own: bool,
    /// The id of the task that the call asks about.
    pub(super) task: Option<String>,
    /// Whether the client accepts a task as the answer.
    pub(super) may_make_task: bool,
    pub(super) progress_token: Option<RawId>,
    /// Whether the params have no cursor: a list request for the first page.
    pub(in crate::worker) is_first_page: bool,
    /// The data to send the call again after a crash; `None` if the call is not sent again.
    pub(in crate::worker) kept: Option<Kept>,
    pub(super) deadline: Instant,
    pub(super) timeout: Duration,
}

impl Call {
    /// The time-out of the call. Progress starts the time anew.
    pub(in crate::worker) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether the call is the `initialize` of the child.
    pub(in crate::worker) fn is_initialize(&self) -> bool {
        self.method == method::INITIALIZE
    }
}

/// The data to send a call again after a crash.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The client's message.
    pub message: Bytes,
    /// The name of the called tool.
    pub tool: Arc<str>,
}

/// A request for the child.
#[derive(Debug)]
pub struct Ask<'a> {
    /// The parsed request.
    pub envelope: &'a Envelope<'a>,
    /// The destination of the answer.
    pub exchange: &'a Arc<Exchange>,
    /// The time-out; progress starts the time anew.
    pub timeout: Duration,
    /// Whether the gateway makes the request, for example in a replay. Such a request does not count as use of the
    /// child by a client, and messages of the child are not attributed to it.
    pub is_own: bool,
}
