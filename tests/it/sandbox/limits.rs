//! A server that outgrows its limits is ended, and who waits for it is told which.

use std::path::Path;

use serde_json::json;
use sluice::config::{Resources, Server};

use crate::harness::{Gateway, Streamable, fixture_path};

/// A server that becomes greedy once the file `go` is in its folder.
fn greedy(folder: &Path, greed: &str, resources: Resources) -> Server {
    let fixture = fixture_path();
    let script = format!(
        "(until test -e go; do sleep 0.02; done; {greed}) >/dev/null </dev/null & exec {} echo",
        fixture.display()
    );
    let mut server = Server::new("greedy".parse().unwrap(), "/bin/sh", vec!["-c".to_owned(), script]);
    server.cwd = Some(folder.to_owned());
    server.sandbox.read.push(fixture);
    server.limits.resources = resources;
    server
}

/// What a call in flight is answered when the server becomes greedy.
async fn answer(greed: &str, resources: Resources) -> serde_json::Value {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(greedy(folder.path(), greed, resources)).await;
    let mut client = Streamable::initialize(&gateway, "2025-06-18").await;
    assert_eq!(client.call("echo", json!({"text": "still here"})).await, "still here");
    std::fs::write(folder.path().join("go"), "").unwrap();
    let params = json!({"name": "hang", "arguments": {}});
    let reply = client.send(json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params})).await;
    // This also says that nothing of it is left.
    gateway.finish().await;
    let message = reply.text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or(&reply.text).to_owned();
    serde_json::from_str(&message).unwrap_or_else(|error| panic!("{error}: {message}"))
}

#[tokio::test]
async fn a_server_that_outgrows_its_memory_is_ended() {
    let limits = Resources { memory: Some(64 << 20), ..Resources::default() };
    let answer = answer("{ head -c 200000000 /dev/zero; sleep 60; } | tail", limits).await;
    assert_eq!(answer["error"]["data"]["type"], "server_over_limit", "{answer}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("more memory than 64MiB (limits.memory)"), "{answer}");
}

#[tokio::test]
async fn a_server_that_outgrows_its_processes_is_ended() {
    let limits = Resources { processes: Some(40), ..Resources::default() };
    // Half of them in sessions of their own.
    let greed = "i=0; while test $i -lt 100; do sleep 60 & setsid sleep 60 & i=$((i+1)); done; wait";
    let answer = answer(greed, limits).await;
    assert_eq!(answer["error"]["data"]["type"], "server_over_limit", "{answer}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("more processes and threads than 40 (limits.processes)"), "{answer}");
}
