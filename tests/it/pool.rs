//! Pools through the real gateway: the ceiling, spares, recycling, crashes, and what operators see of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};
use sluice::config::{Isolation, PoolMode, Server};

use crate::harness::{Caller, Gateway, PATIENCE, Request, Sse, fixture, hello, in_time, key};

fn ceiling(max_children: usize, queue_timeout: Duration) -> Server {
    let mut server = fixture("echo");
    server.pool.max_children = max_children;
    server.pool.queue_timeout = queue_timeout;
    // An idle session holds its place.
    server.keep_children = true;
    server
}

fn initialize() -> Value {
    json!({"jsonrpc": "2.0", "id": "i", "method": "initialize", "params": hello("2025-11-25")})
}

#[tokio::test]
async fn at_the_ceiling_sessions_wait_and_then_are_told_to_come_back() {
    let gateway = Gateway::start_with([ceiling(1, Duration::from_millis(300))], |config| {
        // The answer may be a stream by then.
        config.http.keep_alive = Duration::from_millis(100);
    })
    .await;
    let first = gateway.streamable().await;
    let reply = gateway.send(Request::post("/mcp", initialize())).await;
    let error = reply.message()["error"].clone();
    assert_eq!((&error["data"]["type"], &error["data"]["retryable"]), (&json!("pool_full"), &json!(true)));
    assert_eq!(error["data"]["retryAfter"], 1);
    assert!(error["message"].as_str().unwrap().contains("pool.max_children"), "{error}");
    let mut sse = Sse::open(&gateway).await;
    assert_eq!(sse.request("initialize", hello("2024-11-05")).await["error"]["data"]["type"], "pool_full");
    drop(sse);
    let waiting = tokio::spawn({
        let caller = (*gateway).clone();
        async move { caller.send(Request::post("/mcp", initialize())).await }
    });
    gateway.until("it waits", |metrics| metrics.sum("sluice_pool_queue", "") == 1.0).await;
    first.delete().await;
    assert_eq!(waiting.await.unwrap().status, 200);
    gateway.finish().await;
}

#[tokio::test]
async fn tenants_take_turns_however_many_of_each_wait() {
    let mut keys = Vec::new();
    let gateway = Gateway::start_with([ceiling(1, PATIENCE)], |config| {
        keys = vec![key(config, "acme", "ann"), key(config, "else", "bob")];
    })
    .await;
    let (ann, bob) = (gateway.with_key(&keys[0]), gateway.with_key(&keys[1]));
    let first = ann.streamable().await;
    let served = Arc::new(Mutex::new(Vec::new()));
    // Each is served, and leaves.
    let wait = |caller: &Caller, name: &'static str| {
        let (caller, served) = (caller.clone(), Arc::clone(&served));
        tokio::spawn(async move {
            let client = caller.streamable().await;
            served.lock().push(name);
            client.delete().await;
        })
    };
    let mut waiting: Vec<_> = (0..20).map(|_| wait(&ann, "acme")).collect();
    gateway.until("they wait", |metrics| metrics.sum("sluice_pool_queue", "") == 20.0).await;
    waiting.push(wait(&bob, "else"));
    gateway.until("he waits", |metrics| metrics.sum("sluice_pool_queue", "") == 21.0).await;
    first.delete().await;
    for waits in waiting {
        in_time("a turn", waits).await.unwrap();
    }
    let served = served.lock().clone();
    assert_eq!(served.iter().position(|name| *name == "else"), Some(1), "{served:?}");
    gateway.finish().await;
}

