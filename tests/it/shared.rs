//! Sessions that share a child, through the real gateway: each gets its own, and what concerns all of them, once.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::{Value, json};
use sluice::config::{Isolation, Server};

use crate::harness::{Gateway, Streamable, fixture, in_time, key, text_of};

fn shared(isolation: Isolation) -> Server {
    let mut server = fixture("echo");
    server.isolation = isolation;
    server
}

fn call(id: u64, tool: &str, arguments: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": arguments}})
}

#[tokio::test]
async fn only_those_share_a_child_whose_isolation_lets_them() {
    for (isolation, children) in
        [(Isolation::Session, 5), (Isolation::Principal, 3), (Isolation::Tenant, 2), (Isolation::Shared, 1)]
    {
        let mut keys = Vec::new();
        let gateway = Gateway::start_with([shared(isolation)], |config| {
            keys = vec![key(config, "acme", "ann"), key(config, "acme", "bob"), key(config, "else", "ann")];
        })
        .await;
        let mut pids = Vec::new();
        for at in [0, 0, 1, 1, 2] {
            let mut client = gateway.with_key(&keys[at]).streamable().await;
            pids.push((at, client.call("pid", json!({})).await));
        }
        let distinct: BTreeSet<&String> = pids.iter().map(|(_, pid)| pid).collect();
        assert_eq!(distinct.len(), children, "{isolation:?}: {pids:?}");
        let other: BTreeSet<&String> = pids.iter().filter(|(at, _)| *at == 2).map(|(_, pid)| pid).collect();
        let mine: BTreeSet<&String> = pids.iter().filter(|(at, _)| *at != 2).map(|(_, pid)| pid).collect();
        assert_eq!(mine.is_disjoint(&other), isolation != Isolation::Shared, "{isolation:?}: tenants");
        gateway.finish().await;
    }
}

