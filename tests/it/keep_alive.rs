//! Every kind of stream says something now and then, so that nothing on the way takes it for dead.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Gateway, Response, fixture};

async fn assert_kept_alive(stream: &mut Response) {
    for _ in 0..3 {
        assert_eq!(stream.event().await.unwrap().raw, ": keep-alive\n\n");
    }
}

#[tokio::test]
async fn every_kind_of_stream_is_kept_alive() {
    let gateway =
        Gateway::start_with([fixture("echo")], |config| config.http.keep_alive = Duration::from_millis(20)).await;
    let mut sse = gateway.sse().await;
    assert_kept_alive(&mut sse.stream).await;
    let client = gateway.streamable().await;
    let mut get = client.stream().await;
    assert_kept_alive(&mut get).await;
    let hang = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "hang"}});
    let mut post = client.open(hang).await;
    assert_kept_alive(&mut post).await;
    // Messages come through between them.
    assert_eq!(sse.call("echo", json!({"text": "through"})).await, "through");
    client.notify(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})).await;
    assert_eq!(post.message().await, None);
    gateway.finish().await;
}
