//! The result of a successful authentication: the principal and the expiry of the credential.

use std::time::Duration;

use tokio::time::Instant;

use super::Principal;

/// A principal whose credential has been checked.
#[derive(Debug, Clone)]
pub struct Proven {
    /// The principal.
    pub principal: Principal,
    /// The expiry of the credential in seconds since the epoch. `None` if it does not expire.
    until: Option<u64>,
}

impl Proven {
    /// The result for a credential that does not expire.
    pub(super) fn for_good(principal: Principal) -> Self {
        Self { principal, until: None }
    }

    /// The result for a credential that expires at `until`, in seconds since the epoch.
    pub(super) fn until(principal: Principal, until: u64) -> Self {
        Self { principal, until: Some(until) }
    }

    /// The expiry of the credential on the clock of timers. `None` if it does not expire, or beyond the range of that
    /// clock.
    pub fn ends(&self) -> Option<Instant> {
        let left = self.until?.saturating_sub(jsonwebtoken::get_current_timestamp());
        Instant::now().checked_add(Duration::from_secs(left))
    }
}
