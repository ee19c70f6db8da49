//! What sessions hear of a child that takes the place of another: whether its lists differ, and that once.

use std::time::Duration;

use serde_json::json;
use sluice::config::{Isolation, Server, Tool};

use crate::harness::{Gateway, Request, Response, Streamable, eventually, fixture};
use crate::scene::switchable;

/// Sessions with an open stream, each of which knows the lists and subscribes to a note.
async fn sessions(gateway: &Gateway) -> Vec<(Streamable, Response)> {
    let mut sessions = Vec::new();
    for _ in 0..3 {
        let mut client = gateway.streamable().await;
        for list in ["tools/list", "prompts/list", "resources/list"] {
            assert!(client.request(list, json!({})).await["result"].is_object());
        }
        client.request("resources/subscribe", json!({"uri": "fixture://note"})).await;
        let stream = client.stream().await;
        sessions.push((client, stream));
    }
    sessions
}

fn isolated(isolation: Isolation, mut server: Server) -> Server {
    server.isolation = isolation;
    server
}

/// Ends the child of each, and waits until each has another.
async fn crash(gateway: &Gateway, isolation: Isolation, sessions: &mut [(Streamable, Response)]) {
    let children = if isolation == Isolation::Session { sessions.len() } else { 1 };
    for (client, _) in &mut sessions[..children] {
        client.request("tools/call", json!({"name": "crash", "arguments": {"code": 1}})).await;
    }
    gateway.until("others are there", |metrics| metrics.children() == children as f64).await;
}

/// Each hears of the note next, and of nothing else: the child says it once, to each who has subscribed.
async fn nothing_but_the_note(isolation: Isolation, sessions: &mut [(Streamable, Response)]) {
    // Each has told the child what it wants of it before it makes its next call.
    for (client, _) in &mut *sessions {
        assert_eq!(client.call("subscriptions", json!({})).await, r#"["fixture://note"]"#);
    }
    let children = if isolation == Isolation::Session { sessions.len() } else { 1 };
    for (client, _) in &mut sessions[..children] {
        client.call("touch", json!({"uri": "fixture://note"})).await;
    }
    for (number, (_, stream)) in sessions.iter_mut().enumerate() {
        let message = stream.message().await.unwrap();
        assert_eq!(message["method"], "notifications/resources/updated", "session {number}, {isolation:?}");
    }
}

#[tokio::test]
async fn each_session_hears_once_after_a_replacement_that_its_lists_may_differ() {
    for isolation in [Isolation::Shared, Isolation::Session] {
        let (server, mode) = switchable(&["echo"]);
        let gateway = Gateway::start(isolated(isolation, server)).await;
        let mut sessions = sessions(&gateway).await;
        // What the later children say of themselves, or do not, changes nothing.
        for next in ["echo", "no-lists", "same-lists", "new-tools"] {
            mode.set(&[next]);
            crash(&gateway, isolation, &mut sessions).await;
            for (number, (_, stream)) in sessions.iter_mut().enumerate() {
                for list in ["tools", "prompts", "resources"] {
                    let message = stream.message().await.unwrap();
                    let expected = format!("notifications/{list}/list_changed");
                    assert_eq!(message["method"], expected, "session {number}, {isolation:?}");
                }
            }
            nothing_but_the_note(isolation, &mut sessions).await;
        }
        gateway.finish().await;
    }
}

#[tokio::test]
async fn of_lists_whose_changes_a_server_does_not_tell_nothing_is_said() {
    for isolation in [Isolation::Shared, Isolation::Session] {
        let gateway = Gateway::start(isolated(isolation, fixture("same-lists"))).await;
        let mut sessions = sessions(&gateway).await;
        crash(&gateway, isolation, &mut sessions).await;
        nothing_but_the_note(isolation, &mut sessions).await;
        gateway.finish().await;
    }
}

#[tokio::test]
async fn a_child_that_retires_while_it_is_told_what_a_session_has_is_not_that_session_s_last() {
    let (mut server, mode) = switchable(&["never-subscribe"]);
    server.isolation = Isolation::Shared;
    server.pool.max_requests = Some(3);
    server.limits.call_timeout = Duration::from_millis(1500);
    server.tools.insert("pid".to_owned(), Tool { timeout: Some(Duration::from_secs(60)), resend: None });
    let gateway = Gateway::start(server).await;
    let (mut one, mut other) = (gateway.streamable().await, gateway.streamable().await);
    one.request("logging/setLevel", json!({"level": "info"})).await;
    // What is asked for last has time to be answered: meanwhile the session is on the next child, which is told later.
    let subscribe =
        json!({"jsonrpc": "2.0", "id": "s", "method": "resources/subscribe", "params": {"uri": "fixture://note"}});
    let ask = one.with_headers(Request::post(&gateway.path("/mcp"), subscribe));
    let _asked = gateway.ask(ask).await;
    let workers = async || gateway.admin().send(Request::get("/workers")).await.json();
    eventually("it is in flight", async || (workers().await[0]["in_flight"] == 1).then_some(())).await;
    mode.set(&["echo"]);
    let first: u64 = other.call("pid", json!({})).await.parse().unwrap();
    let retire_the_next = async {
        let is_on_it = |worker: &serde_json::Value| worker["sessions"] == 1 && worker["pid"] != first;
        eventually("the session is on the next", async || {
            workers().await.as_array().unwrap().iter().any(is_on_it).then_some(())
        })
        .await;
        let second = other.call("pid", json!({})).await;
        other.call("pid", json!({})).await;
        assert_eq!(other.call("pid", json!({})).await, second);
        second
    };
    let (third, second) = tokio::join!(one.call("pid", json!({})), retire_the_next);
    assert!(![first.to_string(), second].contains(&third), "{third}");
    assert_eq!(one.call("levels", json!({})).await, r#"["info"]"#);
    gateway.finish().await;
}
