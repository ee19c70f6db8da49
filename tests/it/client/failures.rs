//! Everything that can go wrong with a call has its exit code and says what to do.

use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::time::timeout;

use super::program::{Ended, PATIENCE, command, sluice};
use super::stub::{Gateway, event_stream, json_body, raw_stream};

/// Calls `add` where every POST of `what` is answered with `response`.
async fn call_against(what: &'static str, response: impl Fn() -> Response + Send + Sync + 'static) -> Ended {
    let gateway = Gateway::with(move |seen, _| (seen.what() == what).then(&response)).await;
    sluice(&["call", &gateway.url("/mcp"), "add", "a=1", "b=1"]).await
}

fn assert_fails(ended: &Ended, code: i32, says: &str) {
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{}", ended.stderr);
    assert!(ended.stderr.starts_with("sluice: ") && ended.stderr.contains(says), "{}", ended.stderr);
}

#[tokio::test]
async fn every_status_has_its_exit_code() {
    let problem = r#"{"title":"t","detail":"the reason"}"#;
    for (status, headers, code, says) in [
        (401, [("x", "y")], 77, "give --key-file or --key, or set SLUICE_KEY_FILE or SLUICE_KEY (401): the reason"),
        (403, [("x", "y")], 77, "does not allow this (403): the reason"),
        (404, [("x", "y")], 69, "/mcp (404)"),
        (405, [("x", "y")], 70, "does not speak this transport"),
        (429, [("retry-after", "7")], 75, "try again in 7 s: the reason"),
        (500, [("x", "y")], 69, "500"),
        (503, [("x", "y")], 69, "503"),
        (503, [("retry-after", "1")], 75, "try again in 1 s"),
        (307, [("location", "http://127.0.0.2/mcp")], 70, "has moved to http://127.0.0.2/mcp"),
    ] {
        let ended = call_against("initialize", move || {
            (StatusCode::from_u16(status).unwrap(), headers, problem).into_response()
        })
        .await;
        assert_fails(&ended, code, says);
    }
}

#[tokio::test]
async fn a_refused_key_is_told_from_a_missing_one_and_never_shown() {
    let gateway = Gateway::with(|_, _| Some(StatusCode::UNAUTHORIZED.into_response())).await;
    for path in ["/mcp", "/sse"] {
        let ended = sluice(&["tools", &gateway.url(path), "--key", "sk-secret"]).await;
        assert_fails(&ended, 77, "does not accept this key");
        assert!(!ended.stderr.contains("sk-secret"));
    }
}

#[tokio::test]
async fn what_is_not_mcp_is_a_protocol_error() {
    assert_fails(&call_against("add", || json_body("{\"jsonrpc\":")).await, 70, "not JSON");
    assert_fails(&call_against("add", || json_body("{\"hello\":1}")).await, 70, "jsonrpc");
    assert_fails(&call_against("add", || "<html>".into_response()).await, 70, "text/plain");
    assert_fails(&call_against("add", || StatusCode::ACCEPTED.into_response()).await, 70, "no answer");
    assert_fails(
        &call_against("add", || json_body(r#"{"jsonrpc":"2.0","id":99,"result":{}}"#)).await,
        70,
        "another id",
    );
    assert_fails(&call_against("add", || raw_stream("data: {\n\n".to_owned())).await, 70, "not JSON");
    let other = r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"1999-01-01"}}"#;
    assert_fails(&call_against("initialize", || json_body(other)).await, 70, "1999-01-01");
    let gateway = Gateway::with(|seen, _| (seen.path == "/sse").then(|| raw_stream("data: x\n\n".to_owned()))).await;
    assert_fails(&sluice(&["tools", &gateway.url("/sse")]).await, 70, "`endpoint`");
}

#[tokio::test]
async fn errors_of_the_server_are_told_from_errors_of_the_way() {
    let gateway = Gateway::start().await;
    assert_fails(&sluice(&["call", &gateway.url("/mcp"), "odd"]).await, 76, "error -32602: no such tool");
    let body = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"bad message"}}"#;
    let refused = call_against("add", move || (StatusCode::BAD_REQUEST, body).into_response()).await;
    assert_fails(&refused, 76, "bad message");
    let lost = call_against("add", || raw_stream("data: \n\n".to_owned())).await;
    assert_fails(&lost, 69, "connection was lost before the answer came");
    assert_fails(&sluice(&["call", &gateway.url("/sse"), "dies"]).await, 69, "connection was lost");
}

