//! The time at which a long-lived stream has to end: the expiry of the newest credential that its reader has shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Stands for "does not expire".
const NEVER: u64 = u64::MAX;

/// The expiry of the newest credential shown for a stream. The expiry only moves to later times. Clones share one
/// value.
#[derive(Debug, Clone)]
pub struct Expiry {
    base: Instant,
    /// Milliseconds from `base` to the expiry, or [`NEVER`].
    after: Arc<AtomicU64>,
}

impl Default for Expiry {
    /// No credential has been shown: the expiry is now.
    fn default() -> Self {
        Self { base: Instant::now(), after: Arc::default() }
    }
}

impl Expiry {
    /// Records a credential that is valid until `until`, or without end if `until` is `None`.
    pub fn extend(&self, until: Option<Instant>) {
        let after = until.map_or(NEVER, |until| {
            u64::try_from(until.saturating_duration_since(self.base).as_millis()).unwrap_or(NEVER)
        });
        self.after.fetch_max(after, Ordering::Relaxed);
    }

    /// The time of expiry. `None` if the credential does not expire.
    pub fn at(&self) -> Option<Instant> {
        match self.after.load(Ordering::Relaxed) {
            NEVER => None,
            after => self.base.checked_add(Duration::from_millis(after)),
        }
    }

    /// Whether the credential has expired.
    pub fn is_over(&self) -> bool {
        self.at().is_some_and(|at| at <= Instant::now())
    }
}
