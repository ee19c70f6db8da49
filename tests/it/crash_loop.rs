//! A server that keeps crashing is started again after pauses, then left alone, then tried once; and nobody pays for it
//! whose server it is not.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use sluice::config::{Isolation, PoolMode, Restart, Server};

use crate::harness::{Caller, Gateway, PATIENCE, Request, eventually, fixture, hello, key, named};
use crate::proc;
use crate::scene::{Scene, Wire, switchable};

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
    (reply.message()["error"]["data"]["type"].as_str().unwrap_or_default().to_owned(), reply.status)
}

async fn crash_loops(gateway: &Gateway) -> String {
    let ready = gateway.admin().send(Request::get("/readyz")).await;
    assert_eq!(ready.status, 200, "{ready:?}");
    ready.text.strip_prefix("ready\n").unwrap().to_owned()
}

async fn until_left_alone(gateway: &Gateway) -> String {
    eventually("it is left alone", async || Some(crash_loops(gateway).await).filter(|loops| !loops.is_empty())).await
}

#[tokio::test]
async fn what_the_gateway_asks_for_itself_is_no_progress() {
    let scene = Scene::of(fragile(fixture("exit-after-subscribe 7"), 3, HOUR)).await;
    let client = scene.open(Wire::Sse).await;
    // The client has had this; from now on, each child answers the same to the gateway, and crashes.
    assert!(client.request("resources/subscribe", json!({"uri": "fixture://note"})).await["result"].is_object());
    assert!(until_left_alone(&scene.gateway).await.starts_with("crash loop: subject for acme, next attempt in "));
    assert_eq!(scene.counts().await.spawned(), 3);
    client.close().await;
    scene.finish().await;
}

#[tokio::test]
async fn a_server_that_ends_unasked_is_missed_though_it_says_success() {
    let scene = Scene::of(fragile(fixture("exit-after-initialize 0"), 3, HOUR)).await;
    let client = scene.connect(Wire::Sse).await;
    assert!(client.initialize().await["result"].is_object());
    assert!(until_left_alone(&scene.gateway).await.starts_with("crash loop: subject for acme, next attempt in "));
    assert_eq!((scene.counts().await.spawned(), scene.counts().await.exits("finished")), (3, 3));
    client.close().await;
    scene.finish().await;
}

