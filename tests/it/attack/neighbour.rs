//! Another tenant, who calls all the time while somebody attacks, and measures how long that takes.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::harness::{Caller, Request, in_time};
use crate::talk::{Client, Wire};

/// A pause between two calls.
const PAUSE: Duration = Duration::from_millis(5);
/// No call may take longer while somebody attacks.
pub(crate) const QUICK: Duration = Duration::from_secs(1);

/// A client that must not notice anything.
pub(crate) struct Neighbour {
    stop: CancellationToken,
    task: JoinHandle<Vec<Duration>>,
}

impl Neighbour {
    /// Opens a session, and begins to call `echo`, and `/healthz` in between.
    pub(crate) async fn watch(caller: Caller) -> Self {
        let client = Client::open(&caller, Wire::Streamable).await;
        let stop = CancellationToken::new();
        let task = tokio::spawn(call_on(client, caller, stop.clone()));
        Self { stop, task }
    }

    /// Ends it: every call was answered, and none was slow. Returns how long they took, the shortest first.
    pub(crate) async fn unharmed(self) -> Vec<Duration> {
        self.stop.cancel();
        let mut took = in_time("the neighbour ends", self.task).await.expect("the neighbour has noticed");
        took.sort_unstable();
        assert!(took.last().is_some_and(|slowest| *slowest < QUICK), "the slowest took {:?}", took.last());
        took
    }
}

async fn call_on(client: Client, caller: Caller, stop: CancellationToken) -> Vec<Duration> {
    let mut took = Vec::new();
    loop {
        let text = format!("call {}", took.len());
        let begin = Instant::now();
        assert_eq!(client.text("echo", json!({"text": text})).await, text);
        took.push(begin.elapsed());
        let begin = Instant::now();
        assert_eq!(caller.send(Request::get("/healthz")).await.status, 200);
        took.push(begin.elapsed());
        if timeout(PAUSE, stop.cancelled()).await.is_ok() {
            client.close().await;
            return took;
        }
    }
}
