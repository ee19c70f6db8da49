//! What a server asks its client: sampling, elicitation, roots. The answer finds its way back, and nothing else does.

use serde_json::{Value, json};

use crate::harness::{Gateway, Response, Sse, Streamable, fixture, text_of};

/// A call that makes the server ask, what it asks, what the client answers, and the text of the call's result.
fn cases() -> [(Value, &'static str, Value, String); 5] {
    let sampled = json!({"role": "assistant", "content": {"type": "text", "text": "blue"}, "model": "m"});
    let elicited = json!({"action": "accept", "content": {"name": "Ada"}});
    let roots = json!({"roots": [{"uri": "file:///home"}]});
    let refused = json!({"code": -32601, "message": "no such thing here"});
    let (asks_sample, asks_custom) =
        (json!({"prompt": "which colour?"}), json!({"method": "x/ask", "params": {"a": 1}}));
    [
        (
            json!({"name": "sample", "arguments": asks_sample}),
            "sampling/createMessage",
            json!({"result": sampled}),
            "blue".to_owned(),
        ),
        (
            json!({"name": "elicit", "arguments": {"message": "who?"}}),
            "elicitation/create",
            json!({"result": elicited}),
            elicited.to_string(),
        ),
        (json!({"name": "roots", "arguments": {}}), "roots/list", json!({"result": roots}), roots.to_string()),
        (
            json!({"name": "roots", "arguments": {}}),
            "roots/list",
            json!({"error": refused}),
            "no such thing here".to_owned(),
        ),
        (
            json!({"name": "unknown_request", "arguments": asks_custom}),
            "x/ask",
            json!({"result": {"b": 2}}),
            r#"{"b":2}"#.to_owned(),
        ),
    ]
}

fn answer_to(request: &Value, mut answer: Value) -> Value {
    answer["jsonrpc"] = json!("2.0");
    answer["id"] = request["id"].clone();
    answer
}

#[tokio::test]
async fn requests_of_the_server_make_the_round_trip_over_streamable_http() {
    // The same ids in every child: 0, 1, … of one, strings of the other.
    for mode in ["echo", "string-ids"] {
        let gateway = Gateway::start(fixture(mode)).await;
        let client = gateway.streamable().await;
        for (call, method, answer, text) in cases() {
            let call = json!({"jsonrpc": "2.0", "id": 0, "method": "tools/call", "params": call});
            let mut response = client.open(call).await;
            assert!(response.is_stream());
            let request = response.message().await.unwrap();
            assert_eq!(request["method"], method);
            client.notify(answer_to(&request, answer)).await;
            let result = response.message().await.unwrap();
            assert_eq!(result["id"], 0);
            assert!(text_of(&result).contains(&text), "{text} is not in {result}");
            assert_eq!(response.message().await, None);
        }
        gateway.finish().await;
    }
}

#[tokio::test]
async fn requests_of_the_server_make_the_round_trip_over_sse() {
    let gateway = Gateway::start(fixture("echo")).await;
    let mut sse = gateway.sse().await;
    for (call, method, answer, text) in cases() {
        sse.post(json!({"jsonrpc": "2.0", "id": 0, "method": "tools/call", "params": call})).await;
        let request = sse.message().await;
        assert_eq!(request["method"], method);
        sse.post(answer_to(&request, answer)).await;
        let result = sse.message().await;
        assert_eq!(result["id"], 0);
        assert!(text_of(&result).contains(&text), "{text} is not in {result}");
    }
    gateway.finish().await;
}

/// Answers the `roots/list` that comes next, with one root.
async fn answer_roots(client: &Streamable, stream: &mut Response, uri: &str) {
    let mut request = stream.message().await.unwrap();
    // After a replacement it is said as well that the lists may be others.
    while request["method"].as_str().is_some_and(|method| method.ends_with("/list_changed")) {
        request = stream.message().await.unwrap();
    }
    assert_eq!(request["method"], "roots/list");
    client.notify(answer_to(&request, json!({"result": {"roots": [{"uri": uri}]}}))).await;
}

#[tokio::test]
async fn what_a_new_child_asks_while_it_is_told_what_the_old_one_knew_is_for_the_client() {
    let gateway = Gateway::start(fixture("roots-first")).await;
    let mut client = gateway.streamable().await;
    let mut stream = client.stream().await;
    answer_roots(&client, &mut stream, "file:///first").await;
    assert!(client.request("tools/list", json!({})).await["result"]["tools"].is_array());
    let crashed = client.request("tools/call", json!({"name": "crash", "arguments": {"code": 1}})).await;
    assert_eq!(crashed["error"]["data"]["type"], "server_exited", "{crashed}");
    answer_roots(&client, &mut stream, "file:///second").await;
    let answered: Value = serde_json::from_str(&client.call("first_roots", json!({})).await).unwrap();
    assert_eq!(answered["result"]["roots"][0]["uri"], "file:///second");
    gateway.finish().await;
}

#[tokio::test]
async fn with_several_calls_in_flight_the_get_stream_is_asked() {
    let gateway = Gateway::start(fixture("echo")).await;
    let client = gateway.streamable().await;
    let mut stream = client.stream().await;
    let call = |id: u64, tool: &str| {
        let params = json!({"name": tool, "arguments": {"prompt": "?"}});
        client.open(json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}))
    };
    let converse = async {
        gateway.until("the first call", |metrics| metrics.sum("sluice_messages_total", "to_server") == 3.0).await;
        let answer = async {
            // Which call has caused it, nobody can tell.
            let request = stream.message().await.unwrap();
            assert_eq!(request["method"], "sampling/createMessage");
            let sampled = json!({"role": "assistant", "content": {"type": "text", "text": "sampled"}, "model": "m"});
            client.notify(answer_to(&request, json!({"result": sampled}))).await;
        };
        let (sampled, ()) = tokio::join!(call(2, "sample"), answer);
        assert_eq!(text_of(&sampled.reply().await.json()), "sampled");
        let params = json!({"requestId": 1});
        client.notify(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})).await;
    };
    let (hung, ()) = tokio::join!(call(1, "hang"), converse);
    assert_eq!(hung.reply().await.text, "");
    gateway.finish().await;
}

