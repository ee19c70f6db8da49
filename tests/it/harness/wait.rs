//! Waiting for conditions.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// The deadline of everything that should happen soon. Far away: it is reached only by what never happens.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const LOOK: Duration = Duration::from_millis(5);

/// Waits for `future`; fails the test if it takes too long.
pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(done) = timeout(PATIENCE, future).await else { panic!("waited in vain for: {what}") };
    done
}

/// Looks until `attempt` finds something; fails the test if it takes too long.
pub(crate) async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        sleep(LOOK).await;
    }
}
