//! Drains a gateway: calls in flight may finish until a deadline, then sessions end, and children are stopped and at
//! last killed.

use std::time::Duration;

use tokio::time::{Instant, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::session::Registry;

/// How often a drain looks whether calls are still in flight.
const LOOK: Duration = Duration::from_millis(20);
/// The least time that children have between the end of their sessions and the kill.
const POLITE: Duration = Duration::from_millis(500);
/// Time for the last answers to be written once children are gone.
const LAST_ANSWERS: Duration = Duration::from_millis(200);
/// Time beyond the drain's for what has been killed to be gone.
const AFTER_KILL: Duration = Duration::from_secs(5);

/// Drains a gateway: waits up to `limit` for calls in flight and for children, then kills the children, and waits some
/// seconds until they are gone. Cancels `kill` when the time is over; an operator in a hurry may have cancelled it
/// before, which ends the waiting. Cancels `stop_children` once no session is left. `tasks` are those of sessions and
/// pools, `connections` those of the public listener.
pub(super) async fn drain(
    sessions: &Registry,
    kill: &CancellationToken,
    stop_children: &CancellationToken,
    tasks: &TaskTracker,
    connections: &TaskTracker,
    limit: Duration,
) {
    let deadline = Instant::now() + limit;
    sessions.drain(limit);
    let mut ticks = interval(LOOK);
    while sessions.is_busy() && Instant::now() < deadline && !kill.is_cancelled() {
        ticks.tick().await;
    }
    sessions.end_all("shutdown");
    stop_children.cancel();
    tasks.close();
    connections.close();
    tokio::select! {
        () = tasks.wait() => {}
        () = sleep_until(deadline.max(Instant::now() + POLITE)) => {}
        () = kill.cancelled() => {}
    }
    let _ = timeout(LAST_ANSWERS, connections.wait()).await;
    kill.cancel();
    tokio::select! {
        () = async { tasks.wait().await; connections.wait().await } => {}
        () = sleep(AFTER_KILL) => {
            tracing::error!(tasks = tasks.len(), connections = connections.len(), "something did not end in time");
        }
    }
}
