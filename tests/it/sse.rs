//! HTTP+SSE, 2024-11-05: the stream, its endpoint, and the session that ends with it.

use serde_json::json;

use crate::harness::{Gateway, Request, Sse, fixture, key, named};

#[tokio::test]
async fn a_call_is_answered_on_the_stream() {
    let gateway = Gateway::start(fixture("echo")).await;
    let mut client = gateway.sse().await;
    assert_eq!(client.call("echo", json!({"text": "hello"})).await, "hello");
    gateway.finish().await;
}

#[tokio::test]
async fn a_call_over_streamable_http_is_answered() {
    let gateway = Gateway::start(fixture("echo")).await;
    let mut client = gateway.streamable().await;
    assert_eq!(client.call("echo", json!({"text": "hello"})).await, "hello");
    gateway.finish().await;
}
