//! Streamable HTTP, 2025-03-26 to 2025-11-25: POST, GET and DELETE, and what decides between JSON and a stream.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Gateway, Request, Streamable, fixture, hello, key, named, text_of};

fn call(id: u64, tool: &str, arguments: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": arguments}})
}

#[tokio::test]
async fn initialize_opens_a_session_and_says_its_id() {
    let gateway = Gateway::start(fixture("echo")).await;
    for path in ["/mcp", "/servers/fixture/mcp"] {
        let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello("2025-11-25")});
        let reply = gateway.send(Request::post(path, initialize)).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
        assert_eq!(reply.json()["result"]["protocolVersion"], "2025-11-25");
        let session = reply.header("mcp-session-id").unwrap();
        assert!(session.len() == 43 && session.bytes().all(|byte| byte.is_ascii_graphic()), "{session}");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_call_is_answered_with_json_where_nothing_else_is_sent() {
    let gateway = Gateway::start(fixture("echo")).await;
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let client = Streamable::initialize(&gateway, version).await;
        let reply = client.send(call(7, "echo", json!({"text": "plain"}))).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")), "{version}");
        assert_eq!(text_of(&reply.json()), "plain");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn progress_and_logs_come_on_the_stream_of_their_call() {
    let gateway = Gateway::start(fixture("echo")).await;
    let client = gateway.streamable().await;
    let mut get = client.stream().await;

    let mut progress = call(1, "progress", json!({"steps": 3, "ms": 1}));
    progress["params"]["_meta"] = json!({"progressToken": "a token"});
    let mut response = client.open(progress).await;
    assert!(response.status == 200 && response.is_stream(), "{response:?}");
    assert_eq!(response.header("cache-control"), Some("no-cache, no-transform"));
    for step in 1..=3 {
        let message = response.message().await.unwrap();
        let params = json!({"progressToken": "a token", "progress": step, "total": 3});
        assert_eq!(message, json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}));
    }
    let answer = response.message().await.unwrap();
    assert_eq!((&answer["id"], text_of(&answer).as_str()), (&json!(1), "3 steps"));
    assert_eq!(response.event().await, None, "the stream ends with the answer");

    let mut response = client.open(call(2, "log", json!({"level": "info", "text": "a line"}))).await;
    assert_eq!(response.message().await.unwrap()["params"], json!({"level": "info", "data": "a line"}));
    assert_eq!(response.message().await.unwrap()["id"], 2);
    assert_eq!(response.event().await, None);

    // Neither was on the other stream as well: the first message there is this one.
    client.send(call(3, "list_changed", json!({}))).await;
    assert_eq!(get.message().await.unwrap()["method"], "notifications/tools/list_changed");
    gateway.finish().await;
}

#[tokio::test]
async fn a_long_call_becomes_a_stream_that_is_kept_alive() {
    let gateway =
        Gateway::start_with([fixture("echo")], |config| config.http.keep_alive = Duration::from_millis(30)).await;
    let client = gateway.streamable().await;
    let mut response = client.open(call(1, "sleep", json!({"ms": 200}))).await;
    assert!(response.is_stream(), "{response:?}");
    let mut comments = 0;
    let answer = loop {
        let event = response.event().await.unwrap();
        match event.data {
            None => assert_eq!(event.raw, ": keep-alive\n\n"),
            Some(data) => break serde_json::from_str(&data).unwrap(),
        }
        comments += 1;
    };
    assert!(comments > 0);
    assert_eq!(text_of(&answer), "slept 200 ms");
    assert_eq!(response.event().await, None);
    gateway.finish().await;
}

#[tokio::test]
async fn what_is_no_request_is_accepted_without_a_body() {
    let gateway = Gateway::start(fixture("echo")).await;
    let mut client = gateway.streamable().await;
    for message in [
        json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}),
        json!({"jsonrpc": "2.0", "id": 99, "result": {}}),
        json!({"jsonrpc": "2.0", "id": 99, "error": {"code": -1, "message": "no"}}),
    ] {
        let reply = client.send(message).await;
        assert_eq!((reply.status, reply.text.as_str()), (202, ""));
    }
    let received = r#"["notifications/initialized","notifications/roots/list_changed"]"#;
    assert_eq!(client.call("notifications_received", json!({})).await, received);
    gateway.finish().await;
}

#[tokio::test]
async fn the_get_stream_takes_announcements_and_a_newer_one_takes_over() {
    let gateway = Gateway::start(fixture("echo")).await;
    let client = gateway.streamable().await;
    let mut first = client.stream().await;
    let reply = client.send(call(1, "list_changed", json!({}))).await;
    assert_eq!(reply.header("content-type"), Some("application/json"), "it is not on the stream of the call");
    assert_eq!(first.message().await.unwrap()["method"], "notifications/tools/list_changed");

    let mut second = client.stream().await;
    assert_eq!(first.event().await.unwrap().retry.as_deref(), Some("3000"));
    assert_eq!(first.event().await, None, "the older stream ends");
    client.send(call(2, "touch", json!({"uri": "fixture://note"}))).await;
    assert_eq!(second.message().await.unwrap()["params"]["uri"], "fixture://note");
    gateway.finish().await;
}

#[tokio::test]
async fn what_is_announced_before_there_is_a_stream_waits_for_it() {
    let gateway = Gateway::start(fixture("echo")).await;
    let client = gateway.streamable().await;
    for number in 0..3 {
        client.send(call(number, "touch", json!({"uri": format!("fixture://{number}")}))).await;
    }
    let mut stream = client.stream().await;
    for number in 0..3 {
        assert_eq!(stream.message().await.unwrap()["params"]["uri"], format!("fixture://{number}"));
    }
    client.send(call(4, "list_changed", json!({}))).await;
    assert_eq!(stream.message().await.unwrap()["method"], "notifications/tools/list_changed", "each comes once");
    gateway.finish().await;
}