#[tokio::test]
async fn five_hundred_sessions_share_one_child_with_no_wrong_answer() {
    let gateway = Gateway::start_with([shared(Isolation::Shared)], |config| {
        config.sessions.max = 1000;
        config.sessions.max_per_principal = 1000;
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..500 {
        clients.push(gateway.streamable().await);
    }
    let started = Instant::now();
    let mut tasks = Vec::new();
    for (number, mut client) in clients.into_iter().enumerate() {
        tasks.push(tokio::spawn(async move {
            // All of them count their ids from 1.
            for turn in 0..4 {
                let text = format!("session {number}, turn {turn}");
                assert_eq!(client.call("echo", json!({"text": text})).await, text);
            }
            client
        }));
    }
    let mut clients = Vec::new();
    for task in tasks {
        clients.push(in_time("an answer", task).await.unwrap());
    }
    println!("500 sessions on one child: 2000 calls in {:?}", started.elapsed());
    assert_eq!(gateway.metrics().await.children(), 1.0);
    let client = &mut clients[7];
    let opened: Value = serde_json::from_str(&client.call("client", json!({})).await).unwrap();
    assert_eq!(opened["clientInfo"]["name"], "sluice");
    assert!(opened["capabilities"].get("roots").is_none() && opened["capabilities"].get("sampling").is_some());
    client.notify(json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"})).await;
    assert_eq!(client.call("notifications_received", json!({})).await, r#"["notifications/initialized"]"#);
    gateway.finish().await;
}

#[tokio::test]
async fn a_shared_child_hears_initialized_before_anybodys_call_and_once() {
    for min_spare in [0, 1] {
        let mut server = shared(Isolation::Shared);
        server.pool.min_spare = min_spare;
        let gateway = Gateway::start(server).await;
        // One that forgets to say it, or takes its time, must not let the others come too early.
        let mut slow = Streamable::greet(&gateway, "2025-11-25").await;
        let heard = json!(["notifications/initialized"]).to_string();
        assert_eq!(slow.call("notifications_received", json!({})).await, heard);
        let mut other = gateway.streamable().await;
        assert_eq!(other.call("notifications_received", json!({})).await, heard);
        gateway.finish().await;
    }
}

#[tokio::test]
async fn progress_and_cancellation_are_each_sessions_own() {
    let gateway = Gateway::start(shared(Isolation::Shared)).await;
    let (mut one, two) = (gateway.streamable().await, gateway.streamable().await);
    let with_token = |id: u64| {
        let mut message = call(id, "progress", json!({"steps": 2, "ms": 20}));
        message["params"]["_meta"] = json!({"progressToken": 7});
        message
    };
    let (mut first, mut second) = tokio::join!(one.open(with_token(7)), two.open(with_token(7)));
    for response in [&mut first, &mut second] {
        for step in 1..=2 {
            let message = response.message().await.unwrap();
            assert_eq!(
                (&message["params"]["progressToken"], &message["params"]["progress"]),
                (&json!(7), &json!(step))
            );
        }
        assert_eq!(response.message().await.unwrap()["id"], 7);
        assert_eq!(response.message().await, None);
    }
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 8}});
    let sleep = two.send(call(8, "sleep", json!({"ms": 300})));
    let not_mine = async {
        gateway.until("it is in flight", |metrics| metrics.sum("sluice_workers", "busy") == 1.0).await;
        one.notify(cancel).await;
    };
    let (reply, ()) = tokio::join!(sleep, not_mine);
    assert_eq!(text_of(&reply.json()), "slept 300 ms");
    assert_eq!(one.call("cancelled", json!({})).await, "[]");
    gateway.finish().await;
}

#[tokio::test]
async fn subscriptions_are_counted_and_updates_go_to_subscribers() {
    let gateway = Gateway::start(shared(Isolation::Shared)).await;
    let mut clients = [gateway.streamable().await, gateway.streamable().await, gateway.streamable().await];
    let mut streams = Vec::new();
    for client in &clients {
        streams.push(client.stream().await);
    }
    for client in &mut clients[..2] {
        client.request("resources/subscribe", json!({"uri": "fixture://note"})).await;
    }
    assert_eq!(clients[2].call("subscriptions", json!({})).await, r#"["fixture://note"]"#);
    clients[2].call("touch", json!({"uri": "fixture://note"})).await;
    clients[2].call("list_changed", json!({})).await;
    for (number, stream) in streams.iter_mut().enumerate() {
        if number < 2 {
            assert_eq!(stream.message().await.unwrap()["params"]["uri"], "fixture://note");
        }
        assert_eq!(stream.message().await.unwrap()["method"], "notifications/tools/list_changed", "{number}");
    }
    clients[0].request("resources/unsubscribe", json!({"uri": "fixture://note"})).await;
    assert_eq!(clients[2].call("subscriptions", json!({})).await, r#"["fixture://note"]"#);
    clients[1].delete().await;
    assert_eq!(clients[2].call("subscriptions", json!({})).await, "[]");
    gateway.finish().await;
}

#[tokio::test]
async fn who_subscribes_hears_of_parts_and_of_nothing_that_only_begins_alike() {
    let mut keys = Vec::new();
    let gateway = Gateway::start_with([shared(Isolation::Shared)], |config| {
        keys = vec![key(config, "acme", "ann"), key(config, "umbrella", "bob")];
    })
    .await;
    let (mut ann, mut bob) =
        (gateway.with_key(&keys[0]).streamable().await, gateway.with_key(&keys[1]).streamable().await);
    let (mut of_ann, mut of_bob) = (ann.stream().await, bob.stream().await);
    // A scheme or half a name is no resource, though this server takes it.
    for uri in ["file:///a", "fixture:", "fixture://", "fixture://umb"] {
        assert_eq!(ann.request("resources/subscribe", json!({"uri": uri})).await["result"], json!({}));
    }
    for uri in ["file:///ab", "file:///a?of=umbrella", "fixture://umbrella/plan", "file:///a/../b"] {
        bob.request("resources/subscribe", json!({"uri": uri})).await;
        bob.call("touch", json!({"uri": uri})).await;
        assert_eq!(in_time("an update", of_bob.message()).await.unwrap()["params"]["uri"], uri);
    }
    for uri in ["file:///a/b", "file:///a#b", "file:///a"] {
        bob.call("touch", json!({"uri": uri})).await;
        let update = in_time("an update", of_ann.message()).await.unwrap();
        assert_eq!(update["params"]["uri"], uri, "that, and nothing before it");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn what_cannot_be_attributed_reaches_nobody() {
    let gateway = Gateway::start(shared(Isolation::Shared)).await;
    let mut one = gateway.sse().await;
    one.call("log", json!({"level": "error", "text": "for one"})).await;
    assert_eq!(one.unsolicited.pop_front().unwrap()["params"]["data"], "for one");
    let mut two = gateway.sse().await;
    one.call("log", json!({"level": "error", "text": "for whom?"})).await;
    two.call("pid", json!({})).await;
    assert!(one.unsolicited.is_empty() && two.unsolicited.is_empty());
    assert_eq!(gateway.metrics().await.dropped("unattributable"), 1.0);

    // With calls of both in flight, nobody is asked; with those of one, that one is.
    two.post(call(50, "sleep", json!({"ms": 200}))).await;
    gateway.until("it is in flight", |metrics| metrics.sum("sluice_workers", "busy") == 1.0).await;
    let refused = one.call("sample", json!({"prompt": "who?"})).await;
    assert!(refused.contains("cannot tell which client"), "{refused}");
    assert_eq!(two.message().await["id"], 50);
    one.post(call(51, "sample", json!({"prompt": "who?"}))).await;
    let asked = one.message().await;
    assert_eq!(asked["method"], "sampling/createMessage");
    let content = json!({"type": "text", "text": "me"});
    let result = json!({"role": "assistant", "model": "m", "content": content});
    two.post(json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"content": {"text": "not me"}}})).await;
    one.post(json!({"jsonrpc": "2.0", "id": asked["id"], "result": result})).await;
    assert_eq!(text_of(&one.message().await), "me");
    gateway.finish().await;
}

#[tokio::test]
async fn a_crash_ends_calls_in_flight_and_no_session() {
    let gateway = Gateway::start(shared(Isolation::Shared)).await;
    let mut clients: Vec<Streamable> = Vec::new();
    for _ in 0..20 {
        clients.push(gateway.streamable().await);
    }
    clients[1].request("resources/subscribe", json!({"uri": "fixture://note"})).await;
    let before = clients[0].call("pid", json!({})).await;
    let (hung, crashed) = tokio::join!(clients[2].send(call(90, "hang", json!({}))), async {
        gateway.until("it is in flight", |metrics| metrics.sum("sluice_workers", "busy") == 1.0).await;
        clients[3].send(call(91, "crash", json!({"code": 3}))).await
    });
    for reply in [hung, crashed] {
        let error = &reply.json()["error"];
        assert_eq!((&error["data"]["type"], &error["data"]["retryable"]), (&json!("server_exited"), &json!(true)));
        assert_eq!(error["data"]["exitCode"], 3);
    }
    let mut pids = BTreeSet::new();
    for client in &mut clients {
        pids.insert(client.call("pid", json!({})).await);
    }
    assert!(pids.len() == 1 && !pids.contains(&before), "{pids:?}, before {before}");
    assert_eq!(clients[0].call("subscriptions", json!({})).await, r#"["fixture://note"]"#);
    assert_eq!(clients[0].call("notifications_received", json!({})).await, r#"["notifications/initialized"]"#);
    gateway.finish().await;
}
