//! Nobody keeps others from connecting, by whatever they hold connections with, from one address or from many.

use std::time::Duration;

use serde_json::json;
use sluice::config::Config;

use crate::harness::{Caller, Connection, Gateway, Metrics, Request, fixture, key};

/// The most connections of the gateway under attack.
const MOST: usize = 32;

/// Limits connections, and takes the returned key.
fn decide(config: &mut Config) -> String {
    config.http.max_connections = MOST;
    // No time-out frees anything during a test.
    config.http.header_timeout = Duration::from_secs(600);
    config.http.body_timeout = Duration::from_secs(600);
    key(config, "acme", "me")
}

async fn gateway(change: impl FnOnce(&mut Config)) -> (Gateway, Caller) {
    let mut good = String::new();
    let gateway = Gateway::start_with([fixture("echo")], |config| {
        good = decide(config);
        change(config);
    })
    .await;
    let client = gateway.with_key(&good);
    (gateway, client)
}

fn open(metrics: &Metrics) -> f64 {
    metrics.sum("sluice_connections", "")
}

fn rejected(metrics: &Metrics, reason: &str) -> f64 {
    metrics.sum("sluice_connections_rejected_total", &format!("reason=\"{reason}\""))
}

/// What connections are held with: what is written on each.
fn beginnings(caller: &Caller) -> Vec<Vec<u8>> {
    let http2 = |frames: &[u8]| [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".as_slice(), frames].concat();
    let request = Request::post("/mcp", "").header("Content-Length", "1000000").bytes(caller.address);
    let ping = b"\0\0\x08\x06\0\0\0\0\0abcdefgh".repeat(100);
    // HEADERS of stream 1 with the field ":method: POST", without an end, and with an end but no path.
    let (endless, wrong) = (b"\0\0\x01\x01\0\0\0\0\x01\x83".as_slice(), b"\0\0\x01\x01\x04\0\0\0\x01\x83".as_slice());
    vec![
        Vec::new(),
        b"G".to_vec(),
        // The beginning of a TLS handshake.
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(),
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".to_vec(),
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n".to_vec(),
        request,
        http2(b""),
        http2(&ping),
        http2(endless),
        http2(wrong),
    ]
}

/// Holds `count` connections from an address, of all kinds.
async fn hold(attacker: &Caller, count: usize) -> Vec<Connection> {
    let kinds = beginnings(attacker);
    let mut held = Vec::new();
    for kind in kinds.iter().cycle().take(count) {
        let mut connection = attacker.connect().await;
        connection.write(kind).await;
        held.push(connection);
    }
    held
}

#[tokio::test]
async fn one_address_holds_no_more_connections_than_it_leaves_to_the_others() {
    let (gateway, client) = gateway(|_| {}).await;
    let attacker = gateway.from(2);
    let held = hold(&attacker, MOST * 3).await;
    gateway.until("the attacker holds its share", |metrics| rejected(metrics, "made_way") > 0.0).await;
    assert_eq!(gateway.from(3).send(Request::get("/healthz")).await.status, 200);
    let mut client = client.from(4).sse().await;
    let more = hold(&attacker, MOST * 3).await;
    for round in 0..MOST {
        let text = format!("call {round}");
        assert_eq!(client.call("echo", json!({"text": text})).await, text);
    }
    assert!(open(&gateway.metrics().await) <= MOST as f64);
    drop((held, more));
    gateway.finish().await;
}

#[tokio::test]
async fn many_addresses_without_a_credential_lock_nobody_out() {
    let (gateway, client) = gateway(|_| {}).await;
    let mut client = client.from(100).sse().await;
    let mut held = Vec::new();
    for round in 0..3 {
        for attacker in 2..60 {
            held.extend(hold(&gateway.from(attacker), 2).await);
        }
        // A client with a credential gets further connections, one without its first, and nobody's stream is cut.
        let text = format!("call {round}");
        assert_eq!(client.call("echo", json!({"text": text})).await, text);
        assert_eq!(gateway.from(200).send(Request::get("/healthz")).await.status, 200);
    }
    let metrics = gateway.metrics().await;
    assert!(open(&metrics) <= MOST as f64 && rejected(&metrics, "made_way") > 100.0, "{metrics:?}");
    assert_eq!(rejected(&metrics, "full") + rejected(&metrics, "address_share"), 0.0);
    drop(held);
    gateway.finish().await;
}

#[tokio::test]
async fn an_address_with_a_credential_leaves_as_many_connections_as_it_holds() {
    let (gateway, client) = gateway(|config| config.http.max_connections_per_address = Some(5)).await;
    let greedy = client.from(2);
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(greedy.open(Request::get("/sse")).await);
    }
    let refused = greedy.send(Request::get("/sse")).await;
    refused.assert_problem(503, "http.max_connections_per_address");
    assert_eq!(refused.header("retry-after"), Some("5"));
    assert_eq!(rejected(&gateway.metrics().await, "address_share"), 1.0);
    assert_eq!(client.from(3).open(Request::get("/sse")).await.status, 200);
    // By the rule alone, one address has half.
    let mut config = Config::for_servers([fixture("echo")]);
    decide(&mut config);
    gateway.replace(config).await.unwrap();
    while held.len() < MOST / 2 - 1 {
        let stream = greedy.open(Request::get("/sse")).await;
        assert_eq!(stream.status, 200, "{} are held", held.len());
        held.push(stream);
    }
    drop(held);
    gateway.finish().await;
}

#[tokio::test]
async fn a_refusal_is_heard_over_http_2_too() {
    let (gateway, client) = gateway(|config| config.http.max_connections = 1).await;
    let stream = client.open(Request::get("/sse")).await;
    let http2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let refused = http2.get(format!("http://{}/healthz", gateway.address)).send().await.unwrap();
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers().get("retry-after").unwrap(), "5");
    assert!(refused.text().await.unwrap().contains("http.max_connections"));
    drop(stream);
    gateway.finish().await;
}
