//! What a credential proves: who shows it, and until when it does.

use std::time::Duration;

use tokio::time::Instant;

use super::Principal;

/// Who shows a credential that holds.
#[derive(Debug, Clone)]
pub struct Proven {
    /// Who it is.
    pub principal: Principal,
    /// When the credential holds no more, in seconds since the epoch; `None` if it has no end.
    until: Option<u64>,
}

impl Proven {
    /// By a credential without an end.
    pub(super) fn for_good(principal: Principal) -> Self {
        Self { principal, until: None }
    }

    /// By a credential that holds until `until`, in seconds since the epoch.
    pub(super) fn until(principal: Principal, until: u64) -> Self {
        Self { principal, until: Some(until) }
    }

    /// When the credential holds no more, on the clock of timers; `None` if it has no end, or none that a clock reaches.
    pub fn ends(&self) -> Option<Instant> {
        let left = self.until?.saturating_sub(jsonwebtoken::get_current_timestamp());
        Instant::now().checked_add(Duration::from_secs(left))
    }
}
