//! What is bounded: sessions, idle time, streams that nobody reads, queues towards a child. Who is over a limit is told
//! so, and costs nobody else.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice::config::Config;

use crate::harness::{Caller, Gateway, Metrics, Reply, Request, fixture, hello, key, resolve};

fn initialize() -> Request {
    let message = json!({"jsonrpc": "2.0", "id": "new", "method": "initialize", "params": hello("2025-11-25")});
    Request::post("/mcp", message)
}

/// The request `initialize` has an error; a stream, for which there is no request, has a status.
fn assert_over_limit(reply: &Reply, says: &str) {
    let error = reply.assert_error(200, -32003, says);
    assert_eq!((&error["id"], reply.header("mcp-session-id")), (&json!("new"), None), "{error}");
    let data = json!({"type": "sessions_full", "retryable": true, "retryAfter": 1});
    assert_eq!(error["error"]["data"], data, "{error}");
}

fn assert_no_stream(reply: &Reply, says: &str) {
    let error = reply.assert_error(429, -32003, says);
    assert_eq!((reply.header("retry-after"), &error["id"]), (Some("1"), &Value::Null));
}

/// A call that is never answered.
fn hang() -> Value {
    json!({"jsonrpc": "2.0", "id": "hung", "method": "tools/call", "params": {"name": "hang"}})
}

/// Opens sessions that are in use up to a limit that `set` sets to two; returns once the third is refused, then let in.
async fn third_session_waits(set: impl Fn(&mut Config), says: &str, is_ready: bool) {
    let (mut mine, mut same) = (String::new(), String::new());
    let gateway = Gateway::start_with([fixture("echo")], |config| {
        mine = key(config, "acme", "me");
        same = key(config, "acme", "me");
        config.http.keep_alive = Duration::from_millis(20);
        set(config);
    })
    .await;
    let (mine, same) = (gateway.with_key(&mine), gateway.with_key(&same));
    let (first, mut second) = (mine.streamable().await, same.sse().await);
    let hung = first.open(hang()).await;
    second.post(hang()).await;
    assert_over_limit(&mine.send(initialize()).await, says);
    assert_no_stream(&same.send(Request::get("/sse")).await, says);
    let ready = gateway.send(Request::get("/readyz")).await;
    if is_ready {
        assert_eq!((ready.status, ready.text.as_str()), (200, "ready\n"));
    } else {
        ready.assert_problem(503, "sessions.max is reached");
    }
    assert_eq!(second.call("echo", json!({"text": "goes on"})).await, "goes on");
    first.delete().await;
    drop(hung);
    let mut third = mine.streamable().await;
    assert_eq!(third.call("echo", json!({"text": "let in"})).await, "let in");
    gateway.finish().await;
}

#[tokio::test]
async fn sessions_are_limited_in_all() {
    third_session_waits(|config| config.sessions.max = 2, "limit of 2 sessions (sessions.max)", false).await;
}

#[tokio::test]
async fn sessions_are_limited_per_principal() {
    let says = "you have reached your limit of 2 sessions (sessions.max_per_principal)";
    third_session_waits(|config| config.sessions.max_per_principal = 2, says, true).await;
}

#[tokio::test]
async fn sessions_are_limited_per_tenant() {
    let set = |config: &mut Config| config.tenants.get_mut("acme").unwrap().max_sessions = Some(2);
    third_session_waits(set, "the tenant has reached its limit of 2 sessions (max_sessions)", true).await;
}

#[tokio::test]
async fn a_limit_reached_by_one_stops_no_other() {
    let (mut one, mut other, mut elsewhere) = (String::new(), String::new(), String::new());
    let gateway = Gateway::start_with([fixture("echo")], |config| {
        one = key(config, "acme", "one");
        other = key(config, "acme", "other");
        elsewhere = key(config, "else", "one");
        config.http.keep_alive = Duration::from_millis(20);
        config.sessions.max_per_principal = 2;
        config.tenants.get_mut("acme").unwrap().max_sessions = Some(3);
    })
    .await;
    let mut bystander = gateway.with_key(&elsewhere).bystander().await;
    let (one, other) = (gateway.with_key(&one), gateway.with_key(&other));
    let mine = (one.streamable().await, one.streamable().await);
    let _hung = (mine.0.open(hang()).await, mine.1.open(hang()).await);
    assert_over_limit(&one.send(initialize()).await, "sessions.max_per_principal");
    let mut theirs = other.streamable().await;
    let _hung_too = theirs.open(hang()).await;
    assert_over_limit(&other.send(initialize()).await, "the tenant has reached its limit of 3");
    assert_eq!(theirs.call("echo", json!({"text": "mine"})).await, "mine");
    bystander.unharmed().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_session_that_is_not_used_ends_and_one_with_a_quiet_stream_does_not() {
    let gateway = Gateway::start_with([fixture("echo")], |config| {
        config.sessions.idle_timeout = Duration::from_millis(100);
    })
    .await;
    let idle = gateway.streamable().await;
    let mut with_stream = gateway.streamable().await;
    let mut stream = with_stream.stream().await;
    let mut sse = gateway.sse().await;
    let calling = gateway.streamable().await;
    let call = json!({"name": "sleep", "arguments": {"ms": 2500}});
    let call = calling.open(json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}));
    let watch = async {
        gateway.until("the idle one is gone", |metrics| metrics.sessions() == 3.0 && metrics.children() == 3.0).await;
        let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
        idle.send(ping).await.assert_error(404, -32600, "it has ended, or never was");
    };
    let (answer, ()) = tokio::join!(call, watch);
    assert_eq!(answer.status, 200, "a call in flight is use");
    assert_eq!(with_stream.call("list_changed", json!({})).await, "changed");
    assert_eq!(stream.message().await.unwrap()["method"], "notifications/tools/list_changed");
    assert_eq!(sse.call("echo", json!({"text": "still"})).await, "still");
    gateway.finish().await;
}

