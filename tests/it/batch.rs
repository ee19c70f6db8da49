//! Batches, which one revision has (2025-03-26), and the versions that a request may name.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::{Gateway, Request, Sse, Streamable, fixture, hello, text_of};

fn echo(id: impl Into<Value>, text: &str) -> Value {
    let params = json!({"name": "echo", "arguments": {"text": text}});
    json!({"jsonrpc": "2.0", "id": id.into(), "method": "tools/call", "params": params})
}

fn notification() -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"})
}

/// The texts of answers, by the JSON text of their ids.
fn texts(answers: &[Value]) -> BTreeMap<String, String> {
    answers.iter().map(|answer| (answer["id"].to_string(), text_of(answer))).collect()
}

#[tokio::test]
async fn a_batch_is_answered_with_an_array() {
    let gateway = Gateway::start(fixture("echo")).await;
    let mut client = Streamable::initialize(&gateway, "2025-03-26").await;
    let batch = json!([echo(1, "one"), notification(), echo("1", "two"), echo(3, "three")]);
    let reply = client.send(batch).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    let answers: Vec<Value> = serde_json::from_str(&reply.text).unwrap();
    let expected = [("1", "one"), ("\"1\"", "two"), ("3", "three")];
    assert_eq!(texts(&answers), expected.map(|(id, text)| (id.to_owned(), text.to_owned())).into());

    // A batch of one is a batch.
    let answers: Vec<Value> = serde_json::from_str(&client.send(json!([echo(1, "alone")])).await.text).unwrap();
    assert_eq!(texts(&answers), [("1".to_owned(), "alone".to_owned())].into());

    client.notify(json!([notification(), {"jsonrpc": "2.0", "id": 1, "result": {}}])).await;
    let received = client.call("notifications_received", json!({})).await;
    assert_eq!(received.matches("roots/list_changed").count(), 2, "{received}");
    gateway.finish().await;
}

#[tokio::test]
async fn a_batch_with_progress_in_it_is_answered_on_a_stream() {
    let gateway = Gateway::start(fixture("echo")).await;
    let client = Streamable::initialize(&gateway, "2025-03-26").await;
    let arguments = json!({"name": "progress", "arguments": {"steps": 1, "ms": 1}, "_meta": {"progressToken": 1}});
    let progress = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": arguments});
    let mut response = client.open(json!([echo(1, "quick"), progress])).await;
    assert!(response.is_stream());
    let mut answers = Vec::new();
    let mut reports = 0;
    while let Some(message) = response.message().await {
        if message.get("id").is_some() { answers.push(message) } else { reports += 1 }
    }
    let expected = [("1", "quick"), ("2", "1 steps")].map(|(id, text)| (id.to_owned(), text.to_owned()));
    assert_eq!((texts(&answers), reports), (expected.into(), 1));
    gateway.finish().await;
}

#[tokio::test]
async fn a_batch_over_sse_is_answered_message_by_message() {
    let gateway = Gateway::start(fixture("echo")).await;
    let mut client = Sse::open(&gateway).await.initialized("2025-03-26").await;
    client.post(json!([echo(1, "one"), echo("b", "two")])).await;
    let answers = [client.message().await, client.message().await];
    let expected = [("1", "one"), ("\"b\"", "two")].map(|(id, text)| (id.to_owned(), text.to_owned()));
    assert_eq!(texts(&answers), expected.into());
    gateway.finish().await;
}

/// Three calls and a notification, of which the child takes the first call alone: all there is room for.
fn too_many() -> Value {
    let hang = json!({"jsonrpc": "2.0", "id": "first", "method": "tools/call", "params": {"name": "sleep", "arguments": {"ms": 300}}});
    json!([hang, echo(2, "no room"), notification(), echo(3, "no room")])
}

