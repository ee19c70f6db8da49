//! Sessions that share a child, and what one of them does that the others must not feel: it does not read, it leaves
//! with work behind it, it wants another log level, it says what it was not asked.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice::config::{Isolation, Server};

use crate::harness::{Gateway, Request, Sse, fixture, in_time};
use crate::limits::sse_without_reader;

fn shared() -> Server {
    let mut server = fixture("echo");
    server.isolation = Isolation::Shared;
    server
}

fn call(id: u64, tool: &str, arguments: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": arguments}})
}

#[tokio::test]
async fn who_does_not_read_is_cut_and_the_others_get_everything() {
    let gateway = Gateway::start_with([shared()], |config| {
        // Whoever waits for the one who does not read waits longer than this test.
        config.http.slow_client_timeout = Duration::from_secs(600);
        config.http.stream_messages = 64;
        config.http.stream_bytes = 1024 * 1024;
    })
    .await;
    let mut fast = Vec::new();
    for _ in 0..4 {
        fast.push(gateway.sse().await);
    }
    let (endpoint, deaf) = sse_without_reader(&gateway).await;
    let mut turn = 0;
    // Its session takes calls for as long as its stream is there.
    let big = json!({"bytes": 256 * 1024});
    while gateway.send(Request::post(&endpoint, call(turn, "big", big.clone()))).await.status == 202 {
        turn += 1;
        assert!(turn < 500, "it is never cut");
        assert_eq!(fast[0].call("list_changed", json!({})).await, "changed");
        for (number, client) in fast.iter_mut().enumerate() {
            let message = client.message().await;
            assert_eq!(message["method"], "notifications/tools/list_changed", "session {number}, turn {turn}");
            let mut message = call(turn, "progress", json!({"steps": 3, "ms": 0}));
            message["params"]["_meta"] = json!({"progressToken": "mine"});
            client.post(message).await;
            for step in 1..=3 {
                assert_eq!(client.message().await["params"]["progress"], step);
            }
            assert_eq!(client.message().await["id"], turn);
        }
    }
    assert!(gateway.metrics().await.dropped("slow_client") > 0.0);
    println!("the one who does not read was cut in turn {turn}");
    gateway.send(Request::post(&endpoint, call(0, "pid", json!({})))).await.assert_error(
        404,
        -32600,
        "no such session",
    );
    // One more round: nothing was held back for the others, and nothing comes twice.
    fast[1].call("list_changed", json!({})).await;
    for (number, client) in fast.iter_mut().enumerate() {
        assert_eq!(client.call("echo", json!({"text": "the last"})).await, "the last");
        assert_eq!(client.message().await["method"], "notifications/tools/list_changed", "session {number}");
        assert!(client.unsolicited.is_empty(), "session {number}: {:?}", client.unsolicited);
    }
    assert_eq!(gateway.metrics().await.children(), 1.0);
    drop(deaf);
    gateway.until("its session has ended", |metrics| metrics.sessions() == 4.0).await;
    gateway.finish().await;
}

