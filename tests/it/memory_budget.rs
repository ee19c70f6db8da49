//! The memory budget: who asks for more than its part is refused, or waits, and nobody else notices.

use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use sluice::config::Config;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::attack::Neighbour;
use crate::harness::{Caller, Connection, Gateway, Request, eventually, fixture, hello, in_time, key};

const MIB: usize = 1 << 20;
/// A budget of which one tenant can have 24 MiB.
const BUDGET: usize = 64 * MIB;

fn configuration(config: &mut Config) -> [String; 2] {
    config.memory_budget = BUDGET;
    config.http.max_body = 64 * MIB;
    ["acme", "umbrella"].map(|tenant| key(config, tenant, "me"))
}

/// A gateway, and callers of two tenants.
async fn gateway() -> (Gateway, [Caller; 2]) {
    let mut keys = Default::default();
    let gateway = Gateway::start_with([fixture("echo")], |config| keys = configuration(config)).await;
    let callers = keys.map(|key| gateway.with_key(&key));
    (gateway, callers)
}

/// Announces a body of `announced` bytes and sends `sent` of them.
async fn upload(caller: &Caller, announced: usize, sent: usize) -> Connection {
    let request = Request::post(&caller.path("/mcp"), "").header("Content-Length", &announced.to_string());
    let mut connection = caller.ask(request).await;
    connection.write(&vec![b' '; sent]).await;
    connection
}

async fn held(gateway: &Gateway) -> usize {
    gateway.metrics().await.sum("sluice_memory_held_bytes", "") as usize
}

#[tokio::test]
async fn bodies_beyond_a_tenants_share_are_refused_and_nobody_elses() {
    let (gateway, [acme, umbrella]) = gateway().await;
    let neighbour = Neighbour::watch(umbrella.clone()).await;
    // Memory is not held because of a length that was announced, but because of what has come.
    let silent = upload(&acme, 20 * MIB, 10).await;
    let slow = [upload(&acme, 9 * MIB, 8 * MIB).await, upload(&acme, 9 * MIB, 8 * MIB).await];
    gateway
        .until("two bodies are held", |metrics| {
            let held = metrics.sum("sluice_memory_held_bytes", "") as usize;
            assert!(held <= BUDGET, "{held}");
            held > 16 * MIB
        })
        .await;
    let refused = upload(&acme, 8 * MIB, 8 * MIB).await.response().await.reply().await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{}", refused.text);
    let error: Value = serde_json::from_str(&refused.text).unwrap();
    let text = error["error"]["message"].as_str().unwrap();
    assert!(text.contains("no room for the body") && text.contains("(limits.memory_budget)"), "{error}");
    let never = upload(&acme, 30 * MIB, 10).await.response().await.reply().await;
    assert!(
        never.status == 413 && never.text.contains("(limits.memory_budget, tenants.NAME.limits.memory_budget)"),
        "{}: {}",
        never.status,
        never.text
    );
    assert_eq!(gateway.metrics().await.sum("sluice_memory_refusals_total", "what=\"body\""), 2.0);
    neighbour.unharmed().await;
    drop((silent, slow));
    eventually("all is given back", async || (held(&gateway).await < MIB).then_some(())).await;
    let passed = upload(&acme, 8 * MIB, 8 * MIB).await.response().await.reply().await;
    assert_eq!(passed.status, 400, "it is read, and is no JSON: {}", passed.text);
    gateway.finish().await;
}

