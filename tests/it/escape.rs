//! What has left its process group, by `setsid` or a double fork, and what is left when the gateway is killed: all
//! ends.

use rustix::process::Signal;
use serde_json::json;

use crate::binary::Binary;
use crate::harness::eventually;
use crate::proc;
use crate::scene::{BOTH, Client, Scene, Wire, fixture};

/// Processes below a client's child: in its group, in a session of its own, and one whose parent is gone.
async fn offspring(client: &Client) -> Vec<u32> {
    let pids = client.text("fork_grandchild", json!({"setsid": true, "orphan": true})).await;
    let pids: Vec<u32> = serde_json::from_str(&pids).unwrap();
    // The one that calls setsid does so in its own time.
    eventually("it has left the group", async || (proc::stat(pids[1])?.group == pids[1]).then_some(())).await;
    assert!(pids.iter().all(|pid| proc::runs(*pid)));
    pids
}

async fn none_runs(pids: &[u32]) {
    eventually("all of them end", async || (!pids.iter().any(|pid| proc::runs(*pid))).then_some(())).await;
}

#[tokio::test]
async fn what_has_left_the_group_goes_with_the_session() {
    for wire in BOTH {
        let scene = Scene::of(fixture(&["echo"])).await;
        let client = scene.open(wire).await;
        let pids = offspring(&client).await;
        client.close().await;
        none_runs(&pids).await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn what_has_left_the_group_goes_when_its_leader_ends_by_itself() {
    for wire in BOTH {
        let scene = Scene::of(fixture(&["echo"])).await;
        let client = scene.open(wire).await;
        let pids = offspring(&client).await;
        client.call("crash", json!({})).await;
        none_runs(&pids).await;
        // The next child's offspring is not taken for what the first has left.
        let pids = offspring(&client).await;
        let other = scene.open(wire).await;
        other.call("crash", json!({})).await;
        assert!(pids.iter().all(|pid| proc::runs(*pid)));
        client.close().await;
        other.close().await;
        none_runs(&pids).await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn nothing_outlives_a_gateway_that_is_killed() {
    let binary = Binary::start(&[("echo", vec!["echo"]), ("deaf", vec!["ignore-term"])], "").await;
    let mut pids = Vec::new();
    for server in ["echo", "deaf"] {
        for wire in [Wire::Sse, Wire::Streamable] {
            let client = Client::open(&binary.caller.server(server), wire).await;
            pids.push(client.pid().await);
            pids.extend(offspring(&client).await);
            // Dropped without a word: on Streamable HTTP its session stays.
        }
    }
    proc::signal(binary.pid(), Signal::KILL);
    none_runs(&pids).await;
}
