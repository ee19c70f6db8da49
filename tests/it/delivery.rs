//! What has to arrive though somebody is slow: answers that the gateway makes itself, and the end of what a server
//! asks.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use sluice::config::{Isolation, Server, Tool};

use crate::harness::{
    Caller, Gateway, Metrics, Request, Sse, Streamable, eventually, fixture, hello, in_time, text_of,
};
use crate::limits::{deaf, read_until};
use crate::proc;
use crate::scene::{program, switchable};

fn call(id: u64, tool: &str, arguments: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": arguments}})
}

/// A gateway whose streams hold little, and that is patient with clients that do not read.
async fn narrow(server: Server) -> Gateway {
    Gateway::start_with([server], |config| {
        config.http.slow_client_timeout = Duration::from_secs(60);
        config.http.stream_messages = 64;
        config.http.stream_bytes = 64 * 1024;
    })
    .await
}

/// Waits until a child that says more than all buffers hold can say no more.
async fn until_stuck(gateway: &Gateway) {
    let (mut said, mut looks) = (0.0, 0);
    eventually("nothing moves any more", async || {
        let now = gateway.metrics().await.sum("sluice_messages_total", "to_client");
        looks = if now > 1000.0 && now == said { looks + 1 } else { 0 };
        said = now;
        (looks > 20).then_some(())
    })
    .await;
}