#[tokio::test]
async fn what_a_busy_server_does_not_take_of_a_batch_is_refused_alone() {
    let mut server = fixture("echo");
    server.limits.max_in_flight = 1;
    let gateway = Gateway::start(server).await;
    let mut client = Streamable::initialize(&gateway, "2025-03-26").await;
    let mut sse = Sse::open(&gateway).await.initialized("2025-03-26").await;
    let answers: Vec<Value> = serde_json::from_str(&client.send(too_many()).await.text).unwrap();
    sse.post(too_many()).await;
    let on_stream = [sse.message().await, sse.message().await, sse.message().await];
    for answers in [&answers, &on_stream.to_vec()] {
        let of = |id: Value| answers.iter().find(|answer| answer["id"] == id).unwrap();
        assert_eq!((answers.len(), text_of(of(json!("first")))), (3, "slept 300 ms".to_owned()));
        for id in [2, 3] {
            assert_eq!(of(json!(id))["error"]["data"]["type"], "overloaded", "{answers:?}");
        }
    }
    for received in
        [client.call("notifications_received", json!({})).await, sse.call("notifications_received", json!({})).await]
    {
        assert!(received.contains("roots/list_changed"), "{received}");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_notification_that_finds_no_room_costs_the_calls_of_its_batch_nothing() {
    let mut server = fixture("echo");
    server.limits.stdin_queue = 64 * 1024;
    let gateway = Gateway::start(server).await;
    let mut client = Streamable::initialize(&gateway, "2025-03-26").await;
    let mut sse = Sse::open(&gateway).await.initialized("2025-03-26").await;
    let large = json!({"jsonrpc": "2.0", "method": "x", "params": {"x": "x".repeat(60 * 1024)}});
    let mut batch = vec![echo(1, "first")];
    batch.extend(std::iter::repeat_n(large, 8));
    batch.push(echo(2, "last"));
    let children = [client.call("pid", json!({})).await, sse.call("pid", json!({})).await];
    for child in &children {
        crate::proc::signal(child.parse().unwrap(), rustix::process::Signal::STOP);
    }
    let refused = |metrics: &crate::harness::Metrics| metrics.dropped("refused");
    let go_on = async |child: &String, seen: f64| {
        gateway.until("some are refused", |metrics| refused(metrics) > seen).await;
        crate::proc::signal(child.parse().unwrap(), rustix::process::Signal::CONT);
    };
    let (reply, ()) = tokio::join!(client.send(json!(batch)), go_on(&children[0], 0.0));
    assert_eq!(reply.status, 200, "{reply:?}");
    let answers: Vec<Value> = serde_json::from_str(&reply.text).unwrap();
    assert_eq!((answers.len(), text_of(&answers[0])), (2, "first".to_owned()));
    let seen = refused(&gateway.metrics().await);
    let ((), ()) = tokio::join!(sse.post(json!(batch)), go_on(&children[1], seen));
    assert_eq!(text_of(&sse.message().await), "first");
    assert_eq!(sse.message().await["id"], 2);
    gateway.finish().await;
}

#[tokio::test]
async fn batches_of_other_revisions_and_misshapen_ones_are_refused() {
    let gateway = Gateway::start_with([fixture("echo")], |config| config.http.max_batch = 3).await;
    let mut client = Streamable::initialize(&gateway, "2025-03-26").await;
    let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello("2025-03-26")});
    let four = json!([echo(1, ""), echo(2, ""), echo(3, ""), echo(4, "")]);
    for (batch, says) in [
        (json!([]), "the batch is empty"),
        (four, "the batch has more than 3 messages, which is the limit (http.max_batch)"),
        (json!([echo(1, ""), 7]), "not a JSON-RPC object"),
        (json!([echo(1, ""), [echo(2, "")]]), "not a JSON-RPC object"),
        (json!([echo(1, ""), {"id": 2, "method": "ping"}]), "no \"jsonrpc\": \"2.0\""),
    ] {
        let error = client.send(batch).await.assert_error(400, -32600, says);
        assert!(error["id"] == Value::Null || error["id"] == 2, "{error}");
    }
    client.send("[1,").await.assert_error(400, -32700, "not JSON");
    let answers = client.send(json!([echo(1, "goes on"), initialize])).await.json();
    let refused = answers.as_array().unwrap().iter().find(|answer| answer["id"] == 0).unwrap();
    assert_eq!(refused["error"]["message"], "initialize must not be in a batch");
    assert_eq!(answers.as_array().unwrap().len(), 2, "{answers}");
    // Without a session there is nothing that a batch could belong to.
    gateway.send(Request::post("/mcp", json!([initialize]))).await.assert_error(400, -32600, "Mcp-Session-Id");
    assert_eq!(client.call("notifications_received", json!({})).await, r#"["notifications/initialized"]"#);

    for version in ["2024-11-05", "2025-06-18", "2025-11-25"] {
        let client = Streamable::initialize(&gateway, version).await;
        let reply = client.send(json!([echo(1, "")])).await;
        reply.assert_error(400, -32600, "batches are for protocol version 2025-03-26: send one message at a time");
    }
    let client = Sse::open(&gateway).await.initialized("2025-06-18").await;
    client.send(json!([echo(1, "")])).await.assert_error(400, -32600, "batches are for protocol version 2025-03-26");
    gateway.finish().await;
}

#[tokio::test]
async fn the_version_that_a_server_has_chosen_is_taken_in_its_sessions_and_in_no_other() {
    for chosen in ["2024-10-07", "2026-07-28", "x"] {
        let gateway = Gateway::start(fixture(&format!("version {chosen}"))).await;
        let client = gateway.streamable().await;
        let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
        let requests = |version: &str| {
            [
                client.with_headers(Request::post("/mcp", &ping)).header("MCP-Protocol-Version", version),
                client.with_headers(Request::new("DELETE", "/mcp")).header("MCP-Protocol-Version", version),
            ]
        };
        for other in ["2024-10-08", "2026-07-28x", ""] {
            for request in requests(other) {
                assert_eq!(gateway.send(request).await.status, 400, "{chosen}, not {other:?}");
            }
        }
        let nobodys = Request::post("/mcp", &ping).header("Mcp-Session-Id", "unknown");
        assert_eq!(gateway.send(nobodys.header("MCP-Protocol-Version", chosen)).await.status, 400, "{chosen}");
        let sse = gateway.sse().await;
        let on_sse = Request::post(&sse.endpoint, &ping).header("MCP-Protocol-Version", chosen);
        assert_eq!(gateway.send(on_sse).await.status, 202, "{chosen}");
        for request in requests(chosen) {
            let reply = gateway.send(request).await;
            assert_eq!(reply.status, 200, "{chosen}: {reply:?}");
        }
        drop(sse);
        gateway.finish().await;
    }
}

#[tokio::test]
async fn the_version_header_is_not_needed_but_must_be_known() {
    let gateway = Gateway::start(fixture("echo")).await;
    let (client, sse) = (gateway.streamable().await, gateway.sse().await);
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    let post = |path: &str| client.with_headers(Request::post(path, &ping)).without("MCP-Protocol-Version");
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        // It need not be the negotiated one.
        let reply = gateway.send(post("/mcp").header("MCP-Protocol-Version", version)).await;
        assert_eq!(reply.status, 200, "{version}: {reply:?}");
    }
    assert_eq!(gateway.send(post("/mcp")).await.status, 200);
    for version in ["1999-01-01", "2024-10-07", "draft", "", "\u{fc}"] {
        for request in [
            post("/mcp").header("MCP-Protocol-Version", version),
            Request::post(&sse.endpoint, &ping).header("MCP-Protocol-Version", version),
            client.with_headers(Request::get("/mcp")).header("MCP-Protocol-Version", version),
            client.with_headers(Request::new("DELETE", "/mcp")).header("MCP-Protocol-Version", version),
        ] {
            let reply = gateway.send(request).await;
            reply.assert_error(400, -32600, "supported: 2025-11-25, 2025-06-18, 2025-03-26, 2024-11-05");
        }
    }
    assert_eq!(gateway.send(post("/mcp")).await.status, 200, "the session goes on");
    gateway.finish().await;
}

