//! The harness catches what it is there to catch.

use serde_json::json;

use super::{Gateway, fixture};

#[tokio::test]
#[should_panic(expected = "has not called finish()")]
async fn a_test_that_does_not_finish_its_gateway_fails() {
    drop(Gateway::start(fixture("echo")).await);
}

#[tokio::test]
async fn the_processes_of_a_gateway_are_seen_and_are_its_own() {
    let (one, other) = (Gateway::start(fixture("echo")).await, Gateway::start(fixture("echo")).await);
    let mut client = one.streamable().await;
    let pid = client.call("pid", json!({})).await;
    let processes = one.processes();
    assert_eq!(processes.len(), 1, "{processes:?}");
    assert!(processes[0].starts_with(&format!("{pid} ")), "{processes:?} and {pid}");
    assert!(other.processes().is_empty());
    let grandchildren = client.call("fork_grandchild", json!({})).await;
    assert!(grandchildren.starts_with('['), "{grandchildren}");
    assert_eq!(one.processes().len(), 2);
    one.finish().await;
    other.finish().await;
}