pub(crate) async fn until_in_flight(gateway: &Gateway, calls: u64) {
    eventually("so many calls are in flight", async || {
        let workers = gateway.admin().send(Request::get("/workers")).await.json();
        (workers[0]["in_flight"] == calls).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_call_that_times_out_while_the_stream_is_full_is_told_so() {
    let mut server = fixture("flood 100000");
    server.tools.insert("hang".to_owned(), Tool { timeout: Some(Duration::from_millis(100)), resend: None });
    let gateway = narrow(server).await;
    let mut client = gateway.sse().await;
    client.post(call(1, "flood", json!({}))).await;
    until_stuck(&gateway).await;
    client.post(call(2, "hang", json!({}))).await;
    until_in_flight(&gateway, 1).await;
    let error = loop {
        let message = client.message().await;
        if message.get("id").is_some() {
            break message;
        }
    };
    assert_eq!((&error["id"], &error["error"]["data"]["type"]), (&json!(2), &json!("call_timeout")), "{error}");
    gateway.finish().await;
}

/// A server that waits for its clients' answers for a short time, whoever they are.
fn impatient(isolation: Isolation) -> Server {
    let mut server = fixture("echo");
    server.isolation = isolation;
    server.limits.call_timeout = Duration::from_millis(1500);
    // That of the call itself is longer.
    server.tools.insert("elicit".to_owned(), Tool { timeout: Some(Duration::from_secs(60)), resend: None });
    server
}

fn is_cancelled(message: &Value, request: &Value) {
    assert_eq!(message["method"], "notifications/cancelled", "{message}");
    assert_eq!(message["params"]["requestId"], request["id"], "{message}");
}

#[tokio::test]
async fn who_has_not_answered_a_request_in_time_is_told_that_it_is_over() {
    for isolation in [Isolation::Session, Isolation::Shared] {
        let gateway = Gateway::start(impatient(isolation)).await;
        let (client, mut sse) = (gateway.streamable().await, gateway.sse().await);
        let mut response = client.open(call(1, "elicit", json!({"message": "who?"}))).await;
        let request = response.message().await.unwrap();
        assert_eq!(request["method"], "elicitation/create");
        is_cancelled(&response.message().await.unwrap(), &request);
        while response.message().await.is_some() {}
        sse.post(call(1, "elicit", json!({"message": "who?"}))).await;
        let request = sse.message().await;
        is_cancelled(&sse.message().await, &request);
        gateway.finish().await;
    }
}

#[tokio::test]
async fn who_is_asked_by_a_server_that_crashes_is_told_that_it_is_over() {
    let gateway = Gateway::start(fixture("echo")).await;
    let (mut client, mut sse) = (gateway.streamable().await, gateway.sse().await);
    let pid = client.call("pid", json!({})).await;
    let mut response = client.open(call(1, "elicit", json!({"message": "who?"}))).await;
    let request = response.message().await.unwrap();
    proc::signal(pid.parse().unwrap(), Signal::KILL);
    is_cancelled(&response.message().await.unwrap(), &request);
    assert_eq!(response.message().await.unwrap()["error"]["data"]["type"], "server_exited");
    sse.post(call(1, "elicit", json!({"message": "who?"}))).await;
    let request = sse.message().await;
    sse.post(call(2, "crash", json!({}))).await;
    is_cancelled(&sse.message().await, &request);
    gateway.finish().await;
}

/// Makes the server ask while there is no stream that the client could be asked on, and lets `is_over` see to it that
/// this is over; then another request comes. The client is shown that one alone.
async fn only_the_next_is_shown(is_over: impl AsyncFnOnce(&Gateway, &mut Streamable)) {
    let gateway = Gateway::start(impatient(Isolation::Session)).await;
    let mut client = gateway.streamable().await;
    // A call that is cancelled, and asks for all that.
    let arguments = json!({"method": "x/first", "late": true});
    let cancel = async {
        until_in_flight(&gateway, 1).await;
        let params = json!({"requestId": 1});
        client.notify(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})).await;
    };
    let (cancelled, ()) = tokio::join!(client.send(call(1, "unknown_request", arguments)), cancel);
    assert_eq!(cancelled.text, "");
    is_over(&gateway, &mut client).await;
    let mut stream = client.stream().await;
    client.call("list_changed", json!({})).await;
    assert_eq!(stream.message().await.unwrap()["method"], "notifications/tools/list_changed");
    gateway.finish().await;
}

#[tokio::test]
async fn what_is_kept_for_a_stream_is_dropped_when_it_is_over() {
    only_the_next_is_shown(async |gateway, _| {
        let asked = |metrics: &Metrics| metrics.sum("sluice_workers", "state=\"busy\"") == 1.0;
        gateway.until("the server asks", asked).await;
        gateway.until("it is over", |metrics| !asked(metrics)).await;
    })
    .await;
    only_the_next_is_shown(async |gateway, client| {
        let said = |metrics: &Metrics| metrics.sum("sluice_messages_total", "to_client");
        gateway.until("the server has asked", |metrics| said(metrics) >= 2.0).await;
        client.request("tools/call", json!({"name": "crash"})).await;
    })
    .await;
}

#[tokio::test]
async fn a_request_that_is_lost_with_its_stream_is_refused_at_once() {
    let mut server = fixture("echo");
    server.limits.max_line = 32 * 1024 * 1024;
    let gateway = Gateway::start_with([server], |config| config.http.max_body = 32 * 1024 * 1024).await;
    let mut client = gateway.streamable().await;
    let mut stream = deaf(gateway.address, client.with_headers(Request::get("/mcp"))).await;
    read_until(&mut stream, "keep-alive\n\n").await;
    // More than the connection takes: what is for the stream next, waits.
    let large =
        json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": {"x": "x".repeat(16 << 20)}});
    client.call("raw", json!({"line": large.to_string()})).await;
    // Of two calls nobody can tell which one asks: it is for the stream.
    let elicit = async {
        until_in_flight(&gateway, 1).await;
        client.send(call(2, "elicit", json!({"message": "who?"}))).await
    };
    let meanwhile = async {
        let said = |metrics: &Metrics| metrics.sum("sluice_messages_total", "to_client");
        gateway.until("the server has asked", |metrics| said(metrics) >= 4.0).await;
        drop(stream);
        until_in_flight(&gateway, 1).await;
        let params = json!({"requestId": 1});
        client.notify(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})).await;
    };
    let (_, refused, ()) = tokio::join!(client.send(call(1, "hang", json!({}))), elicit, meanwhile);
    assert!(refused.text.contains("no open stream"), "{refused:?}");
    gateway.finish().await;
}

/// Stops a child from reading, and fills its queue.
async fn fill(client: &Streamable, child: u32) {
    proc::signal(child, Signal::STOP);
    let large = json!({"jsonrpc": "2.0", "method": "x", "params": {"x": "x".repeat(32 * 1024)}});
    let mut refused = 0;
    eventually("the queue is full", async || {
        // Once is not enough: what is written next may be on its way out.
        refused = if client.send(&large).await.status == 503 { refused + 1 } else { 0 };
        (refused > 20).then_some(())
    })
    .await;
}

/// Sends something that does not fit, and again when there is room.
async fn when_there_is_room(client: &Streamable, child: u32, message: &Value) {
    client.send(message).await.assert_error(503, -32003, "the server is busy");
    proc::signal(child, Signal::CONT);
    eventually("there is room", async || (client.send(message).await.status == 202).then_some(())).await;
}

