//! Messages of a child that answer no call, and the calls that may have caused them.

use std::sync::Arc;

use crate::stream::Exchange;

/// The kind of a message of the server that answers no call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsolicited {
    /// A request: sampling, elicitation, roots.
    Request,
    /// A notification that may belong to a call in flight, such as a log message.
    Notification,
    /// A notification that belongs to no call: `list_changed`, `resources/updated`, the completion of an elicitation.
    Announcement,
}

/// The calls of one session that may have caused a message: stdio does not say which one did.
#[derive(Debug, Clone, Default)]
pub struct InFlight {
    /// How many calls are in flight.
    pub count: usize,
    /// The exchange of the latest call; `None` if none is in flight.
    pub latest: Option<Arc<Exchange>>,
}
