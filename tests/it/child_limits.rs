//! What takes too long or is too much: a typed error for the one who caused it, and the session goes on.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::eventually;
use crate::scene::{BOTH, Client, Scene, Wire, fixture};

#[tokio::test]
async fn a_call_that_takes_too_long_is_cancelled_and_the_session_goes_on() {
    for wire in BOTH {
        let mut server = fixture(&["echo"]);
        server.limits.call_timeout = Duration::from_millis(200);
        let scene = Scene::of(server).await;
        let client = scene.open(wire).await;
        let call =
            r#"{"jsonrpc":"2.0","id":"mine","method":"tools/call","params":{"name":"sleep","arguments":{"ms":1000}}}"#;
        let answer: Value = serde_json::from_str(&client.exchange_raw(call, "\"mine\"").await).unwrap();
        assert_eq!(answer["id"], "mine");
        assert_eq!(answer["error"]["code"], -32001, "{answer}");
        assert_eq!(answer["error"]["data"]["type"], "call_timeout", "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains("200ms (limits.call_timeout)"), "{message}");
        // The client's id means nothing to the child, which knows the call by a number.
        let calls = client.text("calls", json!({})).await;
        let number = calls.split(' ').next().unwrap();
        assert_eq!(client.text("cancelled", json!({})).await, format!("[{number}]"));
        // Its answer comes all the same, and is for nobody.
        scene.until("the late answer is dropped", |m| m.dropped("unknown_id") == 1).await;
        assert_eq!(scene.counts().await.spawned(), 1);
        client.close().await;
        scene.finish().await;
    }
}

async fn report_progress(wire: Wire) {
    let mut server = fixture(&["echo"]);
    server.limits.call_timeout = Duration::from_millis(1500);
    let scene = Scene::of(server).await;
    let client = scene.open(wire).await;
    let params = json!({"name": "progress", "arguments": {"steps": 4, "ms": 700}, "_meta": {"progressToken": "p"}});
    let answer = client.request("tools/call", params).await;
    assert_eq!(answer["result"]["content"][0]["text"], "4 steps", "{answer}");
    let progress: Vec<Value> = client.unsolicited().into_iter().map(|m| m["params"]["progress"].clone()).collect();
    assert_eq!(progress, [1, 2, 3, 4]);
    assert!(client.unsolicited().iter().all(|m| m["params"]["progressToken"] == "p"));
    client.close().await;
    scene.finish().await;
}

#[tokio::test]
async fn progress_gives_a_call_more_time() {
    tokio::join!(report_progress(Wire::Sse), report_progress(Wire::Streamable));
}

#[tokio::test]
async fn a_request_of_the_server_that_the_client_never_answers_fails_over_there() {
    for wire in BOTH {
        let mut server = fixture(&["echo"]);
        server.limits.call_timeout = Duration::from_millis(1000);
        let scene = Scene::of(server).await;
        let client = scene.open(wire).await;
        let call = client.start_call("sample", json!({"prompt": "anybody there?"}));
        let asked = client.next_unsolicited().await;
        assert_eq!(asked["method"], "sampling/createMessage");
        // The call that has caused it is kept alive by progress meanwhile.
        let calls = client.text("calls", json!({})).await;
        let number: u64 = calls.split(' ').next().unwrap().parse().unwrap();
        let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": number, "progress": 1}})
            .to_string();
        while !call.is_finished() {
            client.text("raw", json!({"line": progress})).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let answer = call.await.unwrap();
        let text = answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"));
        assert!(text.contains("the client did not answer within 1s"), "{answer}");
        // The client's answer comes too late for anybody.
        client.send(&json!({"jsonrpc": "2.0", "id": asked["id"], "result": {}})).await;
        scene.until("the late answer is dropped", |m| m.dropped("unknown_response") == 1).await;
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn too_many_calls_in_flight_are_told_to_come_back() {
    for wire in BOTH {
        let mut server = fixture(&["echo"]);
        server.limits.max_in_flight = 2;
        let scene = Scene::of(server).await;
        let client = scene.open(wire).await;
        let hanging: Vec<_> = (0..2).map(|_| client.start_call("hang", json!({}))).collect();
        scene.until("both are in flight", |m| m.to_server() == 4).await;
        let third = client.exchange_raw(r#"{"jsonrpc":"2.0","id":"third","method":"ping"}"#, r#""third""#).await;
        let error = serde_json::from_str::<Value>(&third).unwrap()["error"].clone();
        assert!(error["message"].as_str().unwrap().contains("too many calls are waiting"), "{error}");
        assert_eq!(error["data"], json!({"type": "overloaded", "retryable": true, "retryAfter": 1}));
        // Another session has its own child, and its own limit.
        let other = scene.open(wire).await;
        assert_eq!(other.text("echo", json!({"text": "free"})).await, "free");
        other.close().await;
        // What is not in flight any more makes room.
        client.notify("notifications/cancelled", json!({"requestId": 2})).await;
        assert_eq!(client.text("echo", json!({"text": "room again"})).await, "room again");
        client.close().await;
        hanging.iter().for_each(tokio::task::JoinHandle::abort);
        scene.finish().await;
    }
}

#[tokio::test]
async fn bytes_that_a_child_does_not_read_are_bounded() {
    for wire in BOTH {
        let mut server = fixture(&["no-read"]);
        server.limits.stdin_queue = 64 * 1024;
        server.limits.stdin_grace = Duration::from_millis(100);
        server.limits.term_grace = Duration::from_millis(100);
        let scene = Scene::of(server).await;
        let client = scene.open(wire).await;
        let big = "x".repeat(100 * 1024);
        let calls: Vec<_> = (0..10).map(|_| client.start_call("echo", json!({"text": big}))).collect();
        // The pipe holds some, the writer one, the queue one.
        eventually("the rest is refused", async || {
            (calls.iter().filter(|call| call.is_finished()).count() >= 7).then_some(())
        })
        .await;
        // Until the writer has taken its one, one more may have room.
        let refused = eventually("one more is refused", async || {
            // One that has room is not answered: the child does not read it.
            let more = client.request("x/y", json!({"text": big}));
            tokio::time::timeout(Duration::from_millis(300), more).await.ok()
        });
        let error = refused.await["error"].clone();
        assert!(error["message"].as_str().unwrap().contains("the server is busy"), "{error}");
        assert_eq!(error["data"], json!({"type": "overloaded", "retryable": true, "retryAfter": 1}));
        close_with_calls(client, calls).await;
        scene.finish().await;
    }
}

async fn close_with_calls(client: Client, calls: Vec<tokio::task::JoinHandle<Value>>) {
    client.close().await;
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn the_kernel_ends_children_before_the_gateway() {
    let score = |pid: u32| -> i32 {
        let text = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        text.trim().parse().unwrap()
    };
    let scene = Scene::of(fixture(&["echo"])).await;
    let client = scene.open(Wire::Streamable).await;
    let child: u32 = client.text("pid", json!({})).await.parse().unwrap();
    let own = score(std::process::id());
    assert_eq!(score(child), (own + 500).min(1000), "the gateway has {own}");
    client.close().await;
    scene.finish().await;
}