/// Sends a request on a connection that takes little and is never read; keep it.
pub(crate) async fn deaf(address: SocketAddr, request: Request) -> tokio::net::TcpStream {
    use tokio::io::AsyncWriteExt as _;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    stream.write_all(&request.bytes(address)).await.unwrap();
    stream
}

fn flood() -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "flood", "arguments": {}}})
}

/// A gateway with a server that sends more than all buffers hold, and little patience with clients that do not read.
async fn flooded() -> Gateway {
    Gateway::start_with([fixture("flood 100000")], |config| {
        config.http.slow_client_timeout = Duration::from_millis(1500);
        config.http.stream_messages = 64;
        config.http.stream_bytes = 64 * 1024;
    })
    .await
}

/// Whether what was for the client has been dropped: it takes nothing from its stream, or nothing from the connection,
/// whichever is noticed first.
fn is_cut(metrics: &Metrics) -> bool {
    metrics.dropped("slow_client") + metrics.dropped("stream_closed") > 0.0
}

/// Lets a bystander call until `cut`; its slowest call must not have waited for the client that does not read.
async fn meanwhile(gateway: &Gateway, cut: impl Fn(&Metrics) -> bool) {
    let mut bystander = gateway.bystander().await;
    let (mut slowest, mut calls) = (Duration::ZERO, 0);
    let deadline = Instant::now() + crate::harness::PATIENCE;
    while !cut(&gateway.metrics().await) {
        slowest = slowest.max(bystander.call().await);
        calls += 1;
        assert!(Instant::now() < deadline, "it is not cut: {}", gateway.metrics().await.0);
    }
    assert!(calls > 3, "the bystander was held up: {calls} calls, the slowest {slowest:?}");
    assert!(slowest < Duration::from_millis(1200), "the bystander waited {slowest:?}, about as long as the cut takes");
    bystander.unharmed().await;
}

#[tokio::test]
async fn an_sse_client_that_does_not_read_is_cut_and_costs_nobody_else() {
    let gateway = flooded().await;
    let (endpoint, client) = sse_without_reader(&gateway).await;
    let reply = gateway.send(Request::post(&endpoint, flood())).await;
    assert_eq!(reply.status, 202);
    // What is left is the bystander's.
    meanwhile(&gateway, |metrics| is_cut(metrics) && metrics.sessions() == 2.0).await;
    gateway.send(Request::post(&endpoint, flood())).await.assert_error(404, -32600, "no such session");
    drop(client);
    gateway.finish().await;
}

/// Reads the events of a stream up to the first that holds `text`, and no further; returns them.
pub(crate) async fn read_until(stream: &mut tokio::net::TcpStream, text: &str) -> String {
    use tokio::io::AsyncReadExt as _;
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(text) || !read.ends_with(b"\n\n\r\n") {
        assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "the stream has ended");
    }
    String::from_utf8(read).unwrap()
}

/// An SSE session whose stream is read up to its endpoint and no further.
pub(crate) async fn sse_without_reader(caller: &Caller) -> (String, tokio::net::TcpStream) {
    let mut stream = deaf(caller.address, Request::get("/sse")).await;
    let text = read_until(&mut stream, "sessionId=").await;
    let endpoint = resolve("/sse", text.split("data: ").nth(1).unwrap().lines().next().unwrap());
    let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello("2024-11-05")});
    assert_eq!(caller.send(Request::post(&endpoint, initialize)).await.status, 202);
    (endpoint, stream)
}

