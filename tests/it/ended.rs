//! Children that were ended for something: each has its own reason, and what counts as a crash is what a server may do
//! at each start.

use std::time::Duration;

use serde_json::{Value, json};
use sluice::config::Server;

use crate::harness::Request;
use crate::scene::{BOTH, Scene, fixture, program};

/// Left alone after the second crash in a row.
fn impatient(mut server: Server) -> Server {
    server.restart.max_crashes = 2;
    server.restart.open = Duration::from_secs(600);
    server
}

/// The reasons of the last exits, the latest first.
async fn reasons(scene: &Scene) -> Vec<Value> {
    let exited = scene.gateway.admin().send(Request::get("/workers/exited")).await.json();
    let of_subject = exited.as_array().unwrap().iter().filter(|worker| worker["server"] == "subject");
    of_subject.map(|worker| worker["exit"].clone()).collect()
}

#[tokio::test]
async fn a_call_that_overruns_ends_its_child_and_that_is_no_crash_loop() {
    for wire in BOTH {
        let mut server = impatient(fixture(&["echo"]));
        server.limits.harakiri = Some(Duration::from_millis(200));
        let scene = Scene::of(server).await;
        let client = scene.open(wire).await;
        for round in 1..=4 {
            let answer = client.call("hang", json!({})).await;
            let data = &answer["error"]["data"];
            assert_eq!((&data["type"], &data["retryable"]), (&json!("harakiri"), &json!(true)), "{round}: {answer}");
            scene.until("its end is counted", |m| m.exits("harakiri") == round).await;
        }
        let counts = scene.counts().await;
        assert_eq!((counts.exits("crashed"), counts.exits("stopped")), (0, 0));
        assert_eq!(reasons(&scene).await, vec!["harakiri"; 4]);
        assert_eq!(client.text("echo", json!({"text": "on"})).await, "on");
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn a_server_that_outgrows_its_limits_at_each_start_is_left_alone() {
    let greed = "i=0; while test $i -lt 40; do sleep 60 & i=$((i+1)); done; wait";
    let mut server = impatient(program("sh", &["-c", greed]));
    server.limits.resources.processes = Some(20);
    let scene = Scene::of(server).await;
    for wire in BOTH {
        let client = scene.connect(wire).await;
        let answer = client.initialize().await;
        assert_eq!(answer["error"]["data"]["type"], "server_over_limit", "{answer}");
        client.close().await;
    }
    let client = scene.connect(BOTH[0]).await;
    let answer = client.initialize().await;
    assert_eq!(answer["error"]["data"]["type"], "crash_loop", "{answer}");
    let counts = scene.counts().await;
    assert_eq!((counts.exits("over_limit"), counts.exits("start_failed")), (2, 0));
    assert_eq!(reasons(&scene).await, vec!["over_limit"; 2]);
    client.close().await;
    scene.finish().await;
}

#[tokio::test]
async fn a_server_that_crashes_over_each_call_is_left_alone_whatever_it_answers_the_gateway() {
    for wire in BOTH {
        let scene = Scene::of(impatient(fixture(&["echo"]))).await;
        let client = scene.open(wire).await;
        client.request("resources/subscribe", json!({"uri": "fixture://note"})).await;
        client.request("tools/list", json!({})).await;
        for kind in ["server_exited", "server_exited", "crash_loop"] {
            let answer = client.call("crash", json!({})).await;
            assert_eq!(answer["error"]["data"]["type"], kind, "{answer}");
        }
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn a_server_that_answers_before_it_outgrows_its_limits_is_started_again() {
    for wire in BOTH {
        let mut server = impatient(fixture(&["echo"]));
        server.limits.resources.processes = Some(10);
        let scene = Scene::of(server).await;
        let client = scene.open(wire).await;
        for round in 1..=4 {
            for _ in 0..12 {
                client.call("fork_grandchild", json!({})).await;
            }
            scene.until("it is ended", |m| m.exits("over_limit") == round).await;
        }
        assert_eq!(client.text("echo", json!({"text": "on"})).await, "on");
        assert_eq!(scene.counts().await.exits("crashed"), 0);
        client.close().await;
        scene.finish().await;
    }
}
