//! Two clients that have nothing to do with what a test does to the gateway, and should not notice.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Caller, Sse, Streamable};

/// A client on each transport, with the children that they have had from the beginning.
#[derive(Debug)]
pub(crate) struct Bystander {
    sse: Sse,
    streamable: Streamable,
    children: [String; 2],
}

impl Bystander {
    pub(super) async fn of(caller: &Caller) -> Self {
        let (mut sse, mut streamable) = (caller.sse().await, caller.streamable().await);
        let children = [sse.call("pid", json!({})).await, streamable.call("pid", json!({})).await];
        Self { sse, streamable, children }
    }

    /// Asserts that both sessions go on, with the same children as ever, and have got nothing that is not theirs.
    pub(crate) async fn unharmed(&mut self) {
        self.call().await;
        let children = [self.sse.call("pid", json!({})).await, self.streamable.call("pid", json!({})).await];
        assert_eq!(children, self.children, "the bystander's children were exchanged");
        assert!(self.sse.unsolicited.is_empty(), "the bystander has got {:?}", self.sse.unsolicited);
    }

    /// Calls on both sessions; returns how long the slower call took.
    pub(crate) async fn call(&mut self) -> Duration {
        let mut slowest = Duration::ZERO;
        let started = Instant::now();
        assert_eq!(self.sse.call("echo", json!({"text": "over SSE"})).await, "over SSE");
        slowest = slowest.max(started.elapsed());
        let started = Instant::now();
        assert_eq!(self.streamable.call("echo", json!({"text": "over HTTP"})).await, "over HTTP");
        slowest.max(started.elapsed())
    }
}
