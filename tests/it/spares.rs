//! Children that are started before anybody asks: how many, for whom, and what becomes of those that nobody can use.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice::config::{Isolation, PoolMode, Server};

use crate::harness::{Caller, Gateway, Metrics, Request, Streamable, eventually, fixture, in_time, key, named};
use crate::scene::switchable;

fn spares(metrics: &Metrics) -> f64 {
    metrics.sum("sluice_spare_children", "")
}

fn spawned(metrics: &Metrics) -> f64 {
    metrics.sum("sluice_children_spawned_total", "")
}

fn dynamic(mut server: Server, least: usize, most: usize) -> Server {
    server.pool.mode = PoolMode::Dynamic;
    server.pool.min_spare = least;
    server.pool.max_spare = most;
    server
}

/// A session of a client with these capabilities: the session's id.
async fn open(caller: &Caller, capabilities: &Value) -> String {
    let client = json!({"name": "a client", "version": "1"});
    let params = json!({"protocolVersion": "2025-06-18", "capabilities": capabilities, "clientInfo": client});
    let message = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
    let reply = caller.send(Request::post(&caller.path("/mcp"), message)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.header("mcp-session-id").unwrap().to_owned()
}

/// What its child was told by `initialize`.
async fn told(caller: &Caller, session: &str) -> Value {
    let params = json!({"name": "client", "arguments": {}});
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    let request = Request::post(&caller.path("/mcp"), message).header("Mcp-Session-Id", session);
    let reply = caller.send(request).await.json();
    serde_json::from_str(reply["result"]["content"][0]["text"].as_str().unwrap()).unwrap()
}

async fn is_warm(caller: &Caller, capabilities: &Value) -> bool {
    let session = open(caller, capabilities).await;
    told(caller, &session).await["clientInfo"]["name"] == "sluice"
}

#[tokio::test]
async fn a_static_pool_is_always_full() {
    for isolation in [Isolation::Session, Isolation::Shared] {
        let mut server = fixture("echo");
        server.isolation = isolation;
        server.pool.mode = PoolMode::Static;
        server.pool.max_children = 4;
        server.pool.idle_timeout = Duration::from_millis(100);
        let gateway = Gateway::start(server).await;
        let full = |metrics: &Metrics| metrics.children() == 4.0 && spares(metrics) == 4.0;
        gateway.until("all are there", full).await;
        for _ in 0..2 {
            let mut clients: Vec<Streamable> = Vec::new();
            for _ in 0..3 {
                clients.push(gateway.streamable().await);
                clients.last_mut().unwrap().call("pid", json!({})).await;
            }
            let left = if isolation == Isolation::Session { 1.0 } else { 3.0 };
            gateway.until("the rest waits", |m| m.children() == 4.0 && spares(m) == left).await;
            for client in &clients {
                client.delete().await;
            }
            gateway.until("all are there again", full).await;
        }
        gateway.finish().await;
    }
}

#[tokio::test]
async fn spares_are_opened_for_what_the_latest_clients_ask_for() {
    let gateway = Gateway::start(dynamic(fixture("echo"), 1, 2)).await;
    let (plain, asking) = (json!({}), json!({"sampling": {}, "roots": {"listChanged": true}}));
    // Nobody has asked before: what is there serves everybody.
    gateway.until("one is there", |metrics| spares(metrics) == 1.0).await;
    open(&gateway, &plain).await;
    for capabilities in [&plain, &asking] {
        gateway.until("one is there", |metrics| spares(metrics) >= 1.0).await;
        eventually("it is for such clients", async || is_warm(&gateway, capabilities).await.then_some(())).await;
    }
    // From now on there is one for each kind, so that clients that differ can come in turns.
    for capabilities in [&plain, &asking, &plain, &asking] {
        gateway.until("two are there", |metrics| spares(metrics) == 2.0).await;
        assert!(is_warm(&gateway, capabilities).await, "{capabilities}");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn spares_that_nobody_would_take_are_replaced() {
    let mut server = fixture("echo");
    server.pool.mode = PoolMode::Static;
    server.pool.max_children = 3;
    server.pool.idle_timeout = Duration::from_millis(300);
    let gateway = Gateway::start(server).await;
    let (plain, asking) = (json!({}), json!({"sampling": {}}));
    let opened = |metrics: &Metrics, sessions: f64| {
        metrics.sum("sluice_workers", "ready") == 3.0 && spares(metrics) == 3.0 - sessions
    };
    // Whatever is there already is for everybody, so all of them are taken.
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(open(&gateway, &plain).await);
    }
    for session in sessions {
        let request = Request::new("DELETE", "/mcp").header("Mcp-Session-Id", &session);
        assert_eq!(gateway.send(request).await.status, 200);
    }
    gateway.until("all are for plain clients", |metrics| opened(metrics, 0.0) && spawned(metrics) == 6.0).await;
    assert!(!is_warm(&gateway, &asking).await, "one of them had to go for it");
    gateway.until("the others are gone too", |metrics| opened(metrics, 1.0) && spawned(metrics) == 9.0).await;
    for _ in 0..2 {
        assert!(is_warm(&gateway, &asking).await);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn what_a_client_says_of_itself_is_told_to_no_spare() {
    let mut keys = Vec::new();
    let gateway = Gateway::start_with([dynamic(fixture("echo"), 1, 1)], |config| {
        keys = vec![key(config, "acme", "ann"), key(config, "else", "bob")];
    })
    .await;
    let (ann, bob) = (gateway.with_key(&keys[0]), gateway.with_key(&keys[1]));
    let own = json!({"experimental": {"x-login": {"token": "secret"}}});
    for _ in 0..2 {
        gateway.until("one is there", |metrics| spares(metrics) == 1.0).await;
        let session = open(&ann, &own).await;
        assert_eq!(told(&ann, &session).await["capabilities"], own, "her own child");
        gateway.until("another is there", |metrics| spares(metrics) == 1.0).await;
        let session = open(&bob, &own).await;
        let opened = told(&bob, &session).await;
        assert_eq!(opened["clientInfo"]["name"], "a client", "it was not opened for her: {opened}");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn spares_that_do_not_last_are_tried_less_and_less() {
    for mode in ["exit 3", "exit-after-initialize 0", "initialize-error"] {
        let (server, switch) = switchable(&["echo"]);
        let mut server = named("fixture", dynamic(server, 1, 1));
        server.restart.max_crashes = 3;
        server.restart.backoff_min = Duration::from_millis(1);
        server.restart.backoff_max = Duration::from_millis(1);
        server.restart.open = Duration::from_secs(2);
        let gateway = Gateway::start(server).await;
        gateway.until("one is there", |metrics| spares(metrics) == 1.0).await;
        // From now on they are opened before anybody comes.
        let session = open(&gateway, &json!({})).await;
        gateway.until("another is there", |metrics| spares(metrics) == 1.0).await;
        switch.set(&mode.split(' ').collect::<Vec<_>>());
        open(&gateway, &json!({})).await;
        let loops = async || {
            let ready = gateway.admin().send(Request::get("/readyz")).await;
            assert_eq!(ready.status, 200);
            ready.text.contains("crash loop: fixture, its spares").then_some(())
        };
        eventually("they are left alone", loops).await;
        let tried = spawned(&gateway.metrics().await);
        assert!(tried <= 6.0, "{mode}: {tried} children were started");
        // The sessions that are there go on, and then spares do too.
        assert_eq!(told(&gateway, &session).await["capabilities"], json!({}));
        switch.set(&["echo"]);
        gateway.until("one is there", |metrics| spares(metrics) == 1.0).await;
        assert!(spawned(&gateway.metrics().await) <= tried + 2.0, "{mode}");
        eventually("they are tried again", async || loops().await.is_none().then_some(())).await;
        gateway.finish().await;
    }
}

#[tokio::test]
async fn many_servers_start_their_spares_a_few_at_a_time_and_sessions_come_first() {
    let names = ["a", "b", "c", "d", "e"];
    let mut servers: Vec<Server> = names.iter().map(|name| named(name, dynamic(fixture("echo"), 1, 1))).collect();
    servers.push(named("ondemand", fixture("echo")));
    let begin = Instant::now();
    let gateway = Gateway::start_with(servers, |config| config.spawn_concurrency = 3).await;
    gateway.until("some are there", |metrics| spares(metrics) >= 1.0).await;
    let mut client = gateway.server("ondemand").streamable().await;
    assert_eq!(client.call("echo", json!({"text": "at once"})).await, "at once");
    assert!(spares(&gateway.metrics().await) < 5.0, "it did not wait for all of them");
    gateway.until("all are there", |metrics| spares(metrics) == 5.0).await;
    // Two, then two, then the last one.
    assert!(begin.elapsed() >= Duration::from_secs(2), "{:?}", begin.elapsed());
    gateway.finish().await;
}

#[tokio::test]
async fn who_gives_up_on_a_cold_start_does_not_begin_it_anew_for_others() {
    let mut server = fixture("slow-start 1000");
    server.isolation = Isolation::Shared;
    let gateway = Gateway::start(server).await;
    let first = tokio::spawn({
        let caller = (*gateway).clone();
        async move { caller.streamable().await }
    });
    gateway.until("it starts", |metrics| spawned(metrics) == 1.0).await;
    first.abort();
    assert!(first.await.is_err());
    let others: Vec<_> = (0..5)
        .map(|_| {
            let caller = (*gateway).clone();
            tokio::spawn(async move { caller.streamable().await.call("pid", json!({})).await })
        })
        .collect();
    let mut pids = Vec::new();
    for other in others {
        pids.push(in_time("the same start", other).await.unwrap());
    }
    pids.dedup();
    assert_eq!((pids.len(), spawned(&gateway.metrics().await)), (1, 1.0));
    gateway.finish().await;
}
