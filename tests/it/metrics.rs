//! What is measured: the names are there, and no client can make a new series.

use std::collections::BTreeSet;

use serde_json::json;

use crate::harness::{Gateway, Metrics, Request, fixture, key, named};

/// Every series: name and labels. Histograms are represented by their counts.
fn series(metrics: &Metrics) -> BTreeSet<String> {
    metrics
        .samples()
        .filter(|(name, ..)| !name.ends_with("_bucket"))
        .map(|(name, labels, _)| format!("{name}{labels}"))
        .collect()
}

#[tokio::test]
async fn what_operators_need_is_measured() {
    let gateway = Gateway::start(fixture("echo")).await;
    let mut client = gateway.streamable().await;
    client.call("echo", json!({"text": "x"})).await;
    let crash = client.request("tools/call", json!({"name": "crash", "arguments": {"code": 3}})).await;
    assert!(crash["error"]["message"].as_str().unwrap().contains("exit code 3"), "{crash}");
    client.call("echo", json!({"text": "x"})).await;
    let reply = gateway.admin().send(Request::get("/metrics")).await;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(reply.header("content-type"), Some(kind));
    assert!(reply.text.ends_with("# EOF\n"));
    let metrics = Metrics(reply.text);
    for (name, label, value) in [
        ("sluice_sessions", "server=\"fixture\"", 1.0),
        ("sluice_children", "server=\"fixture\"", 1.0),
        ("sluice_children_spawned_total", "server=\"fixture\"", 2.0),
        ("sluice_children_exits_total", "reason=\"crashed\"", 1.0),
        ("sluice_children_restarts_total", "server=\"fixture\"", 1.0),
        ("sluice_request_seconds_count", "method=\"tools/call\"", 2.0),
        ("sluice_stdin_queue_bytes", "server=\"fixture\"", 0.0),
        ("sluice_http_responses_total", "status=\"200\"", 4.0),
        ("sluice_http_responses_total", "status=\"202\"", 1.0),
        ("sluice_connections", "", 0.0),
    ] {
        assert!(metrics.samples().any(|(n, labels, _)| n == name && labels.contains(label)), "{name} {label}");
        if name != "sluice_connections" {
            assert_eq!(metrics.sum(name, label), value, "{name} {label}");
        }
    }
    for direction in ["to_server", "to_client"] {
        assert!(metrics.sum("sluice_messages_total", direction) >= 4.0);
        assert!(metrics.sum("sluice_message_bytes_total", direction) > 100.0);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn no_client_can_make_a_series() {
    let mut good = String::new();
    let gateway = Gateway::start_with([named("one", fixture("echo"))], |config| good = key(config, "acme", "me")).await;
    let caller = gateway.with_key(&good);
    let mut client = caller.streamable().await;
    client.request("x/first", json!({})).await;
    gateway.send(Request::get("/sse").header("X-API-Key", "wrong")).await;
    caller.send(Request::get("/servers/nowhere/sse")).await;
    caller.send(client.with_headers(Request::post("/mcp", "{"))).await;
    let before = series(&gateway.metrics().await);
    assert!(before.contains("sluice_request_seconds_count{server=\"one\",method=\"other\"}"), "{before:?}");

    for number in 0..20 {
        client.request(&format!("made/up/{number}"), json!({})).await;
        client.call("echo", json!({"text": number.to_string()})).await;
        gateway.send(Request::get("/sse").header("X-API-Key", &format!("wrong{number}"))).await;
        caller.send(Request::get(&format!("/servers/nowhere{number}/sse"))).await;
        caller.send(client.with_headers(Request::post("/mcp", format!("{{{number}")))).await;
    }
    let new: Vec<String> = series(&gateway.metrics().await).difference(&before).cloned().collect();
    // The one method of them all that the specification knows.
    let known = "{server=\"one\",method=\"tools/call\"}";
    let expected = ["count", "sum"].map(|kind| format!("sluice_request_seconds_{kind}{known}"));
    assert_eq!(new, expected);
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("sluice_request_seconds_count", "method=\"other\""), 21.0);
    assert_eq!(metrics.sum("sluice_auth_failures_total", "reason=\"unknown_key\""), 21.0);
    for secret in ["acme", "wrong", "nowhere", "made", &client.session, &good] {
        assert!(!metrics.0.contains(secret), "{secret} is in the metrics");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn metrics_are_on_the_admin_listener_only() {
    let gateway = Gateway::start(fixture("echo")).await;
    gateway.send(Request::get("/metrics")).await.assert_problem(404, "nothing is served here");
    gateway.admin().send(Request::post("/mcp", "{}")).await.assert_problem(404, "nothing is served here");
    gateway.finish().await;
}