#[tokio::test]
async fn an_answer_and_a_cancellation_that_find_no_room_may_be_sent_again() {
    let mut server = fixture("echo");
    server.limits.stdin_queue = 64 * 1024;
    let gateway = Gateway::start(server).await;
    let mut client = gateway.streamable().await;
    let child = client.call("pid", json!({})).await.parse().unwrap();

    // It is larger than what may be left of the queue.
    let reason = "x".repeat(32 * 1024);
    let mut response = client.open(call(1, "elicit", json!({"message": "who?"}))).await;
    let request = response.message().await.unwrap();
    fill(&client, child).await;
    let answer = json!({"jsonrpc": "2.0", "id": request["id"], "result": {"action": "decline", "why": reason}});
    when_there_is_room(&client, child, &answer).await;
    assert!(text_of(&response.message().await.unwrap()).contains("decline"));
    assert_eq!(response.message().await, None);

    let cancel =
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2, "reason": reason}});
    let cancelled = async {
        until_in_flight(&gateway, 1).await;
        fill(&client, child).await;
        when_there_is_room(&client, child, &cancel).await;
    };
    let (hung, ()) = tokio::join!(client.send(call(2, "hang", json!({}))), cancelled);
    assert_eq!(hung.text, "");
    assert_ne!(client.call("cancelled", json!({})).await, "[]", "the server has been told");
    assert_eq!(gateway.metrics().await.dropped("unknown_response"), 0.0);
    gateway.finish().await;
}

#[tokio::test]
async fn a_child_that_had_no_room_for_initialized_hears_it_later() {
    let mut server = fixture("echo");
    server.limits.stdin_queue = 64 * 1024;
    let gateway = Gateway::start(server).await;
    let mut client = Streamable::greet(&gateway, "2025-11-25").await;
    let child = client.call("pid", json!({})).await.parse().unwrap();
    fill(&client, child).await;
    let params = json!({"_meta": {"x": "x".repeat(32 * 1024)}});
    let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized", "params": params});
    when_there_is_room(&client, child, &initialized).await;
    client.notify(&initialized).await;
    let received = client.call("notifications_received", json!({})).await;
    assert_eq!(received.matches("notifications/initialized").count(), 1, "once: {received}");
    gateway.finish().await;
}

#[tokio::test]
async fn initialized_that_comes_right_behind_initialize_is_said_to_the_next_child_too() {
    // The child takes its time, so that all that comes behind `initialize` waits for it.
    let gateway = Gateway::start(fixture("slow-start 300")).await;
    let mut client = Sse::open(&gateway).await;
    let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello("2024-11-05")});
    client.post(initialize).await;
    client.post(json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
    client.post(call(1, "notifications_received", json!({}))).await;
    let heard = json!(["notifications/initialized"]).to_string();
    assert!(client.message().await["result"]["protocolVersion"].is_string(), "that to initialize comes first");
    assert_eq!(text_of(&client.message().await), heard);
    client.request("tools/call", json!({"name": "crash"})).await;
    assert_eq!(client.call("notifications_received", json!({})).await, heard);
    gateway.finish().await;
}

#[tokio::test]
async fn a_call_waits_for_a_child_no_longer_than_for_its_answer() {
    let mut server = fixture("slow-start 4000");
    server.limits.call_timeout = Duration::from_millis(100);
    server.tools.insert("pid".to_owned(), Tool { timeout: Some(Duration::from_secs(60)), resend: None });
    let gateway = Gateway::start(server).await;
    let mut client = Sse::open(&gateway).await;
    let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello("2024-11-05")});
    for message in [initialize, call(1, "echo", json!({"text": "?"})), call(2, "pid", json!({}))] {
        client.post(message).await;
    }
    let given_up = client.message().await;
    let error = &given_up["error"];
    assert_eq!((&given_up["id"], &error["data"]["type"]), (&json!(1), &json!("call_timeout")), "{given_up}");
    assert!(error["message"].as_str().unwrap().contains("waited 100ms (limits.call_timeout)"), "{given_up}");
    assert!(client.message().await["result"]["protocolVersion"].is_string(), "that to initialize comes first");
    assert!(text_of(&client.message().await).parse::<u32>().is_ok(), "it has more time, and is sent");
    gateway.finish().await;
}

#[tokio::test]
async fn a_child_that_does_not_do_what_the_one_before_did_holds_nobody_up_for_ever() {
    let (mut server, mode) = switchable(&["echo"]);
    server.limits.start_timeout = Duration::from_secs(2);
    let gateway = Gateway::start(server).await;
    let mut client = gateway.streamable().await;
    for uri in ["fixture://a", "fixture://b", "fixture://c"] {
        let answer = client.request("resources/subscribe", json!({"uri": uri})).await;
        assert_eq!(answer["result"], json!({}), "{answer}");
    }
    mode.set(&["never-subscribe"]);
    client.request("tools/call", json!({"name": "crash"})).await;
    let all = json!(["fixture://a", "fixture://b", "fixture://c"]).to_string();
    assert_eq!(client.call("subscriptions", json!({})).await, all, "it is asked for all at once, ahead of the call");
    gateway.finish().await;
}

