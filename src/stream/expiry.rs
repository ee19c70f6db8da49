//! Until when a stream may go on: for as long as the credential holds that its reader has shown last.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The value that stands for no end.
const NEVER: u64 = u64::MAX;

/// The end of the newest credential that was shown for a stream. It only moves to later times. Cheap to clone: all clones are
/// one.
#[derive(Debug, Clone)]
pub struct Expiry {
    base: Instant,
    /// Milliseconds after `base`.
    after: Arc<AtomicU64>,
}

impl Default for Expiry {
    /// Nothing has been shown yet.
    fn default() -> Self {
        Self { base: Instant::now(), after: Arc::default() }
    }
}

impl Expiry {
    /// A credential was shown that holds until `until`; without an end if there is none.
    pub fn extend(&self, until: Option<Instant>) {
        let after = until.map_or(NEVER, |until| {
            u64::try_from(until.saturating_duration_since(self.base).as_millis()).unwrap_or(NEVER)
        });
        self.after.fetch_max(after, Ordering::Relaxed);
    }

    /// When it is over, if ever.
    pub fn at(&self) -> Option<Instant> {
        match self.after.load(Ordering::Relaxed) {
            NEVER => None,
            after => self.base.checked_add(Duration::from_millis(after)),
        }
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.at().is_some_and(|at| at <= Instant::now())
    }
}
