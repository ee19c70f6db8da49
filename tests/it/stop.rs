//! How children are stopped: politely first, within the graces that are configured, and with all that they started.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::harness::eventually;
use crate::proc;
use crate::scene::{BOTH, Client, Scene, Wire, fixture, program};

const GRACE: Duration = Duration::from_millis(300);

/// A server that writes into a file what it hears: the end of its input, or SIGTERM.
fn reporting(file: &std::path::Path) -> sluice::config::Server {
    let fixture = crate::harness::fixture_path();
    let script = r#"trap 'echo TERM >> "$1"' TERM; "$0" echo; echo EOF >> "$1""#;
    program("sh", &["-c", script, fixture.to_str().unwrap(), file.to_str().unwrap()])
}

/// Ends a session in each way that there is.
async fn end(scene: &Scene, client: Client, how: &str) {
    match how {
        "stream closed" | "deleted" => client.close().await,
        _ => drop(client),
    }
    scene.until("the session ends", |m| m.sessions() == 0).await;
}

#[tokio::test]
async fn a_child_that_exits_with_its_stdin_gets_no_signal() {
    for (how, wire) in [("stream closed", Wire::Sse), ("deleted", Wire::Streamable), ("idle", Wire::Streamable)] {
        let file = tempfile::NamedTempFile::new().unwrap();
        let scene = Scene::with(reporting(file.path()), |config| {
            if how == "idle" {
                config.sessions.idle_timeout = Duration::from_millis(200);
            }
        })
        .await;
        let client = scene.open(wire).await;
        let pid = client.pid().await;
        end(&scene, client, how).await;
        proc::gone(pid).await;
        scene.until("it is counted", |m| m.exits("stopped") == 1).await;
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "EOF\n", "{how}");
        scene.finish().await;
    }
}

#[tokio::test]
async fn a_child_that_is_deaf_to_the_end_of_stdin_is_terminated() {
    for wire in BOTH {
        let mut server = fixture(&["deaf-eof"]);
        server.limits.stdin_grace = GRACE;
        server.limits.term_grace = Duration::from_secs(20);
        let scene = Scene::of(server).await;
        let client = scene.open(wire).await;
        let pid = client.pid().await;
        let begin = Instant::now();
        client.close().await;
        proc::gone(pid).await;
        let took = begin.elapsed();
        assert!(took >= GRACE, "it was given its time: {took:?}");
        assert!(took < Duration::from_secs(10), "SIGTERM was enough: {took:?}");
        scene.finish().await;
    }
}

#[tokio::test]
async fn a_child_that_ignores_everything_is_killed() {
    for wire in BOTH {
        let mut server = fixture(&["ignore-term"]);
        server.limits.stdin_grace = GRACE;
        server.limits.term_grace = GRACE;
        let scene = Scene::of(server).await;
        let client = scene.open(wire).await;
        let pid = client.pid().await;
        // SIGTERM alone does nothing to it.
        proc::signal(pid, Signal::TERM);
        assert_eq!(client.pid().await, pid);
        let begin = Instant::now();
        client.close().await;
        proc::gone(pid).await;
        let took = begin.elapsed();
        assert!(took >= GRACE * 2, "it was given both times: {took:?}");
        assert!(took < Duration::from_secs(10), "{took:?}");
        scene.finish().await;
    }
}

#[tokio::test]
async fn a_child_that_reads_nothing_is_stopped_in_time() {
    for wire in BOTH {
        let mut server = fixture(&["no-read"]);
        server.limits.stdin_grace = GRACE;
        server.limits.term_grace = GRACE;
        let scene = Scene::of(server).await;
        let client = scene.open(wire).await;
        // More than a pipe holds: the writer waits for it.
        let call = client.start_call("echo", json!({"text": "x".repeat(1 << 20)}));
        scene.until("it is on its way", |m| m.to_server() >= 3).await;
        let begin = Instant::now();
        client.close().await;
        scene.until("the child is gone", |m| m.children() == 0).await;
        assert!(begin.elapsed() < Duration::from_secs(5));
        call.abort();
        scene.finish().await;
    }
}

/// The process ids that `fork_grandchild` returns.
async fn grandchildren(client: &Client) -> Vec<u32> {
    let pids = client.text("fork_grandchild", json!({"orphan": true})).await;
    let pids: Vec<u32> = serde_json::from_str(&pids).unwrap();
    assert_eq!(pids.len(), 2);
    assert!(pids.iter().all(|pid| proc::runs(*pid)));
    pids
}

async fn none_runs(pids: &[u32]) {
    eventually("the grandchildren end", async || (!pids.iter().any(|pid| proc::runs(*pid))).then_some(())).await;
}

#[tokio::test]
async fn grandchildren_go_with_the_session() {
    for wire in BOTH {
        let scene = Scene::of(fixture(&["echo"])).await;
        let client = scene.open(wire).await;
        let pids = grandchildren(&client).await;
        client.close().await;
        none_runs(&pids).await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn grandchildren_go_when_their_leader_ends_by_itself() {
    for wire in BOTH {
        let scene = Scene::of(fixture(&["echo"])).await;
        let client = scene.open(wire).await;
        // They hold the pipes open: the calls in flight are not held up by that.
        let pids = grandchildren(&client).await;
        let begin = Instant::now();
        let answer = client.call("crash", json!({"code": 5})).await;
        assert_eq!(answer["error"]["data"]["exitCode"], 5, "{answer}");
        assert!(begin.elapsed() < Duration::from_secs(2));
        none_runs(&pids).await;
        let leader = client.pid().await;
        let pids = grandchildren(&client).await;
        proc::signal(leader, Signal::KILL);
        none_runs(&pids).await;
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn grandchildren_go_when_the_start_fails() {
    let scene = Scene::of(fixture(&["exit-with-grandchild", "1"])).await;
    for wire in BOTH {
        let client = scene.connect(wire).await;
        let answer = client.initialize().await;
        let said = answer["error"]["data"]["stderr"][0].as_str().unwrap().to_owned();
        let pid: u32 = said.strip_prefix("grandchild ").unwrap().parse().unwrap();
        none_runs(&[pid]).await;
        client.close().await;
    }
    scene.finish().await;
}

#[tokio::test]
async fn no_zombie_is_left_while_the_gateway_runs() {
    let scene = Scene::of(fixture(&["echo"])).await;
    let mut pids = Vec::new();
    for round in 0..6 {
        let client = scene.open(BOTH[round % 2]).await;
        pids.push(client.pid().await);
        match round {
            0 | 1 => {}
            2 | 3 => drop(client.call("crash", json!({})).await),
            _ => proc::signal(*pids.last().unwrap(), Signal::KILL),
        }
        client.close().await;
    }
    for pid in pids {
        proc::gone(pid).await;
    }
    scene.finish().await;
}
