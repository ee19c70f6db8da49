//! A call whose child crashed is sent again where its tool and the configuration allow it: once, and its client sees
//! one answer. Every other call fails.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use sluice::config::{Isolation, Resend, Server, Tool};
use tempfile::{NamedTempFile, TempDir};
use tokio::task::JoinHandle;

use crate::harness::text_of;
use crate::proc;
use crate::scene::{BOTH, Client, Scene, fixture, switchable};

fn resending(resend: Resend, traces: &Traces) -> Server {
    let mut server = traces.open_to(fixture(&["echo"]));
    server.restart.resend = resend;
    server
}

/// The folder with the traces of a test, which its servers may change.
struct Traces(TempDir);

impl Traces {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open_to(&self, mut server: Server) -> Server {
        server.sandbox.write.push(self.0.path().to_owned());
        server
    }

    fn next(&self) -> Trace {
        Trace(NamedTempFile::new_in(self.0.path()).unwrap())
    }
}

/// Where a tool leaves its traces.
struct Trace(NamedTempFile);

impl Trace {
    /// How often a child has begun to run the tool.
    fn runs(&self) -> usize {
        std::fs::read_to_string(self.0.path()).unwrap().lines().count()
    }

    /// Calls a tool that crashes so many children before it answers.
    fn start(&self, client: &Client, tool: &str, crashes: usize) -> JoinHandle<Value> {
        let arguments = json!({"path": self.0.path(), "crashes": crashes});
        client.start("tools/call", json!({"name": tool, "arguments": arguments, "_meta": {"progressToken": "é"}}))
    }

    async fn call(&self, client: &Client, tool: &str, crashes: usize) -> Value {
        self.start(client, tool, crashes).await.unwrap()
    }
}

fn assert_crashed(answer: &Value) {
    let error = &answer["error"];
    assert_eq!(error["data"]["type"], "server_exited", "{answer}");
    assert_eq!((&error["data"]["exitCode"], &error["data"]["retryable"]), (&json!(7), &json!(true)), "{answer}");
    assert!(error["data"]["stderr"][0].as_str().unwrap().starts_with("fell over at line "), "{answer}");
}