#[tokio::test]
async fn nothing_there_is_said_with_the_address() {
    let gateway = Gateway::start().await;
    let origin = gateway.stop().await;
    let ended = sluice(&["tools", &format!("{origin}/mcp?token=secret")]).await;
    assert_fails(&ended, 69, &format!("cannot reach {origin}: Connection refused"));
    assert!(ended.stderr.contains("sluice demo") && !ended.stderr.contains("secret"), "{}", ended.stderr);
}

#[tokio::test]
async fn arguments_are_checked_before_anything_is_called() {
    let gateway = Gateway::start().await;
    let url = gateway.url("/mcp");
    for (arguments, says) in [
        (&["add", "a=x", "b=1"][..], "\"a\" must be integer, and \"x\" is not"),
        (&["add", "a=1"], "missing: b"),
        (&["add", "a=1", "b=1", "c=1"], "there is no argument \"c\""),
        (&["subtract"], "there is no tool \"subtract\"; there are: add, asks"),
        (&["add", "--json", "[]"], "wants an object"),
    ] {
        assert_fails(&sluice(&[&["call", &url], arguments].concat()).await, 64, says);
    }
    for arguments in [
        &["call", &url, "add", "novalue"][..],
        &["call", "localhost:8081", "add"],
        &["tools"],
        &["tools", &url, "--timeout", "5"],
    ] {
        assert_eq!(sluice(arguments).await.code, Some(2), "{arguments:?}");
    }
    assert!(!gateway.said().contains(&"add".to_owned()));
    assert!(sluice(&["call", "--help"]).await.stdout.contains("77   the key was refused"));
}

#[tokio::test]
async fn an_endpoint_elsewhere_gets_no_credential() {
    let elsewhere = Gateway::start().await;
    let target = format!("event: endpoint\ndata: {}\n\n", elsewhere.url("/messages/s1"));
    let gateway = Gateway::with(move |_, _| Some(raw_stream(target.clone()))).await;
    assert_fails(&sluice(&["tools", &gateway.url("/sse"), "--key", "k"]).await, 70, "another host");
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn a_call_without_an_answer_ends_in_time_and_is_cancelled() {
    for path in ["/mcp", "/sse"] {
        let gateway = Gateway::start().await;
        let ended = sluice(&["call", &gateway.url(path), "hangs", "--timeout", "1500ms"]).await;
        assert_fails(&ended, 124, "no answer within 1.5s");
        let cancelled = gateway.wait_for(|seen| seen.what() == "notifications/cancelled").await;
        let call = gateway.wait_for(|seen| seen.what() == "hangs").await;
        assert_eq!(cancelled.body["params"]["requestId"], call.body["id"], "{path}");
    }
    // A gateway that takes connections and says nothing, from the first request on.
    let silent = Gateway::with(|_, _| Some(event_stream().1)).await;
    assert_fails(&sluice(&["tools", &silent.url("/sse"), "--timeout", "200ms"]).await, 69, "ended at once");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    assert_fails(&sluice(&["tools", &url, "--timeout", "200ms"]).await, 124, "200ms");
}

#[tokio::test]
async fn ctrl_c_cancels_the_call_and_closes_the_session() {
    let gateway = Gateway::start().await;
    let child = command(&["call", &gateway.url("/mcp"), "hangs"]).spawn().unwrap();
    let pid = Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    gateway.wait_for(|seen| seen.what() == "hangs").await;
    kill_process(pid, Signal::INT).unwrap();
    let output = timeout(PATIENCE, child.wait_with_output()).await.expect("it ends").unwrap();
    assert_fails(&output.into(), 130, "interrupted");
    let seen = gateway.seen();
    let [.., cancelled, delete] = seen.as_slice() else { unreachable!() };
    assert_eq!(cancelled.body["params"], json!({ "requestId": 3, "reason": "interrupted" }));
    assert_eq!(delete.verb, Method::DELETE);
}
