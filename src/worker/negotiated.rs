//! What a session and its child have agreed on: the data that a child in the place of another is brought to.

use std::collections::BTreeSet;

use super::calls::{LeaseId, Multiplexer, Standing};

/// What a session and its child have agreed on. A request that the child has refused is not part of that.
#[derive(Debug, Clone, Default)]
pub struct Negotiated {
    /// Whether the child has received `notifications/initialized`.
    pub(super) initialized: bool,
    /// The log level and the subscriptions, as the requests that a successor is sent in this order.
    pub(super) granted: BTreeSet<Standing>,
}

impl Negotiated {
    /// Reads what a child has granted a session so far.
    pub(super) fn of(multiplexer: &Multiplexer, peer: LeaseId, initialized: bool) -> Self {
        Self { initialized, granted: multiplexer.sharing.granted(peer) }
    }

    /// Whether the session is subscribed to a resource.
    pub fn has_subscriptions(&self) -> bool {
        self.granted.iter().any(Standing::is_subscription)
    }
}