#[tokio::test]
async fn a_call_that_may_be_repeated_is_answered_by_the_next_child() {
    let traces = Traces::new();
    for isolation in [Isolation::Session, Isolation::Shared] {
        for wire in BOTH {
            let mut server = resending(Resend::Idempotent, &traces);
            server.isolation = isolation;
            let scene = Scene::of(server).await;
            let client = scene.open(wire).await;
            let before = client.pid().await;
            // Nobody has asked for the list yet; then the client has.
            for (round, tool) in ["look", "put"].into_iter().enumerate() {
                let trace = traces.next();
                let answer = trace.call(&client, tool, 1).await;
                assert_eq!(text_of(&answer), "2", "{isolation:?} {wire:?} {tool}");
                assert_eq!(trace.runs(), 2);
                let progress = client.next_but_lists().await;
                assert_eq!(
                    (&progress["params"]["progressToken"], &progress["params"]["progress"]),
                    (&json!("é"), &json!(2))
                );
                assert_eq!(scene.counts().await.value("sluice_calls_resent_total"), round as u64 + 1);
                client.request("tools/list", json!({})).await;
            }
            assert_ne!(client.pid().await, before);
            assert_eq!(client.unsolicited_but_lists(), Vec::<Value>::new());
            assert_eq!(client.text("notifications_received", json!({})).await, r#"["notifications/initialized"]"#);
            client.close().await;
            scene.finish().await;
        }
    }
}

#[tokio::test]
async fn what_does_not_qualify_fails_and_runs_once() {
    let traces = Traces::new();
    for (resend, tool) in
        [(Resend::Never, "look"), (Resend::ReadOnly, "put"), (Resend::ReadOnly, "add"), (Resend::Idempotent, "add")]
    {
        for wire in BOTH {
            let scene = Scene::of(resending(resend, &traces)).await;
            let client = scene.open(wire).await;
            for _ in 0..2 {
                let trace = traces.next();
                assert_crashed(&trace.call(&client, tool, 1).await);
                assert_eq!(trace.runs(), 1, "{resend:?} {tool}");
                client.request("tools/list", json!({})).await;
            }
            assert_eq!(scene.counts().await.value("sluice_calls_resent_total"), 0);
            client.close().await;
            scene.finish().await;
        }
    }
}

#[tokio::test]
async fn no_call_is_sent_a_third_time() {
    let traces = Traces::new();
    for wire in BOTH {
        let scene = Scene::of(resending(Resend::ReadOnly, &traces)).await;
        let client = scene.open(wire).await;
        client.request("tools/list", json!({})).await;
        let trace = traces.next();
        assert_crashed(&trace.call(&client, "look", 5).await);
        assert_eq!(trace.runs(), 2);
        assert_eq!(client.text("echo", json!({"text": "on"})).await, "on");
        assert_eq!(trace.runs(), 2);
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn the_configuration_decides_for_a_tool_whatever_it_says() {
    let traces = Traces::new();
    let mut server = resending(Resend::Idempotent, &traces);
    let decided = |resend| Tool { timeout: None, resend: Some(resend) };
    server.tools.extend([("add".to_owned(), decided(true)), ("look".to_owned(), decided(false))]);
    let scene = Scene::of(server).await;
    for wire in BOTH {
        let client = scene.open(wire).await;
        let (add, look) = (traces.next(), traces.next());
        assert_eq!(text_of(&add.call(&client, "add", 1).await), "2");
        assert_crashed(&look.call(&client, "look", 1).await);
        assert_eq!((add.runs(), look.runs()), (2, 1));
        client.close().await;
    }
    scene.finish().await;
}

#[tokio::test]
async fn what_the_crashed_child_said_of_a_tool_is_not_enough() {
    let traces = Traces::new();
    for wire in BOTH {
        let (server, mode) = switchable(&["echo"]);
        let mut server = traces.open_to(server);
        server.restart.resend = Resend::ReadOnly;
        let scene = Scene::of(server).await;
        let client = scene.open(wire).await;
        client.request("tools/list", json!({})).await;
        mode.set(&["other-hints"]);
        let trace = traces.next();
        assert_crashed(&trace.call(&client, "look", 1).await);
        assert_eq!(trace.runs(), 1);
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn a_child_that_was_ended_for_its_calls_gets_none_of_them_again() {
    let traces = Traces::new();
    let mut server = resending(Resend::Never, &traces);
    server.tools.insert("hang".to_owned(), Tool { timeout: None, resend: Some(true) });
    server.limits.harakiri = Some(Duration::from_millis(300));
    let scene = Scene::of(server).await;
    for wire in BOTH {
        let client = scene.open(wire).await;
        let answer = client.call("hang", json!({})).await;
        assert_eq!(answer["error"]["data"]["type"], "harakiri", "{answer}");
        client.close().await;
    }
    assert_eq!(scene.counts().await.value("sluice_calls_resent_total"), 0);
    scene.finish().await;
}

#[tokio::test]
async fn a_call_that_waits_to_be_sent_again_can_be_cancelled() {
    let traces = Traces::new();
    for wire in BOTH {
        let (server, mode) = switchable(&["echo"]);
        let mut server = traces.open_to(server);
        server.restart.resend = Resend::ReadOnly;
        let scene = Scene::of(server).await;
        let client = scene.open(wire).await;
        client.request("tools/list", json!({})).await;
        mode.set(&["slow-start", "700"]);
        let trace = traces.next();
        let call = trace.start(&client, "look", 1);
        scene.until("another child starts", |m| m.exits("crashed") == 1 && m.spawned() == 2).await;
        client.notify("notifications/cancelled", json!({"requestId": 3})).await;
        // What waits goes in order: this is answered after it would have been sent.
        assert_eq!(client.text("echo", json!({"text": "on"})).await, "on");
        assert_eq!(trace.runs(), 1);
        assert_eq!(scene.counts().await.value("sluice_calls_resent_total"), 0);
        assert_eq!(client.text("cancelled", json!({})).await, "[]", "the child has never heard of it");
        call.abort();
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn what_waits_for_a_child_reaches_it_in_order() {
    for wire in BOTH {
        let (server, mode) = switchable(&["echo"]);
        let scene = Scene::of(server).await;
        let client = scene.open(wire).await;
        let before = client.pid().await;
        mode.set(&["slow-start", "500"]);
        proc::signal(before, Signal::KILL);
        scene.until("it is noticed", |m| m.exits("crashed") == 1).await;
        let sent: Vec<String> = (0..50).map(|number| format!("notifications/{number}")).collect();
        for method in &sent {
            client.notify(method, json!({})).await;
        }
        let heard: Vec<String> = serde_json::from_str(&client.text("notifications_received", json!({})).await).unwrap();
        assert_eq!(heard[0], "notifications/initialized");
        assert_eq!(heard[1..], sent);
        client.close().await;
        scene.finish().await;
    }
}
