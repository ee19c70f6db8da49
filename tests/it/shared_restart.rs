//! What sessions hear of a child that takes the place of another: whether its lists differ, and that once.

use serde_json::json;
use sluice::config::{Isolation, Server};

use crate::harness::{Gateway, Response, Streamable, fixture};
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
async fn each_session_hears_once_that_the_tools_differ() {
    for isolation in [Isolation::Shared, Isolation::Session] {
        let gateway = Gateway::start(isolated(isolation, fixture("new-tools"))).await;
        let mut sessions = sessions(&gateway).await;
        for _ in 0..2 {
            crash(&gateway, isolation, &mut sessions).await;
            for (number, (_, stream)) in sessions.iter_mut().enumerate() {
                let message = stream.message().await.unwrap();
                assert_eq!(message["method"], "notifications/tools/list_changed", "session {number}, {isolation:?}");
            }
            nothing_but_the_note(isolation, &mut sessions).await;
        }
        gateway.finish().await;
    }
}

#[tokio::test]
async fn lists_that_are_the_same_or_refused_are_not_said_to_differ() {
    for isolation in [Isolation::Shared, Isolation::Session] {
        let (server, mode) = switchable(&["echo"]);
        let gateway = Gateway::start(isolated(isolation, server)).await;
        let mut sessions = sessions(&gateway).await;
        for next in ["echo", "no-lists"] {
            mode.set(&[next]);
            crash(&gateway, isolation, &mut sessions).await;
            nothing_but_the_note(isolation, &mut sessions).await;
        }
        gateway.finish().await;
    }
}
