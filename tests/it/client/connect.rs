//! `connect`: every request is answered once, whatever the gateway does.

use std::sync::atomic::{AtomicU32, Ordering};

use axum::http::{Method, StatusCode};
use axum::response::IntoResponse as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::program::Connect;
use super::stub::{Gateway, event, json_body};

const PATHS: [&str; 2] = ["/mcp", "/sse"];

#[tokio::test]
async fn messages_pass_as_they_are() {
    for path in PATHS {
        let gateway = Gateway::start().await;
        let mut connect = Connect::initialized(&gateway.url(path), &[]).await;
        connect.call("\"x\\u0041\"", "add", r#"{"a":2,"b":5}"#).await;
        let answer = connect.receive().await;
        assert_eq!((&answer["id"], &answer["result"]["content"][0]["text"]), (&json!("xA"), &json!("7")), "{path}");
        connect
            .send(r#"{"jsonrpc":"2.0","id":2,"method":"vendor/unknown","params":{"z":1,"a":{"b":[]}},"extra":true}"#)
            .await;
        assert_eq!(connect.line().await, r#"{"id":2,"jsonrpc":"2.0","result":{}}"#, "{path}");
        let seen = gateway.wait_for(|seen| seen.what() == "vendor/unknown").await;
        assert_eq!((&seen.body["extra"], &seen.body["params"]), (&json!(true), &json!({ "z": 1, "a": { "b": [] } })));
        assert_eq!(seen.header("mcp-protocol-version"), Some("2025-06-18"));
        // What the server wrote over many lines is one here.
        connect.send(r#"{"jsonrpc":"2.0","id":3,"method":"tools/list"}"#).await;
        assert!(connect.line().await.contains(r#""vendor":1.0"#));
        let (rest, code) = connect.end().await;
        assert_eq!((rest, code), (vec![], Some(0)), "{path}");
    }
}

#[tokio::test]
async fn requests_do_not_wait_for_one_another() {
    for path in PATHS {
        let gateway = Gateway::start().await;
        let mut connect = Connect::initialized(&gateway.url(path), &[]).await;
        connect.call("1", "hangs", "{}").await;
        for id in 2..60 {
            connect.call(&id.to_string(), "add", &format!(r#"{{"a":{id},"b":1000}}"#)).await;
        }
        let mut answers = Vec::new();
        for _ in 2..60 {
            let answer = connect.receive().await;
            let id = answer["id"].as_i64().unwrap();
            assert_eq!(answer["result"]["content"][0]["text"], (id + 1000).to_string(), "{path}");
            answers.push(id);
        }
        answers.sort_unstable();
        assert_eq!(answers, (2..60).collect::<Vec<_>>(), "{path}");
    }
}

#[tokio::test]
async fn nothing_is_sent_before_initialize_is_answered() {
    for path in PATHS {
        let gateway = Gateway::start().await;
        let mut connect = Connect::start(&gateway.url(path), &[]);
        connect.send(r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}"#).await;
        connect.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
        connect.call("1", "add", r#"{"a":1,"b":1}"#).await;
        let (rest, code) = connect.end().await;
        assert_eq!(
            (rest.iter().map(|answer| &answer["id"]).collect::<Vec<_>>(), code),
            (vec![&json!(0), &json!(1)], Some(0))
        );
        assert_eq!(gateway.said(), ["initialize", "notifications/initialized", "add"], "{path}");
    }
}

#[tokio::test]
async fn the_end_of_stdin_closes_the_session_and_leaves_no_call_unanswered() {
    let gateway = Gateway::start().await;
    let mut connect = Connect::initialized(&gateway.url("/mcp"), &[]).await;
    connect.call("5", "hangs", "{}").await;
    connect.call("6", "add", r#"{"a":1,"b":1}"#).await;
    let (rest, code) = connect.end().await;
    assert_eq!(code, Some(0));
    let answer = |id| rest.iter().find(|answer| answer["id"] == id).unwrap();
    assert_eq!((rest.len(), &answer(6)["result"]["content"][0]["text"]), (2, &json!("2")));
    assert!(answer(5)["error"]["message"].as_str().unwrap().contains("stopped before the answer came"));
    assert!(gateway.stub.sessions.lock().is_empty());
}

#[tokio::test]
async fn a_termination_closes_the_session() {
    let gateway = Gateway::start().await;
    let connect = Connect::initialized(&gateway.url("/mcp"), &[]).await;
    gateway.wait_for(|seen| seen.what() == "notifications/initialized").await;
    let pid = Pid::from_raw(connect.child.id().unwrap().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    gateway.wait_for(|seen| seen.verb == Method::DELETE).await;
    assert_eq!(connect.end().await.1, Some(143));
}

#[tokio::test]
async fn messages_of_the_server_pass_and_so_do_the_answers_to_them() {
    for path in PATHS {
        let gateway = Gateway::start().await;
        let mut connect = Connect::initialized(&gateway.url(path), &[]).await;
        let reconnected = |times| {
            let count =
                move |gateway: &Gateway| gateway.seen().iter().filter(|seen| seen.verb == Method::GET).count() == times;
            let gateway = &gateway;
            async move {
                gateway.wait_for(move |_| count(gateway)).await;
                gateway.stub.sessions.lock().values().flatten().next().unwrap().clone()
            }
        };
        let events = reconnected(1).await;
        events.send(event(r#"{"jsonrpc":"2.0","id":"q","method":"roots/list"}"#)).await.unwrap();
        assert_eq!(connect.line().await, r#"{"jsonrpc":"2.0","id":"q","method":"roots/list"}"#, "{path}");
        connect.send(r#"{"jsonrpc":"2.0","id":"q","result":{"roots":[]}}"#).await;
        gateway.wait_for(|seen| seen.body["id"] == "q" && seen.body["result"]["roots"].is_array()).await;
        // And what the server asks while it works on a call comes before its answer.
        connect.call("9", "asks", "{}").await;
        let mut lines = Vec::new();
        for _ in 0..4 {
            lines.push(connect.receive().await);
        }
        assert_eq!((&lines[0]["method"], &lines[3]["id"]), (&json!("notifications/progress"), &json!(9)), "{path}");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_is_opened_again() {
    let gateway = Gateway::start().await;
    let mut connect = Connect::initialized(&gateway.url("/mcp"), &[]).await;
    let gets = |gateway: &Gateway| gateway.seen().iter().filter(|seen| seen.verb == Method::GET).count();
    gateway.wait_for(|seen| seen.verb == Method::GET).await;
    let first = gateway.stub.sessions.lock().get_mut("s1").unwrap().take().unwrap();
    first.send("id: e9\nretry: 1\n\n".to_owned()).await.unwrap();
    drop(first);
    let again = gateway.wait_for(|seen| seen.header("last-event-id") == Some("e9")).await;
    assert_eq!((again.header("mcp-session-id"), gets(&gateway)), (Some("s1"), 2));
    connect.call("1", "add", r#"{"a":1,"b":1}"#).await;
    assert_eq!(connect.receive().await["id"], 1);
}

#[tokio::test]
async fn a_session_that_is_gone_is_begun_again_unseen() {
    for path in PATHS {
        let gateway = Gateway::start().await;
        let mut connect = Connect::initialized(&gateway.url(path), &[]).await;
        connect.call("1", "add", r#"{"a":1,"b":1}"#).await;
        assert_eq!(connect.receive().await["id"], 1);
        gateway.stub.sessions.lock().clear();
        for id in 2..12 {
            connect.call(&id.to_string(), "add", &format!(r#"{{"a":{id},"b":1}}"#)).await;
        }
        let mut ids = Vec::new();
        for _ in 2..12 {
            let answer = connect.receive().await;
            assert!(answer["result"].is_object(), "{path}: {answer}");
            ids.push(answer["id"].as_i64().unwrap());
        }
        ids.sort_unstable();
        assert_eq!(ids, (2..12).collect::<Vec<_>>(), "{path}");
        let said = gateway.said();
        let count = |what| said.iter().filter(|said| *said == what).count();
        assert_eq!((count("initialize"), count("notifications/initialized")), (2, 2), "{path}");
        let handshakes: Vec<_> = gateway.seen().into_iter().filter(|seen| seen.what() == "initialize").collect();
        assert_eq!(handshakes[0].body["params"], handshakes[1].body["params"]);
        let (rest, code) = connect.end().await;
        assert_eq!((rest, code), (vec![], Some(0)), "{path}: the client sees nothing of it");
    }
}

#[tokio::test]
async fn a_call_that_is_lost_with_its_stream_gets_an_error() {
    for path in PATHS {
        let gateway = Gateway::start().await;
        let mut connect = Connect::initialized(&gateway.url(path), &[]).await;
        connect.call("1", "dies", "{}").await;
        let answer = connect.receive().await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(1), &json!(-32000)), "{path}: {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("may or may not have been made"), "{answer}");
        connect.call("2", "add", r#"{"a":1,"b":1}"#).await;
        assert_eq!(connect.receive().await["id"], 2, "{path}");
        assert_eq!(gateway.said().iter().filter(|said| *said == "dies").count(), 1, "{path}: it is not made twice");
    }
}

#[tokio::test]
async fn http_errors_become_answers() {
    let gateway = Gateway::with(|seen, _| match seen.what() {
        "busy" => Some((StatusCode::TOO_MANY_REQUESTS, [("retry-after", "3")]).into_response()),
        "broken" => Some(StatusCode::BAD_GATEWAY.into_response()),
        "strict" => Some(
            (StatusCode::BAD_REQUEST, r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"m","data":1}}"#)
                .into_response(),
        ),
        "garbage" => Some(json_body("}")),
        _ => None,
    })
    .await;
    let mut connect = Connect::initialized(&gateway.url("/mcp"), &[]).await;
    for (tool, error) in [
        (
            "busy",
            json!({ "code": -32003, "message": "the gateway is busy (429 Too Many Requests); try again in 3 s", "data": { "status": 429, "retryAfter": "3" } }),
        ),
        ("strict", json!({ "code": -32600, "message": "m", "data": 1 })),
    ] {
        connect.call("4", tool, "{}").await;
        assert_eq!(connect.receive().await, json!({ "jsonrpc": "2.0", "id": 4, "error": error }));
    }
    for tool in ["broken", "garbage"] {
        connect.call("4", tool, "{}").await;
        assert_eq!(connect.receive().await["error"]["code"], -32000);
    }
}

#[tokio::test]
async fn a_gateway_that_is_away_is_an_error_and_not_the_end() {
    let gateway = Gateway::start().await;
    let url = gateway.stop().await + "/mcp";
    let mut connect = Connect::start(&url, &[]);
    connect.send(r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}"#).await;
    let answer = connect.receive().await;
    assert!(answer["error"]["message"].as_str().unwrap().contains("cannot reach"), "{answer}");
    assert_eq!(connect.end().await, (vec![], Some(0)));
}

#[tokio::test]
async fn lines_that_are_no_message_are_answered_and_skipped() {
    let gateway = Gateway::start().await;
    let mut connect = Connect::initialized(&gateway.url("/mcp"), &[]).await;
    for (line, id, code) in [
        ("{", Value::Null, -32700),
        (r#"{"jsonrpc":"2.0","id":5}"#, json!(5), -32600),
        (&"x".repeat((16 << 20) + 1), Value::Null, -32600),
    ] {
        connect.send(line).await;
        let answer = connect.receive().await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&id, &json!(code)));
    }
    // A batch is the messages in it.
    connect.send(r#"[{"jsonrpc":"2.0","id":6,"method":"ping"}, {"jsonrpc":"2.0","id":7,"method":"ping"}]"#).await;
    let mut ids = [connect.receive().await["id"].as_i64(), connect.receive().await["id"].as_i64()];
    ids.sort_unstable();
    assert_eq!(ids, [Some(6), Some(7)]);
    // Two requests with the same id cannot both be answered.
    connect.call("8", "hangs", "{}").await;
    connect.call("8", "add", r#"{"a":1,"b":1}"#).await;
    assert_eq!(connect.receive().await["error"]["code"], -32600);
}

#[tokio::test]
async fn a_cancelled_call_is_not_waited_for() {
    for path in PATHS {
        let gateway = Gateway::start().await;
        let mut connect = Connect::initialized(&gateway.url(path), &[]).await;
        connect.call("1", "hangs", "{}").await;
        connect.send(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#).await;
        connect.call("1", "add", r#"{"a":1,"b":1}"#).await;
        let answer = connect.receive().await;
        assert_eq!((&answer["id"], &answer["result"]["content"][0]["text"]), (&json!(1), &json!("2")), "{path}");
        let (rest, code) = connect.end().await;
        assert_eq!((rest, code), (vec![], Some(0)), "{path}");
        let said = gateway.said();
        let place = |what| said.iter().position(|said| said == what).unwrap();
        assert!(place("hangs") < place("notifications/cancelled"), "{path}: {said:?}");
    }
}

#[tokio::test]
async fn a_cancelled_call_is_answered_with_nothing() {
    let gateway = crate::harness::Gateway::start(crate::harness::fixture("echo")).await;
    for path in PATHS {
        let mut connect = Connect::initialized(&format!("http://{}{path}", gateway.address), &[]).await;
        for id in 1..=20 {
            connect.call(&id.to_string(), "hang", "{}").await;
            let cancelled = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}});
            connect.send(&cancelled.to_string()).await;
        }
        connect.call("\"last\"", "echo", r#"{"text":"goes on"}"#).await;
        let answer = connect.receive().await;
        assert_eq!(
            (&answer["id"], &answer["result"]["content"][0]["text"]),
            (&json!("last"), &json!("goes on")),
            "{path}"
        );
        assert_eq!(connect.end().await, (vec![], Some(0)), "{path}");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_answered_and_cancelled() {
    let gateway = Gateway::start().await;
    let mut connect = Connect::initialized(&gateway.url("/mcp"), &["--timeout", "500ms"]).await;
    connect.call("1", "hangs", "{}").await;
    assert_eq!(connect.receive().await["error"]["code"], -32001);
    let cancelled = gateway.wait_for(|seen| seen.what() == "notifications/cancelled").await;
    assert_eq!(cancelled.body["params"]["requestId"], 1);
}

#[tokio::test]
async fn no_more_than_the_limit_is_in_flight() {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let gateway = Gateway::with(|seen, _| {
        if seen.what() == "hangs" {
            CALLS.fetch_add(1, Ordering::Relaxed);
        }
        None
    })
    .await;
    let mut connect = Connect::initialized(&gateway.url("/sse"), &[]).await;
    for id in 0..257 {
        connect.call(&id.to_string(), "hangs", "{}").await;
    }
    // The client may cancel, but not be heard: its line is behind the one that waits.
    gateway.wait_for(|_| CALLS.load(Ordering::Relaxed) == 256).await;
    let events = gateway.stub.sessions.lock().values().flatten().next().unwrap().clone();
    assert_eq!(CALLS.load(Ordering::Relaxed), 256);
    events.send(event(r#"{"jsonrpc":"2.0","id":17,"result":{}}"#)).await.unwrap();
    assert_eq!(connect.receive().await["id"], 17);
    gateway.wait_for(|_| CALLS.load(Ordering::Relaxed) == 257).await;
}