#[tokio::test]
async fn the_child_hears_the_loudest_level_and_each_session_gets_its_own() {
    let gateway = Gateway::start(shared()).await;
    let (mut quiet, mut loud) = (gateway.sse().await, gateway.sse().await);
    let mut watcher = gateway.sse().await;
    let level = async |client: &mut Sse, level: &str| client.request("logging/setLevel", json!({"level": level})).await;
    assert_eq!(level(&mut quiet, "shrill").await["error"]["code"], -32602);
    assert_eq!(level(&mut quiet, "error").await["result"], json!({}));
    assert_eq!(level(&mut loud, "debug").await["result"], json!({}));
    assert_eq!(level(&mut quiet, "warning").await["result"], json!({}), "the child is loud enough");
    assert_eq!(watcher.call("levels", json!({})).await, r#"["error","debug"]"#);
    // Whose a line is, cannot be told while there are several.
    loud.call("log", json!({"level": "emergency", "text": "whose?"})).await;
    drop(loud);
    gateway.until("it has left", |metrics| metrics.sessions() == 2.0).await;
    assert_eq!(watcher.call("levels", json!({})).await, r#"["error","debug","warning"]"#);
    drop(watcher);
    gateway.until("it is alone", |metrics| metrics.sessions() == 1.0).await;
    for (text, level) in [("too quiet", "info"), ("loud enough", "warning"), ("louder", "critical")] {
        quiet.call("log", json!({"level": level, "text": text})).await;
    }
    let heard: Vec<Value> = quiet.unsolicited.drain(..).map(|message| message["params"]["data"].clone()).collect();
    assert_eq!(heard, ["loud enough", "louder"]);
    // Another child is told what is left.
    quiet.request("tools/call", json!({"name": "crash", "arguments": {"code": 1}})).await;
    assert_eq!(quiet.call("levels", json!({})).await, r#"["warning"]"#);
    gateway.finish().await;
}

#[tokio::test]
async fn who_waits_for_anothers_subscription_is_told_how_long_the_server_had() {
    let mut server = fixture("never-subscribe");
    server.isolation = Isolation::Shared;
    server.limits.call_timeout = Duration::from_millis(300);
    let gateway = Gateway::start(server).await;
    let (mut one, mut two) = (gateway.sse().await, gateway.sse().await);
    let subscribe =
        async |client: &mut Sse| client.request("resources/subscribe", json!({"uri": "fixture://note"})).await;
    let (first, second) = tokio::join!(subscribe(&mut one), subscribe(&mut two));
    for answer in [first, second] {
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains("did not answer within 300ms"), "{message}");
    }
    // The child, which did it, has heard that nobody wants it any more.
    assert_eq!(one.call("subscriptions", json!({})).await, "[]");
    gateway.finish().await;
}

#[tokio::test]
async fn what_the_child_asks_for_one_who_has_left_or_given_up_is_put_to_nobody_else() {
    for leaves in [true, false] {
        let gateway = Gateway::start(shared()).await;
        let (one, mut two) = (gateway.sse().await, gateway.sse().await);
        let params = json!({"message": "whose name?"});
        let late = json!({"method": "elicitation/create", "params": params, "late": true});
        let cancel =
            |id: u64| json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}});
        one.post(call(1, "unknown_request", late)).await;
        two.post(call(2, "hang", json!({}))).await;
        let one = if leaves {
            drop(one);
            None
        } else {
            one.post(cancel(1)).await;
            Some(one)
        };
        // The child has been refused, and answers what nobody waits for.
        gateway.until("the late answer", |metrics| metrics.dropped("unknown_id") == 1.0).await;
        two.post(cancel(2)).await;
        two.call("pid", json!({})).await;
        assert!(two.unsolicited.is_empty(), "it was asked what another's call has caused: {:?}", two.unsolicited);
        drop(one);
        gateway.finish().await;
    }
}

#[tokio::test]
async fn a_call_that_a_neighbour_has_cancelled_stands_in_the_way_for_the_grace_and_not_for_ever() {
    let grace = Duration::from_secs(1);
    let mut server = shared();
    server.limits.cancel_grace = Some(grace);
    let gateway = Gateway::start(server).await;
    let (mut one, mut two) = (gateway.sse().await, gateway.sse().await);
    // Its call is never answered, as with a server that stops at a cancellation.
    two.post(call(1, "hang", json!({}))).await;
    let before = Instant::now();
    two.post(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})).await;
    let mut turn = 0;
    let asked = loop {
        turn += 1;
        one.post(call(turn, "elicit", json!({"message": "who?"}))).await;
        let message = in_time("a question, or that it was refused", one.message()).await;
        if message["method"] == "elicitation/create" {
            break message;
        }
        let text = message["result"]["content"][0]["text"].as_str().unwrap();
        assert!(text.contains("cannot tell which client"), "{message}");
        assert!(before.elapsed() < crate::harness::PATIENCE, "it is never asked");
    };
    assert!(before.elapsed() >= grace, "asked after {:?}", before.elapsed());
    one.post(json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "decline"}})).await;
    let answer = in_time("the answer", one.message()).await;
    assert_eq!((&answer["id"], answer.pointer("/result/isError")), (&json!(turn), Some(&json!(false))), "{answer}");
    two.call("pid", json!({})).await;
    assert!(two.unsolicited.is_empty(), "{:?}", two.unsolicited);
    gateway.finish().await;
}

