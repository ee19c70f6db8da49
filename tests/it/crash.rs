//! A child's death is not the session's death: calls in flight fail at once and say why, the next call works.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use sluice::config::Isolation;

use crate::harness::{Gateway, eventually, fixture_path, in_time, key};
use crate::proc;
use crate::scene::{BOTH, Client, Scene, Wire, fixture, program, switchable};

fn assert_exited(answer: &Value) {
    let error = &answer["error"];
    assert_eq!(error["code"], -32000, "{answer}");
    assert_eq!(error["data"]["type"], "server_exited", "{answer}");
    assert_eq!(error["data"]["retryable"], true, "{answer}");
}

/// The session goes on: another child, which has heard the handshake once, and nothing else.
async fn goes_on(client: &Client, before: u32) {
    let after = client.pid().await;
    assert_ne!(before, after);
    let heard = client.text("notifications_received", json!({})).await;
    assert_eq!(heard, r#"["notifications/initialized"]"#, "replayed just once");
    let greeting: Value = serde_json::from_str(&client.text("client", json!({})).await).unwrap();
    assert_eq!(greeting["clientInfo"]["name"], "test", "the client's own initialize: {greeting}");
}

#[tokio::test]
async fn calls_in_flight_fail_at_once_and_the_next_one_works() {
    for wire in BOTH {
        let scene = Scene::of(fixture(&["echo"])).await;
        let client = scene.open(wire).await;
        let before = client.pid().await;
        client.text("stderr", json!({"text": "about to fall over"})).await;
        let hanging: Vec<_> = (0..3).map(|_| client.start_call("hang", json!({}))).collect();
        scene.until("they are in flight", |m| m.to_server() >= 7).await;
        let begin = Instant::now();
        let crashed = client.call("crash", json!({"code": 9})).await;
        assert_exited(&crashed);
        assert_eq!(crashed["error"]["data"]["exitCode"], 9);
        assert_eq!(crashed["error"]["data"]["stderr"], json!(["about to fall over"]));
        assert!(crashed["error"]["message"].as_str().unwrap().contains("exit code 9"), "{crashed}");
        for call in hanging {
            assert_exited(&call.await.unwrap());
        }
        assert!(begin.elapsed() < Duration::from_secs(2), "at once, not by a time-out");
        goes_on(&client, before).await;
        assert_eq!(scene.counts().await.restarts(), 1);
        assert_eq!(scene.counts().await.exits("crashed"), 1);
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn a_child_that_is_killed_or_aborts_is_named_with_its_signal() {
    for wire in BOTH {
        let scene = Scene::of(fixture(&["echo"])).await;
        let client = scene.open(wire).await;
        let before = client.pid().await;
        let call = client.start_call("hang", json!({}));
        scene.until("it is in flight", |m| m.to_server() >= 4).await;
        proc::signal(before, Signal::KILL);
        let answer = call.await.unwrap();
        assert_exited(&answer);
        assert_eq!(answer["error"]["data"]["signal"], 9);
        assert_eq!(answer["error"]["data"]["exitCode"], Value::Null);
        goes_on(&client, before).await;
        proc::gone(before).await;
        let answer = client.call("abort", json!({})).await;
        assert_eq!(answer["error"]["data"]["signal"], 6, "{answer}");
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn a_crash_while_idle_is_noticed_by_nobody() {
    for wire in BOTH {
        let scene = Scene::of(fixture(&["echo"])).await;
        let client = scene.open(wire).await;
        for crash in 1..=3 {
            let before = client.pid().await;
            proc::signal(before, Signal::KILL);
            proc::gone(before).await;
            scene.until("it is noticed", |m| m.exits("crashed") == crash).await;
            goes_on(&client, before).await;
        }
        assert_eq!(scene.counts().await.restarts(), 3);
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn many_calls_after_a_crash_share_one_restart() {
    for wire in BOTH {
        let scene = Scene::of(fixture(&["slow-start", "200"])).await;
        let client = scene.open(wire).await;
        let before = client.pid().await;
        proc::signal(before, Signal::KILL);
        scene.until("it is noticed", |m| m.exits("crashed") == 1).await;
        let calls: Vec<_> = (0..10).map(|_| client.start_call("pid", json!({}))).collect();
        let mut pids = Vec::new();
        for call in calls {
            pids.push(call.await.unwrap()["result"]["content"][0]["text"].clone());
        }
        pids.dedup();
        assert_eq!(pids.len(), 1, "{pids:?}");
        assert_eq!(scene.counts().await.spawned(), 2);
        goes_on(&client, before).await;
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn half_an_answer_is_no_answer() {
    for wire in BOTH {
        let scene = Scene::of(fixture(&["half-line"])).await;
        let client = scene.open(wire).await;
        let answer = client.call("echo", json!({"text": "half"})).await;
        assert_exited(&answer);
        assert_eq!(answer["error"]["data"]["exitCode"], 1);
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn a_child_that_closes_stdout_is_replaced() {
    for wire in BOTH {
        let mut server = fixture(&["close-stdout"]);
        server.limits.stdin_grace = Duration::from_millis(100);
        let scene = Scene::of(server).await;
        let client = scene.open(wire).await;
        let answer = client.call("echo", json!({"text": "?"})).await;
        assert_exited(&answer);
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn a_child_that_closes_stdin_is_replaced() {
    for wire in BOTH {
        let result = json!({
            "protocolVersion": "2025-03-26", "capabilities": {}, "serverInfo": {"name": "deaf", "version": "1"},
        });
        // Under the number that it reads in the place of ID.
        let answer = format!(r#"{{"jsonrpc":"2.0","id":ID,"result":{result}}}"#);
        let folder = tempfile::tempdir().unwrap();
        let first = folder.path().join("first");
        let script = r#"if mkdir "$2" 2>&-; then read line; id=${line#*\"id\":}; echo "${0%ID*}${id%%,*}${0#*ID}"; read line; exec sleep 311 <&-; fi; exec "$1" echo"#;
        let arguments = [answer, fixture_path().display().to_string(), first.display().to_string()];
        let mut server = program("sh", &["-c", script, &arguments[0], &arguments[1], &arguments[2]]);
        server.sandbox.write.push(folder.path().to_owned());
        server.limits.stdin_grace = Duration::from_millis(100);
        let scene = Scene::of(server).await;
        let client = scene.open(wire).await;
        eventually("stdin is closed", async || {
            let processes = proc::descendants(std::process::id());
            // Other tests have sleepers too, but none for that long.
            processes.into_iter().find(|pid| proc::arguments(*pid).starts_with("sleep 311"))
        })
        .await;
        // Nobody has to write to it to find that out. It ends by SIGTERM.
        scene.until("it is ended", |m| m.exits("crashed") == 1).await;
        assert_eq!(client.text("echo", json!({"text": "heard"})).await, "heard");
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn a_restart_that_fails_says_why_and_a_later_one_works() {
    for wire in BOTH {
        let (mut server, mode) = switchable(&["echo"]);
        server.limits.start_timeout = Duration::from_millis(1500);
        // Nothing is tried again but by a call, nor does a call wait.
        server.restart.backoff_min = Duration::from_secs(3600);
        server.restart.backoff_max = Duration::from_secs(3600);
        server.restart.window = Duration::from_millis(1);
        let scene = Scene::of(server).await;
        let client = scene.open(wire).await;
        let before = client.pid().await;

        mode.set(&["exit", "7"]);
        assert_exited(&client.call("crash", json!({})).await);
        let answer = client.call("pid", json!({})).await;
        let error = &answer["error"];
        assert_eq!(error["code"], -32000, "{answer}");
        assert_eq!(error["data"]["type"], "server_start_failed", "{answer}");
        assert_eq!(error["data"]["exitCode"], 7, "{answer}");
        assert_eq!(error["data"]["stderr"][1], "fixture: giving up", "{answer}");

        mode.set(&["initialize-error"]);
        let answer = client.call("pid", json!({})).await;
        assert_eq!(answer["error"]["data"]["type"], "server_start_failed", "{answer}");

        mode.set(&["never-initialize"]);
        let answer = client.call("pid", json!({})).await;
        assert_eq!(answer["error"]["data"]["type"], "server_start_timeout", "{answer}");

        mode.set(&["echo"]);
        goes_on(&client, before).await;
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn a_session_that_ends_during_a_restart_takes_the_child_with_it() {
    for wire in BOTH {
        let (server, mode) = switchable(&["echo"]);
        let scene = Scene::of(server).await;
        let client = scene.open(wire).await;
        mode.set(&["never-initialize"]);
        assert_exited(&client.call("crash", json!({})).await);
        let call = client.start_call("pid", json!({}));
        scene.until("the second child runs", |m| m.spawned() == 2).await;
        client.close().await;
        scene.until("it is gone", |m| m.children() == 0 && m.sessions() == 0).await;
        call.abort();
        scene.finish().await;
    }
}

#[tokio::test]
async fn initialize_is_never_put_to_a_live_child_twice() {
    let scene = Scene::of(fixture(&["echo"])).await;
    for wire in BOTH {
        let client = scene.open(wire).await;
        let before = client.pid().await;
        let again = client.initialize_again().await;
        assert_eq!(again["error"]["code"], -32600, "{wire:?}: {again}");
        assert_eq!(client.pid().await, before);
        client.close().await;
    }
    scene.finish().await;
}

#[tokio::test]
async fn who_has_been_served_does_not_queue_again_because_of_a_crash() {
    for (isolation, of_tenant) in [
        (Isolation::Session, false),
        (Isolation::Session, true),
        (Isolation::Principal, false),
        (Isolation::Principal, true),
        (Isolation::Tenant, false),
    ] {
        let mut server = fixture(&["echo"]);
        server.isolation = isolation;
        server.keep_children = true;
        server.pool.max_children = if of_tenant { 100 } else { 1 };
        let mut keys = Vec::new();
        let gateway = Gateway::start_with([server], |config| {
            keys = vec![key(config, "acme", "ann"), key(config, if of_tenant { "acme" } else { "else" }, "bob")];
            config.tenants.values_mut().for_each(|tenant| tenant.max_children = of_tenant.then_some(1));
        })
        .await;
        let client = Client::open(&gateway.with_key(&keys[0]), Wire::Streamable).await;
        let waiting = Client::connect(&gateway.with_key(&keys[1]), Wire::Streamable).await;
        let waits = waiting.start_initialize();
        gateway.until("another waits", |metrics| metrics.sessions() == 2.0).await;
        for _ in 0..3 {
            client.text("echo", json!({"text": "on"})).await;
            let before = client.pid().await;
            assert_exited(&client.call("crash", json!({"code": 9})).await);
            assert_ne!(client.pid().await, before, "{isolation:?}");
        }
        assert!(!waits.is_finished(), "{isolation:?}");
        client.close().await;
        let answer = in_time("its turn", waits).await.unwrap();
        assert!(answer["result"].is_object(), "{answer}");
        waiting.close().await;
        gateway.finish().await;
    }
}
