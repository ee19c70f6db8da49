//! A server that keeps crashing is started again after pauses, then left alone, then tried once; and nobody pays for it whose
//! server it is not.

use std::time::Duration;

use serde_json::json;
use sluice::config::{Isolation, PoolMode, Restart, Server};

use crate::harness::{Caller, Gateway, Request, eventually, fixture, hello, key, named};
use crate::scene::switchable;

const HOUR: Duration = Duration::from_secs(3600);

/// Tried so many times, with hardly a pause, and then left alone.
fn fragile(mut server: Server, max_crashes: usize, open: Duration) -> Server {
    let pause = Duration::from_millis(1);
    let usual = server.restart;
    server.restart = Restart { backoff_min: pause, backoff_max: pause, max_crashes, open, window: HOUR, ..usual };
    server
}

/// The type of the error that `initialize` gets, and the status.
async fn refusal(caller: &Caller) -> (String, u16) {
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello("2025-11-25")});
    let reply = caller.send(Request::post(&caller.path("/mcp"), message)).await;
    (reply.json()["error"]["data"]["type"].as_str().unwrap_or_default().to_owned(), reply.status)
}

async fn crash_loops(gateway: &Gateway) -> String {
    let ready = gateway.admin().send(Request::get("/readyz")).await;
    assert_eq!(ready.status, 200, "{ready:?}");
    ready.text.strip_prefix("ready\n").unwrap().to_owned()
}

async fn until_left_alone(gateway: &Gateway) -> String {
    eventually("it is left alone", async || Some(crash_loops(gateway).await).filter(|loops| !loops.is_empty())).await
}

/// Callers of two tenants.
async fn two_tenants(servers: impl IntoIterator<Item = Server>, spawn_concurrency: usize) -> (Gateway, [Caller; 2]) {
    let mut keys = (String::new(), String::new());
    let gateway = Gateway::start_with(servers, |config| {
        keys = (key(config, "acme", "ann"), key(config, "umbrella", "eve"));
        config.spawn_concurrency = spawn_concurrency;
    })
    .await;
    let callers = [gateway.with_key(&keys.0), gateway.with_key(&keys.1)];
    (gateway, callers)
}

#[tokio::test]
async fn a_child_that_all_share_has_one_circuit_that_names_nobody() {
    let mut server = fragile(fixture("exit 3"), 3, HOUR);
    server.isolation = Isolation::Shared;
    let (gateway, [ann, eve]) = two_tenants([server], 8).await;
    // They take turns in starting it: what has crashed for one has crashed for both.
    for caller in [&ann, &eve, &ann] {
        assert_eq!(refusal(caller).await, ("server_start_failed".to_owned(), 200));
    }
    for caller in [&ann, &eve] {
        assert_eq!(refusal(caller).await, ("crash_loop".to_owned(), 503));
    }
    assert_eq!(crash_loops(&gateway).await, "crash loop: fixture, for all\n");
    gateway.finish().await;
}

#[tokio::test]
async fn spares_that_end_before_anybody_has_them_are_left_alone_too() {
    let (server, mode) = switchable(&["exit", "3"]);
    let mut server = fragile(server, 4, Duration::from_millis(1500));
    server.pool.mode = PoolMode::Dynamic;
    (server.pool.min_spare, server.pool.max_spare) = (2, 2);
    let (gateway, [ann, _]) = two_tenants([server], 8).await;
    assert_eq!(until_left_alone(&gateway).await, "crash loop: fixture, its spares\n");
    let spawned = gateway.metrics().await.sum("sluice_children_spawned_total", "");
    assert!(spawned <= 8.0, "two each time, four times: {spawned}");
    assert_eq!(refusal(&ann).await.0, "server_start_failed", "a tenant has a circuit of its own");
    mode.set(&["echo"]);
    gateway.until("spares, after a while", |metrics| metrics.sum("sluice_spare_children", "") == 2.0).await;
    let mut client = ann.streamable().await;
    assert_eq!(client.call("echo", json!({"text": "at last"})).await, "at last");
    // The next one is opened in advance: now it is known to work.
    gateway.until("an open spare", |metrics| metrics.sum("sluice_workers", "state=\"ready\"") >= 2.0).await;
    assert_eq!(crash_loops(&gateway).await, "");
    gateway.finish().await;
}

#[tokio::test]
async fn starts_of_one_tenant_that_come_to_nothing_do_not_hold_up_those_of_others() {
    let mut hung = named("hung", fixture("never-initialize"));
    hung.pool.queue_timeout = Duration::ZERO;
    let (gateway, [ann, eve]) = two_tenants([hung, named("well", fixture("echo"))], 2).await;
    let waiting: Vec<_> = (0..16)
        .map(|_| {
            let caller = ann.server("hung");
            tokio::spawn(async move { refusal(&caller).await })
        })
        .collect();
    gateway.until("two are being started", |metrics| metrics.children() == 2.0).await;
    let mut client = eve.server("well").streamable().await;
    assert_eq!(client.call("echo", json!({"text": "in turn"})).await, "in turn");
    let told = eventually("the last ones are told to come back", async || {
        waiting.iter().find(|task| task.is_finished()).map(|_| ())
    });
    told.await;
    let mut kinds: Vec<(String, u16)> = Vec::new();
    for task in waiting.into_iter().filter(tokio::task::JoinHandle::is_finished) {
        kinds.push(task.await.unwrap());
    }
    assert!(kinds.iter().all(|kind| *kind == ("spawn_full".to_owned(), 503)), "{kinds:?}");
    gateway.kill().await;
}
