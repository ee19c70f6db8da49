//! A call in flight on a child, and the request that it is made of.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::lease_id::LeaseId;
use super::numbers::{Number, NumberHasher};
use crate::jsonrpc::{Envelope, RawId};
use crate::mcp::method;
use crate::stream::Exchange;

/// The calls in flight, by the number of each. In no order: the numbers are random.
pub(super) type Calls = HashMap<u64, Box<Call>, BuildHasherDefault<NumberHasher>>;

/// A call in flight. Held in a box, which moves from its draft to the table and from there to its answer.
#[derive(Debug)]
pub(in crate::worker) struct Call {
    /// The number that the child knows it by.
    pub(super) number: Number,
    pub(in crate::worker) peer: LeaseId,
    pub(in crate::worker) original: RawId,
    pub(in crate::worker) exchange: Arc<Exchange>,
    pub(in crate::worker) method: &'static str,
    pub(in crate::worker) started: Instant,
    /// Whether it is the gateway's, and no client's.
    pub(in crate::worker) is_own: bool,
    /// The task that it asks about.
    pub(super) task: Option<String>,
    /// Whether it may be answered with a task.
    pub(super) may_make_task: bool,
    pub(super) progress_token: Option<RawId>,
    /// Whether it asks for the first page of a list.
    pub(in crate::worker) is_first_page: bool,
    /// What another child would need, should this one crash.
    pub(in crate::worker) kept: Option<Kept>,
    pub(super) deadline: Instant,
    pub(super) timeout: Duration,
}

impl Call {
    /// The time that it was given.
    pub(in crate::worker) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether the call is the `initialize` of the child.
    pub(in crate::worker) fn is_initialize(&self) -> bool {
        self.method == method::INITIALIZE
    }
}

/// What is kept of a call in flight, to send it again.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The client's message.
    pub message: Bytes,
    /// The tool that is called.
    pub tool: Arc<str>,
}

/// A request on its way to the child.
#[derive(Debug)]
pub struct Ask<'a> {
    /// What was read of it.
    pub envelope: &'a Envelope<'a>,
    /// Where the answer goes.
    pub exchange: &'a Arc<Exchange>,
    /// Time until the answer; progress starts it anew.
    pub timeout: Duration,
    /// Whether the gateway asks for itself, such as when it tells a child what the one before it was told. That is no use
    /// that a client makes of the child, and what the child says meanwhile is not for the gateway.
    pub is_own: bool,
}