#[tokio::test]
async fn a_post_stream_that_is_not_read_is_cut_and_the_session_goes_on() {
    let gateway = flooded().await;
    let mut client = gateway.streamable().await;
    let pid = client.call("pid", json!({})).await;
    let stream = deaf(gateway.address, client.with_headers(Request::post("/mcp", flood()))).await;
    meanwhile(&gateway, is_cut).await;
    assert_eq!(client.call("pid", json!({})).await, pid, "the same child, and it is free again");
    drop(stream);
    gateway.finish().await;
}

#[tokio::test]
async fn a_server_that_does_not_read_fills_its_queue_and_then_callers_are_told() {
    let gateway = Gateway::start_with([fixture("no-read")], |config| {
        let server = std::sync::Arc::make_mut(config.servers.values_mut().next().unwrap());
        server.limits.stdin_queue = 256 * 1024;
        server.limits.stdin_grace = Duration::from_millis(50);
        config.http.keep_alive = Duration::from_millis(10);
        config.drain_timeout = Duration::from_millis(100);
    })
    .await;
    let (client, mut sse) = (gateway.streamable().await, gateway.sse().await);
    let params = json!({"name": "echo", "arguments": {"text": "x".repeat(32 * 1024)}});
    let call = json!({"jsonrpc": "2.0", "id": "full", "method": "tools/call", "params": params});
    let mut waiting = Vec::new();
    let refused = loop {
        let response = client.open(&call).await;
        if !response.is_stream() {
            break response.reply().await;
        }
        waiting.push(response);
        assert!(waiting.len() < 40, "the queue takes no end");
    };
    assert!(waiting.len() >= 8, "256 KiB are more than {} calls", waiting.len());
    let error = refused.assert_error(200, -32003, "the server is busy");
    let data = json!({"type": "overloaded", "retryable": true, "retryAfter": 1});
    assert_eq!((&error["id"], &error["error"]["data"]), (&json!("full"), &data));
    // What has no id has no error of its own: the status is all that the specification has for it.
    let notification = json!({"jsonrpc": "2.0", "method": "x", "params": {"text": "x".repeat(32 * 1024)}});
    client.send(notification).await.assert_error(503, -32003, "the server is busy");

    // Another session has another child, whose queue is empty; it is told likewise once that is full.
    for _ in 0..40 {
        sse.post(&call).await;
    }
    let error = sse.message().await;
    assert_eq!((&error["id"], &error["error"]["data"]), (&json!("full"), &data), "{error}");
    gateway.finish().await;
}

#[tokio::test]
async fn calls_in_flight_are_limited() {
    let gateway = Gateway::start_with([fixture("echo")], |config| {
        let server = std::sync::Arc::make_mut(config.servers.values_mut().next().unwrap());
        server.limits.max_in_flight = 2;
        config.http.keep_alive = Duration::from_millis(10);
    })
    .await;
    let mut bystander = gateway.bystander().await;
    let mut client = gateway.streamable().await;
    let hang = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "hang"}});
    let hung = [client.open(&hang).await, client.open(&hang).await];
    let refused = client.send(&hang).await;
    let error = refused.assert_error(200, -32003, "too many calls are waiting for it; try again in a moment");
    assert_eq!((&error["id"], &error["error"]["data"]["retryAfter"]), (&json!(1), &json!(1)));
    bystander.unharmed().await;
    for _ in hung {
        let params = json!({"requestId": 1});
        client.notify(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})).await;
    }
    assert_eq!(client.call("echo", json!({"text": "room again"})).await, "room again");
    gateway.finish().await;
}

#[tokio::test]
async fn over_the_limit_a_connection_makes_way_that_nobody_has_authenticated_on_or_the_new_one_is_refused() {
    let gateway = Gateway::start_with([fixture("echo")], |config| config.http.max_connections = 2).await;
    let mut client = gateway.sse().await;
    let mut idle = gateway.connect().await;
    gateway.until("both are taken", |metrics| metrics.sum("sluice_connections", "") == 2.0).await;
    assert_eq!(client.call("echo", json!({"text": "still"})).await, "still");
    assert!(idle.is_closed().await, "it makes way for the call");
    gateway.until("it is counted", |metrics| rejected(metrics, "made_way") >= 1.0).await;
    let another = gateway.open(Request::get("/sse")).await;
    let refused = gateway.send(Request::get("/healthz")).await;
    refused.assert_problem(503, "http.max_connections");
    assert_eq!((refused.header("retry-after"), refused.header("connection")), (Some("5"), Some("close")));
    assert_eq!(rejected(&gateway.metrics().await, "full"), 1.0);
    drop(another);
    gateway.until("its place is free", |metrics| metrics.sum("sluice_connections", "") < 2.0).await;
    assert_eq!(client.call("echo", json!({"text": "still"})).await, "still");
    gateway.finish().await;
}

/// The connections that were refused, or made way, for a reason.
fn rejected(metrics: &Metrics, reason: &str) -> f64 {
    metrics.sum("sluice_connections_rejected_total", &format!("reason=\"{reason}\""))
}
