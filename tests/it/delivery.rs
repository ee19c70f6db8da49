//! What has to arrive though somebody is slow: answers that the gateway makes itself, and the end of what a server asks.

use std::time::Duration;

use serde_json::{Value, json};
use sluice::config::{Server, Tool};

use crate::harness::{Gateway, eventually, fixture};

fn call(id: u64, tool: &str, arguments: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": arguments}})
}

/// A gateway whose streams hold little, and that is patient with clients that do not read.
async fn narrow(server: Server) -> Gateway {
    Gateway::start_with([server], |config| {
        config.http.slow_client_timeout = Duration::from_secs(60);
        config.http.stream_messages = 64;
        config.http.stream_bytes = 64 * 1024;
    })
    .await
}

/// Waits until a child that says more than all buffers hold can say no more.
async fn until_stuck(gateway: &Gateway) {
    let (mut said, mut looks) = (0.0, 0);
    eventually("nothing moves any more", async || {
        let now = gateway.metrics().await.sum("sluice_messages_total", "to_client");
        looks = if now > 1000.0 && now == said { looks + 1 } else { 0 };
        said = now;
        (looks > 20).then_some(())
    })
    .await;
}

async fn until_in_flight(gateway: &Gateway, calls: u64) {
    eventually("so many calls are in flight", async || {
        let workers = gateway.admin().send(crate::harness::Request::get("/workers")).await.json();
        (workers[0]["in_flight"] == calls).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_call_that_times_out_while_the_stream_is_full_is_told_so() {
    let mut server = fixture("flood 100000");
    server.tools.insert("hang".to_owned(), Tool { timeout: Some(Duration::from_millis(100)), resend: None });
    let gateway = narrow(server).await;
    let mut client = gateway.sse().await;
    client.post(call(1, "flood", json!({}))).await;
    until_stuck(&gateway).await;
    client.post(call(2, "hang", json!({}))).await;
    until_in_flight(&gateway, 1).await;
    let error = loop {
        let message = client.message().await;
        if message.get("id").is_some() {
            break message;
        }
    };
    assert_eq!((&error["id"], &error["error"]["data"]["type"]), (&json!(2), &json!("call_timeout")), "{error}");
    gateway.finish().await;
}
