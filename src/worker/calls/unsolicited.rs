//! Messages of a child that no call asked for, and the calls that may have caused them.

use std::sync::Arc;

use crate::stream::Exchange;

/// What a server sends without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsolicited {
    /// A request: sampling, elicitation, roots.
    Request,
    /// A notification that may well belong to a call in flight, such as a log message.
    Notification,
    /// A notification about the server as a whole (`list_changed`, `resources/updated`): it belongs to no call.
    Announcement,
}

/// The calls that may have caused it: stdio does not say which one did.
#[derive(Debug, Clone, Default)]
pub struct InFlight {
    /// How many calls are in flight.
    pub count: usize,
    /// The exchange of the latest.
    pub latest: Option<Arc<Exchange>>,
}