#[tokio::test]
async fn a_few_children_are_started_at_a_time() {
    let gateway = Gateway::start_with([fixture("slow-start 200")], |config| config.spawn_concurrency = 2).await;
    let begin = Instant::now();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let caller = (*gateway).clone();
            tokio::spawn(async move { caller.streamable().await.call("pid", json!({})).await })
        })
        .collect();
    gateway
        .until("all are there", |metrics| {
            let starting = metrics.sum("sluice_workers", "starting");
            assert!(starting <= 2.0, "{starting} are being started");
            metrics.sum("sluice_workers", "ready") == 8.0
        })
        .await;
    assert!(begin.elapsed() >= Duration::from_millis(4 * 200), "{:?}", begin.elapsed());
    for client in clients {
        client.await.unwrap();
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_shared_child_that_nobody_uses_makes_room_for_who_waits() {
    let mut server = ceiling(1, Duration::from_secs(15));
    server.isolation = Isolation::Principal;
    let (mut ann, mut bob) = (String::new(), String::new());
    let gateway = Gateway::start_with([server], |config| {
        ann = key(config, "acme", "ann");
        bob = key(config, "acme", "bob");
    })
    .await;
    let first = gateway.with_key(&ann).streamable().await;
    let waiting = tokio::spawn({
        let caller = gateway.with_key(&bob);
        async move { caller.send(Request::post("/mcp", initialize())).await }
    });
    gateway.until("it waits", |metrics| metrics.sum("sluice_pool_queue", "") == 1.0).await;
    first.delete().await;
    assert_eq!(waiting.await.unwrap().status, 200);
    gateway.finish().await;
}

#[tokio::test]
async fn spares_are_there_before_anybody_asks_and_are_replaced() {
    let mut server = fixture("echo");
    server.pool.mode = PoolMode::Dynamic;
    server.pool.min_spare = 2;
    server.pool.max_spare = 2;
    let gateway = Gateway::start(server).await;
    let two = |metrics: &crate::harness::Metrics| metrics.sum("sluice_spare_children", "") == 2.0;
    gateway.until("spares", two).await;
    let mut first = gateway.streamable().await;
    let opened: Value = serde_json::from_str(&first.call("client", json!({})).await).unwrap();
    assert_eq!(opened["clientInfo"]["name"], "test", "it was not opened: the client's own words");
    gateway.until("a third child", |metrics| metrics.children() == 3.0 && two(metrics)).await;
    // One of the next two was opened in advance, for what the first had asked for.
    let mut names = Vec::new();
    for _ in 0..2 {
        let mut client = gateway.streamable().await;
        let opened: Value = serde_json::from_str(&client.call("client", json!({})).await).unwrap();
        names.push(opened["clientInfo"]["name"].as_str().unwrap().to_owned());
        assert_eq!(client.call("notifications_received", json!({})).await, r#"["notifications/initialized"]"#);
    }
    assert!(names.contains(&"sluice".to_owned()), "{names:?}");
    let mut other = gateway.sse().await;
    assert_eq!(other.call("echo", json!({"text": "another version"})).await, "another version");
    gateway.finish().await;
}

#[tokio::test]
async fn a_server_that_keeps_crashing_is_left_alone_and_tried_again() {
    let mut server = fixture("exit 3");
    server.restart.max_crashes = 3;
    server.restart.backoff_min = Duration::from_millis(1);
    server.restart.backoff_max = Duration::from_millis(1);
    server.restart.open = Duration::from_secs(3);
    let gateway = Gateway::start(server).await;
    let mut types = Vec::new();
    let refused = loop {
        let reply = gateway.send(Request::post("/mcp", initialize())).await;
        let kind = reply.message()["error"]["data"]["type"].as_str().unwrap().to_owned();
        types.push(kind.clone());
        assert!(types.len() < 20, "{types:?}");
        if kind == "crash_loop" {
            break reply;
        }
    };
    let error = refused.assert_error(200, -32003, "keeps crashing")["error"].clone();
    assert!(error["data"]["retryAfter"].as_u64().is_some(), "{error}");
    assert!(types.len() >= 3, "{types:?}");
    let ready = gateway.admin().send(Request::get("/readyz")).await;
    let crash_loop = "crash loop: fixture for default, next attempt in ";
    assert!(ready.status == 200 && ready.text.contains(crash_loop), "{ready:?}");
    let circuits = |metrics: &crate::harness::Metrics| {
        let of = |state: &str| metrics.sum("sluice_circuits", &format!("state=\"{state}\""));
        (of("open"), of("half_open"))
    };
    assert_eq!(circuits(&gateway.metrics().await), (1.0, 0.0));
    let public = gateway.send(Request::get("/readyz")).await;
    assert_eq!(
        (public.status, public.text.as_str()),
        (200, "ready\n"),
        "whose trouble it is, is nobody else's business"
    );
    gateway.until("it may be tried again", |metrics| circuits(metrics) == (0.0, 1.0)).await;
    let ready = gateway.admin().send(Request::get("/readyz")).await;
    assert!(ready.text.contains("half-open: fixture for default, the next attempt decides"), "{ready:?}");
    let half_open = async || {
        let reply = gateway.send(Request::post("/mcp", initialize())).await;
        (reply.json()["error"]["data"]["type"] == "server_start_failed").then_some(())
    };
    crate::harness::eventually("another attempt", half_open).await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_killed_child_is_replaced_in_the_time_of_its_start() {
    let gateway = Gateway::start(fixture("slow-start 200")).await;
    let started = Instant::now();
    let mut client = gateway.sse().await;
    let start = started.elapsed();
    client.request("resources/subscribe", json!({"uri": "fixture://note"})).await;
    client.request("tools/list", json!({})).await;
    let pid: i32 = client.call("pid", json!({})).await.parse().unwrap();
    let killed = Instant::now();
    let process = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    crate::harness::eventually("another child", async || {
        let workers = gateway.admin().send(Request::get("/workers")).await.json();
        workers.as_array().unwrap().iter().any(|worker| worker["pid"] != pid).then_some(())
    })
    .await;
    let other = client.call("pid", json!({})).await;
    let recovery = killed.elapsed();
    println!("a start took {start:?}, recovery from kill -9 took {recovery:?}");
    assert!(recovery <= start + Duration::from_millis(300), "{recovery:?} after a start of {start:?}");
    assert_ne!(other, pid.to_string());
    assert_eq!(client.call("subscriptions", json!({})).await, r#"["fixture://note"]"#);
    assert_eq!(client.call("notifications_received", json!({})).await, r#"["notifications/initialized"]"#);
    let said: Vec<_> = client.unsolicited.iter().map(|message| message["method"].as_str().unwrap()).collect();
    let changed = ["tools", "prompts", "resources"].map(|list| format!("notifications/{list}/list_changed"));
    assert_eq!(said, changed, "each once");
    let workers = gateway.admin().send(Request::get("/workers")).await.json();
    let mine =
        workers.as_array().unwrap().iter().find(|worker| worker["pid"] == other.parse::<u64>().unwrap()).unwrap();
    assert_eq!((&mine["server"], &mine["state"], &mine["sessions"]), (&json!("fixture"), &json!("ready"), &json!(1)));
    gateway.finish().await;
}