#[tokio::test]
async fn a_tenants_own_limit_holds_and_follows_the_configuration() {
    let (gateway, [acme, _]) = gateway().await;
    let mut config = Config::for_servers([fixture("echo")]);
    configuration(&mut config);
    config.tenants.get_mut("acme").unwrap().memory_budget = Some(2 * MIB);
    gateway.replace(config.clone()).await.unwrap();
    assert_eq!(upload(&acme, 3 * MIB, 10).await.response().await.status, 413);
    config.tenants.get_mut("acme").unwrap().memory_budget = None;
    config.memory_budget = 16 * MIB;
    gateway.replace(config).await.unwrap();
    assert_eq!(upload(&acme, 2 * MIB, 2 * MIB).await.response().await.status, 400);
    assert_eq!(upload(&acme, 7 * MIB, 10).await.response().await.status, 413);
    assert_eq!(
        upload(&acme, 7 * MIB / 2, 7 * MIB / 2).await.response().await.status,
        413,
        "it is held twice while it is read"
    );
    assert_eq!(gateway.metrics().await.sum("sluice_memory_budget_bytes", ""), 16.0 * MIB as f64);
    gateway.finish().await;
}

#[tokio::test]
async fn there_are_no_more_connections_than_the_budget_has_room_for_and_those_in_use_go_on() {
    let mut keys = Default::default();
    let gateway = Gateway::start_with([fixture("echo")], |config| {
        keys = configuration(config);
        // Room for 27 connections.
        config.memory_budget = 16 * MIB;
    })
    .await;
    let client = reqwest::Client::new();
    let url = format!("http://{}/mcp", gateway.address);
    let call = async || {
        let message = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello("2025-11-25")});
        let accept = "application/json, text/event-stream";
        let request = client.post(&url).bearer_auth(&keys[0]).header("Accept", accept).json(&message);
        in_time("an answer", request.send()).await.unwrap().error_for_status().unwrap().bytes().await.unwrap()
    };
    call().await;
    let mut unfinished = Vec::new();
    let head = format!("GET /mcp HTTP/1.1\r\nx: {}", "x".repeat(20_000));
    for _ in 0..60 {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        // One that has made way already takes no more.
        let _ = stream.write_all(head.as_bytes()).await;
        unfinished.push(stream);
    }
    let metrics = gateway.metrics().await;
    let open = metrics.sum("sluice_connections", "");
    assert!((20.0..=27.0).contains(&open), "{open}");
    assert!(metrics.sum("sluice_memory_held_bytes", "") <= 16.0 * MIB as f64);
    call().await;
    drop(unfinished);
    assert_eq!(gateway.send(Request::get("/healthz")).await.status, 200);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_bodies_over_one_connection_of_http_2_take_no_more_than_one_tenants_share() {
    const BODIES: usize = 200;
    let mut keys = Default::default();
    let gateway = Gateway::start_with([fixture("echo")], |config| keys = configuration(config)).await;
    let neighbour = Neighbour::watch(gateway.with_key(&keys[1])).await;
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let url = format!("http://{}/mcp", gateway.address);
    let bodies: Vec<_> = (0..BODIES)
        .map(|_| {
            // 3 MiB of a body that does not end.
            let pieces = futures_util::stream::iter((0..48).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1 << 16])));
            let body = reqwest::Body::wrap_stream(pieces.chain(futures_util::stream::pending()));
            let request = client.post(&url).bearer_auth(&keys[0]).header("Content-Type", "application/json");
            let request = request.header("Accept", "application/json, text/event-stream").body(body);
            tokio::spawn(async move { request.send().await.unwrap().status().as_u16() })
        })
        .collect();
    // Those that have room wait for the rest of their body, all others are refused.
    eventually("most are refused", async || {
        let held = held(&gateway).await;
        assert!(held <= BUDGET, "{held}");
        (bodies.iter().filter(|body| body.is_finished()).count() > BODIES - 24).then_some(())
    })
    .await;
    neighbour.unharmed().await;
    for body in bodies {
        match body.is_finished() {
            true => assert_eq!(body.await.unwrap(), 503),
            false => body.abort(),
        }
    }
    drop(client);
    let all_back = async || (held(&gateway).await < 2 * MIB).then_some(());
    tokio::time::timeout(Duration::from_secs(20), eventually("all is given back", all_back)).await.unwrap();
    gateway.finish().await;
}
