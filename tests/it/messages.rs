//! Bodies that are no messages: each gets a JSON-RPC error that says what is wrong, and nobody else notices.

use serde_json::{Value, json};

use crate::harness::{Gateway, Request, fixture};

#[tokio::test]
async fn what_is_no_message_gets_an_error_on_both_transports() {
    let gateway = Gateway::start(fixture("echo")).await;
    let mut bystander = gateway.bystander().await;
    let (mut client, mut sse) = (gateway.streamable().await, gateway.sse().await);
    let deep = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"a":{open}{close}}}}}"#)
    };
    let (too_deep, far_too_deep) = (deep(127), deep(200_000));
    for (body, code, says, id) in [
        ("", -32700, "not JSON", Value::Null),
        ("{", -32700, "not JSON", Value::Null),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping",}"#, -32700, "not JSON", Value::Null),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping"} {}"#, -32700, "not JSON", Value::Null),
        ("{'jsonrpc':'2.0'}", -32700, "not JSON", Value::Null),
        ("sessionId=1&method=ping", -32700, "not JSON", Value::Null),
        (r#"{"jsonrpc":"2.0","id":1,"method":"a\ud800"}"#, -32700, "not JSON", Value::Null),
        ("7", -32600, "not a JSON-RPC object", Value::Null),
        ("null", -32600, "not a JSON-RPC object", Value::Null),
        (r#""text""#, -32600, "not a JSON-RPC object", Value::Null),
        ("{}", -32600, "no \"jsonrpc\": \"2.0\"", Value::Null),
        (r#"{"id":5,"method":"ping"}"#, -32600, "no \"jsonrpc\": \"2.0\"", json!(5)),
        (r#"{"jsonrpc":2.0,"id":5,"method":"ping"}"#, -32600, "no \"jsonrpc\": \"2.0\"", json!(5)),
        (r#"{"jsonrpc":"1.0","id":5,"method":"ping"}"#, -32600, "no \"jsonrpc\": \"2.0\"", json!(5)),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, -32600, "and not null", Value::Null),
        (r#"{"jsonrpc":"2.0","id":true,"method":"ping"}"#, -32600, "must be a string or a number", Value::Null),
        (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, -32600, "must be a string or a number", Value::Null),
        (r#"{"jsonrpc":"2.0","id":5,"method":7}"#, -32600, "a member has the wrong type", Value::Null),
        (
            r#"{"jsonrpc":"2.0","id":5,"method":"a","params":7}"#,
            -32600,
            "params must be an object or an array",
            json!(5),
        ),
        (r#"{"jsonrpc":"2.0","id":5,"method":"a","params":"{}"}"#, -32600, "params must be", json!(5)),
        (r#"{"jsonrpc":"2.0","id":5}"#, -32600, "no method, and not exactly one of result and error", json!(5)),
        (r#"{"jsonrpc":"2.0","id":5,"result":1,"error":{}}"#, -32600, "not exactly one", json!(5)),
        (
            r#"{"jsonrpc":"2.0","id":5,"method":"a","result":1}"#,
            -32600,
            "either a method, or a result or error",
            json!(5),
        ),
        (r#"{"jsonrpc":"2.0","id":5,"id":6,"method":"a"}"#, -32600, "not a JSON-RPC object", Value::Null),
        (&too_deep, -32600, "nested 129 deep; the limit is 128 (http.max_depth)", Value::Null),
        (&far_too_deep, -32600, "nested 200002 deep", Value::Null),
    ] {
        for request in [client.with_headers(Request::post("/mcp", body)), Request::post(&sse.endpoint, body)] {
            let error = gateway.send(request).await.assert_error(400, code, says);
            assert_eq!(error["id"], id, "{body}");
        }
    }
    let not_text = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\xfe\"}";
    let reply = gateway.send(client.with_headers(Request::post("/mcp", "")).body(not_text)).await;
    reply.assert_error(400, -32700, "not JSON");

    assert_eq!(client.send(deep(126)).await.status, 200, "as deep as may be");
    assert_eq!(client.call("notifications_received", json!({})).await, r#"["notifications/initialized"]"#);
    assert_eq!(sse.call("notifications_received", json!({})).await, r#"["notifications/initialized"]"#);
    bystander.unharmed().await;
    gateway.finish().await;
}

#[tokio::test]
async fn what_is_wrong_before_there_is_a_session_starts_no_child() {
    let gateway = Gateway::start(fixture("echo")).await;
    for body in ["{", "{}", "[]", r#"{"jsonrpc":"2.0","id":null,"method":"initialize"}"#] {
        assert_eq!(gateway.send(Request::post("/mcp", body)).await.status, 400, "{body}");
    }
    // A notification is no way to open a session.
    let reply = gateway.send(Request::post("/mcp", r#"{"jsonrpc":"2.0","method":"initialize"}"#)).await;
    reply.assert_error(400, -32600, "Mcp-Session-Id");
    let metrics = gateway.metrics().await;
    assert_eq!((metrics.sum("sluice_children_spawned_total", ""), metrics.sessions()), (0.0, 0.0));
    gateway.finish().await;
}

#[tokio::test]
async fn large_messages_pass_both_ways() {
    let gateway = Gateway::start(fixture("echo")).await;
    let (mut client, mut sse) = (gateway.streamable().await, gateway.sse().await);
    let text = "0123456789abcdef\u{e9}\u{1f980}".repeat(200_000);
    assert!(client.call("echo", json!({"text": text})).await == text);
    assert!(sse.call("echo", json!({"text": text})).await == text);
    gateway.finish().await;
}
