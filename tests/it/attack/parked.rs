//! Messages that wait for a child cost nobody but their own session anything.

use serde_json::{Value, json};

use super::Neighbour;
use crate::binary::{Binary, OTHER_KEY};
use crate::harness::{eventually, text_of};
use crate::proc;
use crate::scene::{Client, Wire};

/// A large message, within `http.max_body`.
const LARGE: usize = 15 << 20;

/// A batch of cancellations of calls that were never made.
fn cancellations(id: impl Fn(usize) -> Value) -> String {
    let cancel = |number| {
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id(number)}}).to_string()
    };
    format!("[{}]", (0..64).map(cancel).collect::<Vec<_>>().join(","))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancellations_while_much_waits_for_a_child_slow_nobody_down() {
    let servers = [("slow", vec!["slow-start", "5000"]), ("echo", vec!["echo"])];
    let binary = Binary::start(&servers, "").await;
    let client = Client::connect(&binary.caller.server("slow"), Wire::Sse).await;
    let opened = client.start_initialize();
    binary.child("slow-start").await;
    let before = proc::status(binary.pid(), "VmRSS");
    let text = "x".repeat(LARGE);
    let calls = [1, 2].map(|_| client.start_call("echo", json!({"text": text})));
    eventually("both wait", async || {
        (proc::status(binary.pid(), "VmRSS") > before + 2 * (LARGE as u64 >> 10)).then_some(())
    })
    .await;

    let neighbour = Neighbour::watch(binary.caller.with_key(OTHER_KEY).server("echo")).await;
    // Ids that nobody has used: small ones, what is no id, and one as large as a message.
    let bodies = [
        cancellations(|number| json!(format!("unknown {number}"))),
        cancellations(|number| json!(1_000_000 + number)),
        cancellations(|number| json!({"not": [number]})),
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": text}}).to_string(),
    ];
    for body in bodies {
        let reply = client.post(&body).await;
        assert_eq!(reply.status, 202, "{reply:?}");
    }
    neighbour.unharmed().await;
    assert!(opened.await.unwrap()["result"].is_object());
    for call in calls {
        assert!(text_of(&call.await.unwrap()) == text, "what waited has arrived whole");
    }
    client.close().await;
    binary.stop().await;
}
