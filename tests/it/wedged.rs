//! A wedged child is told from a busy one by `ping`: it is replaced, and nobody but the child hears of the pings.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use sluice::config::{Isolation, Server, Tool};

use crate::harness::{Gateway, Metrics, Request, fixture, named, text_of};
use crate::proc;
use crate::scene::{BOTH, Scene};

/// Asked often, and given little time.
fn watched(mode: &str) -> Server {
    let mut server = fixture(mode);
    server.limits.ping_interval = Some(Duration::from_millis(50));
    server.limits.ping_timeout = Duration::from_millis(300);
    server
}

/// Waits until the child has answered pings: nobody else makes it talk.
async fn pinged(scene: &Scene) {
    let before = scene.counts().await.to_client();
    scene.until("it answers pings", |m| m.to_client() >= before + 2).await;
}

#[tokio::test]
async fn a_child_that_answers_no_ping_any_more_is_replaced_and_its_session_goes_on() {
    for wire in BOTH {
        let scene = Scene::of(watched("echo")).await;
        let client = scene.open(wire).await;
        let before = client.pid().await;
        client.request("resources/subscribe", json!({"uri": "fixture://note"})).await;
        pinged(&scene).await;
        proc::signal(before, Signal::STOP);
        scene.until("it is ended", |m| m.exits("wedged") == 1).await;
        proc::gone(before).await;
        assert_ne!(client.pid().await, before);
        assert_eq!(client.text("subscriptions", json!({})).await, r#"["fixture://note"]"#);
        let heard = client.text("notifications_received", json!({})).await;
        assert_eq!(heard, r#"["notifications/initialized"]"#, "replayed just once");
        assert_eq!(client.unsolicited_but_lists(), Vec::<Value>::new(), "the client knows of no ping");
        let counts = scene.counts().await;
        assert_eq!((counts.restarts(), counts.exits("crashed")), (1, 0));
        let exited = scene.gateway.admin().send(Request::get("/workers/exited")).await.json();
        let [exited] = exited.as_array().unwrap().as_slice() else { panic!("{exited}") };
        assert_eq!((&exited["pid"], &exited["server"]), (&json!(before), &json!("subject")));
        assert_eq!((&exited["state"], &exited["exit"]), (&json!("exited"), &json!("wedged")));
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn a_busy_child_is_not_judged() {
    for wire in BOTH {
        let scene = Scene::of(watched("echo")).await;
        let client = scene.open(wire).await;
        let before = client.pid().await;
        pinged(&scene).await;
        // It reads nothing for much longer than a ping may take.
        assert_eq!(client.text("block", json!({"ms": 2000})).await, "back");
        pinged(&scene).await;
        assert_eq!(client.pid().await, before);
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn a_call_that_came_to_nothing_hides_no_wedged_child() {
    let mut server = watched("echo");
    server.isolation = Isolation::Tenant;
    server.tools.insert("echo".to_owned(), Tool { timeout: Some(Duration::from_millis(300)), resend: None });
    for wire in BOTH {
        let scene = Scene::of(server.clone()).await;
        let (one, other) = (scene.open(wire).await, scene.open(wire).await);
        let before = one.pid().await;
        pinged(&scene).await;
        proc::signal(before, Signal::STOP);
        let sent = scene.counts().await.to_server();
        let late = one.start_call("echo", json!({"text": "?"}));
        scene.until("it is in flight", |m| m.to_server() > sent).await;
        // Somebody always has a call in flight.
        let waits = other.call("pid", json!({})).await;
        assert_eq!(late.await.unwrap()["error"]["data"]["type"], "call_timeout");
        assert_eq!(waits["error"]["data"]["type"], "server_wedged", "{waits}");
        assert_eq!(waits["error"]["data"]["retryable"], true, "{waits}");
        assert_eq!(scene.counts().await.exits("wedged"), 1);
        assert_eq!(one.pid().await, other.pid().await, "both have the same other child");
        one.close().await;
        other.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn who_does_not_know_ping_is_left_alone() {
    for mode in ["no-ping", "ignore-ping"] {
        let servers = [named("subject", watched(mode)), named("clock", watched("echo"))];
        let gateway = Gateway::start_with(servers, |_| {}).await;
        let mut subject = gateway.server("subject").streamable().await;
        let mut clock = gateway.server("clock").streamable().await;
        let pid = subject.call("pid", json!({})).await;
        let said = |metrics: &Metrics| metrics.sum("sluice_messages_total", "server=\"clock\",direction=\"to_client\"");
        let before = said(&gateway.metrics().await);
        gateway.until("the other one has been asked often", |metrics| said(metrics) >= before + 5.0).await;
        assert_eq!(subject.call("pings", json!({})).await, "1", "{mode}: asked once");
        assert_eq!(subject.call("pid", json!({})).await, pid, "{mode}");
        let workers = gateway.admin().send(Request::get("/workers")).await.json();
        let of_clock = workers.as_array().unwrap().iter().find(|worker| worker["server"] == "clock").unwrap();
        assert_eq!((&of_clock["calls"], &of_clock["state"]), (&json!(0), &json!("ready")), "a ping is no call");
        assert_ne!(clock.call("pings", json!({})).await, "0");
        let workers = gateway.admin().send(Request::get("/workers")).await.json();
        let of_clock = workers.as_array().unwrap().iter().find(|worker| worker["server"] == "clock").unwrap();
        assert_eq!(of_clock["calls"], 1, "and a call is one");
        gateway.finish().await;
    }
}

#[tokio::test]
async fn a_ping_is_no_use_and_keeps_nothing_alive() {
    let mut server = watched("echo");
    server.isolation = Isolation::Shared;
    server.pool.idle_timeout = Duration::from_millis(1200);
    let gateway = Gateway::start_with([server], |config| {
        config.sessions.idle_timeout = Duration::from_millis(100);
    })
    .await;
    let client = gateway.streamable().await;
    gateway.until("the session is idle, and ends", |metrics| metrics.sessions() == 0.0).await;
    gateway.until("the child is unused, and ends", |metrics| metrics.children() == 0.0).await;
    drop(client);
    gateway.finish().await;
}

#[tokio::test]
async fn a_ping_of_the_client_is_its_own() {
    let scene = Scene::of(watched("echo")).await;
    for wire in BOTH {
        let client = scene.open(wire).await;
        assert_eq!(client.request("ping", json!({})).await["result"], json!({}));
        let answer = client.call("echo", json!({"text": "x"})).await;
        assert_eq!(text_of(&answer), "x");
        client.close().await;
    }
    scene.finish().await;
}
