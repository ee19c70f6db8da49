//! A server that outgrows its limits is ended, and who waits for it is told which.

use std::path::Path;

use serde_json::json;
use sluice::config::{Account, Resources, SandboxMode, Server};

use super::stage::{NOBODY, is_root};
use crate::harness::{Gateway, Streamable, fixture_path};

/// As whom it runs: as the user of the tests and, where that is root, as another.
fn accounts() -> Vec<Option<Account>> {
    let nobody = || Account { name: "nobody".to_owned(), uid: NOBODY, gid: NOBODY, groups: Vec::new(), home: None };
    [None].into_iter().chain(is_root().then(|| Some(nobody()))).collect()
}

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
async fn answer(greed: &str, resources: Resources, account: Option<Account>) -> serde_json::Value {
    let folder = tempfile::tempdir().unwrap();
    let mut server = greedy(folder.path(), greed, resources);
    if let Some(account) = &account {
        std::os::unix::fs::chown(folder.path(), Some(account.uid), Some(account.gid)).unwrap();
    }
    server.sandbox.account = account;
    assert_eq!(server.sandbox.mode, SandboxMode::Standard);
    let gateway = Gateway::start(server).await;
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
    for account in accounts() {
        let limits = Resources { memory: Some(64 << 20), ..Resources::default() };
        let answer = answer("{ head -c 200000000 /dev/zero; sleep 60; } | tail", limits, account).await;
        assert_eq!(answer["error"]["data"]["type"], "server_over_limit", "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains("more memory than 64MiB (limits.memory)"), "{answer}");
    }
}

#[tokio::test]
async fn a_server_that_outgrows_its_processes_is_ended() {
    for account in accounts() {
        let limits = Resources { processes: Some(40), ..Resources::default() };
        // Half of them in sessions of their own.
        let greed = "i=0; while test $i -lt 100; do sleep 60 & setsid sleep 60 & i=$((i+1)); done; wait";
        let answer = answer(greed, limits, account).await;
        assert_eq!(answer["error"]["data"]["type"], "server_over_limit", "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains("more processes and threads than 40 (limits.processes)"), "{answer}");
    }
}