#[tokio::test]
async fn an_answer_to_what_was_never_asked_is_dropped_and_counted() {
    let gateway = Gateway::start(fixture("echo")).await;
    let mut bystander = gateway.bystander().await;
    let (mut client, mut sse) = (gateway.streamable().await, gateway.sse().await);
    for id in [json!(0), json!(1), json!("0"), json!(1.5), json!(1_000_000)] {
        let answer = json!({"jsonrpc": "2.0", "id": id, "result": {"content": {"text": "forged"}}});
        client.notify(&answer).await;
        sse.post(&answer).await;
    }
    assert_eq!(gateway.metrics().await.dropped("unknown_response"), 10.0);
    assert_eq!(client.call("echo", json!({"text": "still"})).await, "still");
    assert_eq!(sse.call("echo", json!({"text": "still"})).await, "still");
    bystander.unharmed().await;
    gateway.finish().await;
}

/// Makes the server ask over SSE; returns the request.
async fn asked(sse: &mut Sse) -> Value {
    let params = json!({"name": "roots", "arguments": {}});
    sse.post(json!({"jsonrpc": "2.0", "id": "call", "method": "tools/call", "params": params})).await;
    sse.message().await
}

#[tokio::test]
async fn an_answer_counts_once_and_from_its_own_session_only() {
    let gateway = Gateway::start(fixture("echo")).await;
    let (mut mine, yours) = (gateway.sse().await, gateway.sse().await);
    let also_yours = Streamable::initialize(&gateway, "2025-11-25").await;
    let request = asked(&mut mine).await;
    let forged = answer_to(&request, json!({"result": {"roots": "forged"}}));
    yours.post(&forged).await;
    also_yours.notify(&forged).await;
    assert_eq!(gateway.metrics().await.dropped("unknown_response"), 2.0);
    mine.post(answer_to(&request, json!({"result": {"roots": "mine"}}))).await;
    mine.post(answer_to(&request, json!({"result": {"roots": "once more"}}))).await;
    let result = mine.message().await;
    assert_eq!((&result["id"], text_of(&result).as_str()), (&json!("call"), r#"{"roots":"mine"}"#));
    gateway.until("the second is dropped", |metrics| metrics.dropped("unknown_response") == 3.0).await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_ping_of_the_server_is_answered_by_the_gateway() {
    let gateway = Gateway::start(fixture("echo")).await;
    let (mut client, mut sse) = (gateway.streamable().await, gateway.sse().await);
    let arguments = json!({"method": "ping", "params": {}});
    for text in [client.call("unknown_request", arguments.clone()).await, sse.call("unknown_request", arguments).await]
    {
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["result"], json!({}), "{answer}");
    }
    assert!(sse.unsolicited.is_empty(), "the client is not bothered: {:?}", sse.unsolicited);
    gateway.finish().await;
}
