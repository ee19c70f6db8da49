//! A task of the gateway that panics ends what it owns, and who waits for it is answered.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use sluice::config::Isolation;
use tracing::field::Field;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

use crate::harness::{Gateway, eventually, fixture, named};
use crate::scene::{BOTH, Client};

/// The server whose start panics, where it is logged that the child runs.
const FRAGILE: &str = "fragile-in-this-test";
/// Whether it does.
static PANICS: AtomicBool = AtomicBool::new(false);

/// A log that panics.
struct Log;

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut said = String::new();
        event.record(&mut |field: &Field, value: &dyn std::fmt::Debug| said += &format!("{field}={value:?} "));
        let is_the_start = said.contains("child started") && said.contains(FRAGILE);
        assert!(!(is_the_start && PANICS.load(Ordering::Relaxed)), "on purpose");
    }
}

#[tokio::test]
async fn an_initialize_whose_task_panics_is_answered_and_its_child_ended() {
    // Where the log of a test is wanted there is another one.
    if tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Log)).is_ok() {
        for isolation in [Isolation::Session, Isolation::Shared] {
            starts_panic(isolation).await;
        }
    }
}

async fn starts_panic(isolation: Isolation) {
    let mut server = named(FRAGILE, fixture("echo"));
    server.isolation = isolation;
    server.pool.max_children = 1;
    server.keep_children = true;
    server.restart.max_crashes = 1000;
    let gateway = Gateway::start(server).await;
    PANICS.store(true, Ordering::Relaxed);
    for wire in BOTH {
        let client = Client::connect(&gateway, wire).await;
        let answer = client.initialize().await;
        assert_eq!(answer["error"]["data"]["type"], "internal_error", "{answer}");
        eventually("the child is ended", async || gateway.processes().is_empty().then_some(())).await;
        client.close().await;
    }
    PANICS.store(false, Ordering::Relaxed);
    // Neither the only place for a child nor a turn to start one is lost.
    for wire in BOTH {
        let client = Client::open(&gateway, wire).await;
        assert_eq!(client.text("echo", json!({"text": "back"})).await, "back");
        client.close().await;
        if isolation == Isolation::Session {
            gateway.until("its child has ended", |metrics| metrics.children() == 0.0).await;
        }
    }
    gateway.finish().await;
}