/// Sends `initialize` and two calls in one go; their answers come in this order.
async fn in_one_go(caller: Caller) {
    let mut client = Sse::open(&caller).await;
    let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello("2024-11-05")});
    for message in [initialize, call(1, "echo", json!({"text": "1"})), call(2, "echo", json!({"text": "2"}))] {
        client.post(message).await;
    }
    for id in 0..3 {
        assert_eq!(client.message().await["id"], id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_overtakes_that_to_initialize() {
    // Many at once, as whoever is late by chance is late when there is much to do.
    let gateway = Gateway::start_with([fixture("echo")], |config| {
        config.sessions.max_per_principal = 1000;
        config.http.max_connections = 1000;
    })
    .await;
    for _ in 0..5 {
        let clients: Vec<_> = (0..40).map(|_| tokio::spawn(in_one_go(gateway.clone()))).collect();
        for client in clients {
            client.await.unwrap();
        }
    }
    gateway.finish().await;
}

#[tokio::test]
async fn what_comes_right_behind_an_initialize_that_fails_fails_with_it() {
    for (mode, why) in [("exit 7", "server_start_failed"), ("initialize-error", "server_refused")] {
        let gateway = Gateway::start(fixture(mode)).await;
        let mut client = Sse::open(&gateway).await;
        let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello("2024-11-05")});
        // Those that come when it has failed already are told to send it first.
        for message in [initialize, call(1, "echo", json!({"text": "?"}))] {
            client.post(message).await;
        }
        let mut answers = [client.message().await, client.message().await];
        answers.sort_by_key(|answer| answer["id"].as_u64());
        assert!(answers[0].get("error").is_some(), "{answers:?}");
        let error = &answers[1]["error"];
        assert!(error["data"]["type"] == why || error["message"] == "send initialize first", "{mode}: {answers:?}");
        gateway.finish().await;
    }
}

#[tokio::test]
async fn a_result_of_initialize_without_a_version_is_an_error_for_the_client() {
    for result in ["{}", r#"{"protocolVersion":7}"#, "null", "[]"] {
        let answer = r#"{"jsonrpc":"2.0","id":'"$id"',"result":RESULT}"#.replace("RESULT", result);
        let script =
            r#"read -r line; id=${line#*\"id\":}; id=${id%%,*}; echo 'ANSWER'; cat"#.replace("ANSWER", &answer);
        let server = program("sh", &["-c", &script]);
        let gateway = Gateway::start(server).await;
        let message = json!({"jsonrpc": "2.0", "id": "mine", "method": "initialize", "params": hello("2025-06-18")});
        let reply = gateway.send(Request::post("/mcp", message)).await;
        let said = reply.json();
        assert_eq!((reply.status, &said["id"]), (200, &json!("mine")), "{result}: {said}");
        assert_eq!(said["error"]["data"]["type"], "server_refused", "{result}: {said}");
        assert_eq!(reply.header("mcp-session-id"), None, "{result}");
        gateway.finish().await;
    }
}

#[tokio::test]
async fn each_call_is_answered_though_the_child_ends_while_an_answer_waits_for_room() {
    let gateway = narrow(fixture("echo")).await;
    let mut client = gateway.sse().await;
    let pid = client.call("pid", json!({})).await;
    let (mut awaited, text) = (std::collections::BTreeSet::new(), "x".repeat(16 * 1024));
    // Until the stream is full, and calls stay in flight.
    loop {
        for _ in 0..10 {
            let id = 1000 + awaited.len() as u64;
            client.post(call(id, "echo", json!({"text": text}))).await;
            awaited.insert(id);
        }
        let mut looks = 0;
        let is_stuck = eventually("all are answered, or nothing moves", async || {
            let answered = gateway.metrics().await.sum("sluice_request_seconds_count", "method=\"tools/call\"");
            looks += 1;
            let are_all = answered > awaited.len() as f64;
            (are_all || looks > 20).then_some(!are_all)
        })
        .await;
        if is_stuck {
            break;
        }
    }
    proc::signal(pid.parse().unwrap(), Signal::KILL);
    gateway.until("it has ended", |m| m.sum("sluice_children_exits_total", "crashed") == 1.0).await;
    let all = async {
        while !awaited.is_empty() {
            awaited.remove(&client.message().await["id"].as_u64().unwrap());
        }
    };
    in_time("each has an answer", all).await;
    gateway.finish().await;
}