#[tokio::test]
async fn progress_of_a_client_reaches_the_child_from_who_was_asked_and_under_the_childs_own_token() {
    for isolation in [Isolation::Shared, Isolation::Session] {
        let mut server = shared();
        server.isolation = isolation;
        let gateway = Gateway::start(server).await;
        let (mut one, mut two) = (gateway.sse().await, gateway.sse().await);
        let params = json!({"_meta": {"progressToken": "the child's"}});
        one.post(call(50, "unknown_request", json!({"method": "elicitation/create", "params": params}))).await;
        let asked = one.message().await;
        let token = &asked["params"]["_meta"]["progressToken"];
        let progress = |token: &Value| {
            let params = json!({"progressToken": token, "progress": 1});
            json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
        };
        two.post(progress(token)).await;
        two.post(progress(&json!("the child's"))).await;
        one.post(progress(&json!("the child's"))).await;
        gateway.until("three are dropped", |metrics| metrics.dropped("late_progress") == 3.0).await;
        one.post(progress(token)).await;
        one.post(json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "decline"}})).await;
        assert_eq!(in_time("the answer", one.message()).await["id"], 50);
        one.post(progress(token)).await;
        gateway.until("it is over", |metrics| metrics.dropped("late_progress") == 4.0).await;
        assert_eq!(one.call("progress_received", json!({})).await, r#"["the child's"]"#, "{isolation:?}");
        let of_two = if isolation == Isolation::Shared { r#"["the child's"]"# } else { "[]" };
        assert_eq!(two.call("progress_received", json!({})).await, of_two);
        gateway.finish().await;
    }
}

#[tokio::test]
async fn who_floods_the_server_with_calls_has_its_share_and_everybody_else_is_answered() {
    let mut server = shared();
    server.limits.max_in_flight = 8;
    // A stream begins with it, where no answer comes before.
    let gateway = Gateway::start_with([server], |config| config.http.keep_alive = Duration::from_millis(10)).await;
    let mut flooder = gateway.streamable().await;
    let mut others = [gateway.streamable().await, gateway.streamable().await];
    let mut hung = Vec::new();
    for round in 0..20 {
        let response = flooder.open(call(round, "hang", json!({}))).await;
        if !response.is_stream() {
            let refused = response.reply().await;
            let says = "this session has its share of a server that others use as well";
            assert_eq!(refused.assert_error(200, -32003, says)["error"]["data"]["retryAfter"], 1);
        } else {
            assert_eq!(response.status, 200, "{response:?}");
            hung.push((round, response));
        }
        for other in &mut others {
            let text = format!("round {round}");
            assert_eq!(other.call("echo", json!({"text": text})).await, text);
        }
    }
    assert_eq!(hung.len(), 4, "half of what the child takes, as nobody else has anything in flight");
    let cancelled = json!({"requestId": hung[0].0});
    flooder.notify(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled})).await;
    assert_eq!(flooder.call("echo", json!({"text": "again"})).await, "again");
    gateway.finish().await;
}

#[tokio::test]
async fn who_fills_the_queue_to_the_server_leaves_room_in_it() {
    let mut server = shared();
    server.args = vec!["no-read".to_owned()];
    server.limits.stdin_queue = 256 * 1024;
    server.limits.stdin_grace = Duration::from_millis(100);
    let gateway = Gateway::start_with([server], |config| config.http.keep_alive = Duration::from_millis(100)).await;
    let mut flooder = gateway.sse().await;
    let text = "x".repeat(16 * 1024);
    for number in 0..100 {
        flooder.post(call(number, "echo", json!({"text": text}))).await;
    }
    // The server reads nothing and says nothing: what comes is the refusals.
    let error = flooder.message().await["error"].clone();
    let says = "this session has its share of a server that others use as well";
    assert!(error["message"].as_str().unwrap().contains(says), "{error}");
    assert_eq!(error["data"]["retryAfter"], 1);
    for _ in 0..3 {
        let other = gateway.streamable().await;
        let response = other.open(call(1, "echo", json!({"text": text}))).await;
        assert!(response.status == 200 && response.is_stream(), "it waits for its answer: {response:?}");
    }
    gateway.kill().await;
}