#[tokio::test]
async fn a_client_that_only_listens_gets_another_child_in_the_end() {
    let (mut server, mode) = switchable(&["echo"]);
    let (least, most) = (Duration::from_millis(40), Duration::from_millis(100));
    server = fragile(server, 1000, HOUR);
    (server.restart.backoff_min, server.restart.backoff_max) = (least, most);
    for has_stream in [true, false] {
        mode.set(&["echo"]);
        let gateway = Gateway::start(server.clone()).await;
        let mut client = gateway.streamable().await;
        let stream = if has_stream { Some(client.stream().await) } else { None };
        if !has_stream {
            client.request("resources/subscribe", json!({"uri": "fixture://note"})).await;
        }
        let before: u32 = client.call("pid", json!({})).await.parse().unwrap();
        let began = Instant::now();
        mode.set(&["exit", "3"]);
        proc::signal(before, Signal::KILL);
        let failed = |metrics: &crate::harness::Metrics| metrics.sum("sluice_children_exits_total", "start_failed");
        gateway.until("it has been tried again and again", |metrics| failed(metrics) >= 6.0).await;
        // The first two come at once, all others after at least half of the least pause.
        let (tried, time) = (failed(&gateway.metrics().await), began.elapsed());
        assert!(tried <= 2.0 + time.as_secs_f64() / (least.as_secs_f64() / 2.0), "{tried} in {time:?}");
        mode.set(&["echo"]);
        let there = |metrics: &crate::harness::Metrics| metrics.sum("sluice_workers", "state=\"ready\"") == 1.0;
        gateway.until("there is a child, though nobody has called", there).await;
        let notes = if has_stream { "[]" } else { r#"["fixture://note"]"# };
        assert_eq!(client.call("subscriptions", json!({})).await, notes);
        drop(stream);
        gateway.finish().await;
    }
}

#[tokio::test]
async fn who_only_listens_to_a_server_that_never_comes_back_is_idle_all_the_same() {
    let (mut server, mode) = switchable(&["echo"]);
    server = fragile(server, 1000, HOUR);
    server.limits.start_timeout = Duration::from_millis(700);
    let gateway = Gateway::start_with([server], |config| {
        config.sessions.idle_timeout = Duration::from_millis(1500);
    })
    .await;
    let mut client = gateway.streamable().await;
    client.request("resources/subscribe", json!({"uri": "fixture://note"})).await;
    let before: u32 = client.call("pid", json!({})).await.parse().unwrap();
    mode.set(&["never-initialize"]);
    proc::signal(before, Signal::KILL);
    gateway.until("it is tried again", |metrics| metrics.sum("sluice_children_spawned_total", "") >= 3.0).await;
    gateway.until("the session ends", |metrics| metrics.sessions() == 0.0 && metrics.children() == 0.0).await;
    gateway.finish().await;
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
    // They take turns in starting it: what has crashed for one has crashed for both. Who asks again before a crash is
    // counted is of its generation.
    let mut refusals = 0;
    for caller in [&ann, &eve].into_iter().cycle() {
        let refusal = refusal(caller).await;
        if refusal.0 == "crash_loop" {
            break;
        }
        assert_eq!(refusal, ("server_start_failed".to_owned(), 200));
        refusals += 1;
        assert!(refusals < 20, "it is started over and over");
    }
    assert!(refusals >= 3, "{refusals}");
    for caller in [&ann, &eve] {
        assert_eq!(refusal(caller).await, ("crash_loop".to_owned(), 200));
    }
    assert!(crash_loops(&gateway).await.starts_with("crash loop: fixture, for all, next attempt in 3"));
    gateway.finish().await;
}

#[tokio::test]
async fn a_leased_spare_that_crashes_counts_for_who_has_it() {
    let mut server = fragile(fixture("exit-after-subscribe 7"), 3, HOUR);
    server.pool.mode = PoolMode::Dynamic;
    (server.pool.min_spare, server.pool.max_spare) = (8, 8);
    let scene = Scene::of(server).await;
    scene.until("spares", |m| m.value("sluice_spare_children") == 8).await;
    let client = scene.open(Wire::Sse).await;
    assert!(client.request("resources/subscribe", json!({"uri": "fixture://note"})).await["result"].is_object());
    assert!(until_left_alone(&scene.gateway).await.starts_with("crash loop: subject for acme, next attempt in "));
    let answer = client.call("echo", json!({"text": "?"})).await;
    assert_eq!(answer["error"]["data"]["type"], "crash_loop", "there are spares, but not for this: {answer}");
    client.close().await;
    scene.finish().await;
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
    // The other turn is left for others.
    gateway.until("one is being started", |metrics| metrics.children() == 1.0).await;
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
    assert!(kinds.iter().all(|kind| *kind == ("spawn_full".to_owned(), 200)), "{kinds:?}");
    gateway.kill().await;
}

#[tokio::test]
async fn a_session_that_is_well_hides_no_loop_of_another_from_itself() {
    let (server, mode) = switchable(&["echo"]);
    let mut server = fragile(server, 3, HOUR);
    let least = Duration::from_millis(200);
    (server.restart.backoff_min, server.restart.backoff_max) = (least, Duration::from_secs(1));
    let gateway = Gateway::start(server).await;
    let (mut well, mut ill) = (gateway.streamable().await, gateway.sse().await);
    let before: u32 = ill.call("pid", json!({})).await.parse().unwrap();
    mode.set(&["exit-after-initialize", "1"]);
    let began = Instant::now();
    proc::signal(before, Signal::KILL);
    let crashed = |metrics: &crate::harness::Metrics| metrics.sum("sluice_children_exits_total", "crashed");
    while crashed(&gateway.metrics().await) < 5.0 {
        assert!(began.elapsed() < PATIENCE);
        assert_eq!(well.call("echo", json!({"text": "well"})).await, "well");
    }
    // One at once, and then the pauses of the session itself.
    assert!(began.elapsed() >= least / 2 + least + least * 2, "{:?}", began.elapsed());
    assert_eq!(crash_loops(&gateway).await, "");
    gateway.finish().await;
}