#[tokio::test]
async fn delete_ends_the_session_and_its_child() {
    let gateway = Gateway::start(fixture("echo")).await;
    let mut bystander = gateway.bystander().await;
    let client = gateway.streamable().await;
    let mut stream = client.stream().await;
    let reply = client.delete().await;
    assert_eq!((reply.status, reply.text.as_str()), (200, ""));
    assert!(stream.event().await.unwrap().retry.is_some());
    assert_eq!(stream.event().await, None);
    gateway.until("the child is gone", |metrics| metrics.children() == 2.0).await;
    client.send(call(1, "pid", json!({}))).await.assert_error(404, -32600, "send initialize to start a new one");
    for request in [Request::get("/mcp"), Request::new("DELETE", "/mcp")] {
        gateway.send(client.with_headers(request)).await.assert_error(404, -32600, "no such session");
    }
    bystander.unharmed().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_call_in_flight_when_its_session_is_deleted_gets_an_error_that_says_so() {
    let gateway =
        Gateway::start_with([fixture("echo")], |config| config.http.keep_alive = Duration::from_millis(20)).await;
    let client = gateway.streamable().await;
    let mut response = client.open(call(1, "hang", json!({}))).await;
    assert_eq!(client.delete().await.status, 200);
    let answer = response.message().await.unwrap();
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(1), &json!(-32000)), "{answer}");
    assert_eq!(answer["error"]["data"], json!({"type": "session_ended", "retryable": true}));
    assert_eq!(response.message().await, None);
    gateway.finish().await;
}

#[tokio::test]
async fn a_session_must_be_named_and_ones_own() {
    let (mut mine, mut yours) = (String::new(), String::new());
    let gateway = Gateway::start_with([named("one", fixture("echo")), named("two", fixture("echo"))], |config| {
        mine = key(config, "acme", "me");
        yours = key(config, "else", "me");
    })
    .await;
    let (mine, yours) = (gateway.with_key(&mine).server("one"), gateway.with_key(&yours).server("one"));
    let mut client = mine.streamable().await;
    let sse = mine.sse().await;
    let of_sse = sse.endpoint.split_once('=').unwrap().1;
    let requests = |path: &str, session: &str| {
        [Request::post(path, call(5, "pid", json!({}))), Request::get(path), Request::new("DELETE", path)]
            .map(|request| request.header("Mcp-Session-Id", session))
    };
    for request in requests("/servers/one/mcp", &client.session) {
        let reply = mine.send(request.without("Mcp-Session-Id")).await;
        reply.assert_error(
            400,
            -32600,
            "send the header Mcp-Session-Id: the one that came with the answer to initialize",
        );
    }
    let unknown = "x".repeat(43);
    for (caller, path, session) in [
        (&yours, "/servers/one/mcp", client.session.as_str()),
        (&mine, "/servers/two/mcp", &client.session),
        (&mine, "/servers/one/mcp", of_sse),
        (&mine, "/servers/one/mcp", &unknown),
        (&mine, "/servers/one/mcp", "1"),
    ] {
        for (request, id) in requests(path, session).into_iter().zip([json!(5), Value::Null, Value::Null]) {
            let error = caller.send(request).await.assert_error(404, -32600, "there is no such session");
            assert_eq!(error["id"], id);
        }
    }
    client.call("pid", json!({})).await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_session_is_initialized_once() {
    let gateway = Gateway::start(fixture("echo")).await;
    let mut client = gateway.streamable().await;
    let again = json!({"jsonrpc": "2.0", "id": "again", "method": "initialize", "params": hello("2025-11-25")});
    let error = client.send(&again).await.assert_error(400, -32600, "send initialize without Mcp-Session-Id");
    assert_eq!(error["id"], "again");
    let unknown = Request::post("/mcp", &again).header("Mcp-Session-Id", &"x".repeat(43));
    gateway.send(unknown).await.assert_error(404, -32600, "no such session");
    assert_eq!(gateway.metrics().await.sessions(), 1.0);
    assert_eq!(client.call("echo", json!({"text": "still"})).await, "still");
    gateway.finish().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_before_the_first_answer_leaves_no_session() {
    let mut server = fixture("never-initialize");
    // The start goes on for so long, as the client may come back.
    server.limits.start_timeout = std::time::Duration::from_secs(1);
    let gateway = Gateway::start(server).await;
    let mut connection = gateway.connect().await;
    let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello("2025-11-25")});
    connection.write(&Request::post("/mcp", initialize).bytes(gateway.address)).await;
    gateway.until("a child", |metrics| metrics.children() == 1.0).await;
    drop(connection);
    gateway.until("it is gone", |metrics| metrics.children() == 0.0 && metrics.sessions() == 0.0).await;
    gateway.finish().await;
}

#[tokio::test]
async fn hanging_up_does_not_cancel_a_call() {
    let gateway = Gateway::start(fixture("echo")).await;
    let mut client = gateway.streamable().await;
    let mut connection = gateway.connect().await;
    let request = client.with_headers(Request::post("/mcp", call(1, "sleep", json!({"ms": 300}))));
    connection.write(&request.bytes(gateway.address)).await;
    gateway.until("the call is on its way", |metrics| metrics.sum("sluice_messages_total", "to_server") == 3.0).await;
    drop(connection);
    let closed = |metrics: &crate::harness::Metrics| metrics.dropped("stream_closed") == 1.0;
    gateway.until("the answer found nobody", closed).await;
    assert_eq!(client.call("cancelled", json!({})).await, "[]");
    gateway.finish().await;
}
