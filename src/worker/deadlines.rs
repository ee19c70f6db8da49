//! One timer for the deadlines of all calls on a child.

use std::ops::ControlFlow;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Calls `look` at once, then at each deadline that `look` has returned, or when `moved` announces an earlier one,
/// until `look` breaks with a value.
pub(super) async fn keep_watch<T>(
    moved: &Notify,
    mut look: impl FnMut(Instant) -> ControlFlow<T, Option<Instant>>,
) -> T {
    loop {
        let next = match look(Instant::now()) {
            ControlFlow::Break(found) => return found,
            ControlFlow::Continue(next) => next,
        };
        let due = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = moved.notified() => {}
        }
    }
}