#[tokio::test]
async fn a_client_of_the_stateless_revision_is_told_to_fall_back() {
    let gateway = Gateway::start(fixture("echo")).await;
    let mut sse = gateway.sse().await;
    let ask = |method: &str, meta: Value| json!({"jsonrpc": "2.0", "id": "probe", "method": method, "params": {"_meta": meta}});
    let discover = |meta: Value| ask("server/discover", meta);
    let modern = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
    let supported = json!(["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"]);
    let later = json!({"io.modelcontextprotocol/protocolVersion": "2031-01-01"});
    // The probe is an unknown method, as it is to a server that never heard of it: rmcp falls back on that only.
    for (body, header, status, code, requested) in [
        (discover(modern.clone()), None, 404, -32601, "2026-07-28"),
        (ask("tools/list", modern.clone()), None, 400, -32022, "2026-07-28"),
        (discover(modern.clone()), Some("2026-07-28"), 404, -32601, "2026-07-28"),
        // The header alone says it: the error has the id all the same.
        (discover(json!({})), Some("2026-07-28"), 400, -32022, "2026-07-28"),
        (ask("initialize", json!({})), Some("2026-07-28"), 400, -32022, "2026-07-28"),
        (discover(later), None, 404, -32601, "2031-01-01"),
    ] {
        let with = |request: Request| match header {
            Some(version) => request.header("MCP-Protocol-Version", version),
            None => request,
        };
        let error = gateway.send(with(Request::post("/mcp", &body))).await;
        let error = error.assert_error(status, code, "unsupported protocol version");
        assert_eq!(error["id"], "probe");
        assert_eq!(error["error"]["data"], json!({"supported": supported, "requested": requested}));
        // On HTTP+SSE no answer has a status of its own.
        let reply = gateway.send(with(Request::post(&sse.endpoint, &body))).await;
        assert_eq!((reply.status, reply.text.as_str()), (202, "Accepted"), "{body}");
        assert_eq!(sse.message().await, error, "the same error comes on the stream");
    }
    for body in [json!({"jsonrpc": "2.0", "method": "x"}), json!([discover(modern)])] {
        for path in ["/mcp", &sse.endpoint] {
            let request = Request::post(path, &body).header("MCP-Protocol-Version", "2026-07-28");
            let error = gateway.send(request).await.assert_error(400, -32022, "unsupported protocol version");
            assert_eq!(error["id"], Value::Null, "there is no one request that it could be of");
        }
    }
    assert_eq!(sse.call("echo", json!({"text": "goes on"})).await, "goes on");
    assert_eq!(gateway.metrics().await.children(), 1.0, "no child is started for a probe");
    gateway.finish().await;
}
