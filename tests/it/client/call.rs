//! `tools`, `call` and `health` where all goes well.

use std::process::Stdio;

use axum::http::{Method, StatusCode};
use axum::response::IntoResponse as _;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::program::{command, end, sluice};
use super::stub::{Gateway, json_body, raw_stream};

#[tokio::test]
async fn a_call_prints_the_answer_and_nothing_else() {
    for path in ["/mcp", "/sse"] {
        let gateway = Gateway::start().await;
        let call = sluice(&["call", &gateway.url(path), "add", "a=2", "b=5"]).await;
        assert_eq!((call.stdout.as_str(), call.stderr.as_str(), call.code), ("7\n", "", Some(0)), "{path}");
        assert_eq!(gateway.said(), ["initialize", "notifications/initialized", "tools/list", "add"], "{path}");
        let seen = gateway.seen();
        let initialize = seen.iter().find(|seen| seen.what() == "initialize").unwrap();
        assert_eq!(initialize.body["params"]["protocolVersion"], "2025-11-25");
        assert!(initialize.header("content-length").is_some());
        let call = seen.iter().find(|seen| seen.what() == "add").unwrap();
        assert_eq!(call.header("mcp-protocol-version"), Some("2025-06-18"), "{path}: the negotiated version");
        assert_eq!(call.body["params"], json!({ "name": "add", "arguments": { "a": 2, "b": 5 } }));
    }
}

#[tokio::test]
async fn a_streamable_session_has_its_headers_and_is_closed() {
    let gateway = Gateway::start().await;
    sluice(&["call", &gateway.url("/mcp"), "add", "a=2", "b=5"]).await;
    let seen = gateway.seen();
    let [initialize, rest @ ..] = seen.as_slice() else { unreachable!() };
    assert_eq!((initialize.header("mcp-session-id"), initialize.header("mcp-protocol-version")), (None, None));
    assert!(rest.iter().all(|seen| seen.header("mcp-session-id") == Some("s1")));
    assert_eq!(rest.last().unwrap().verb, Method::DELETE);
    for post in seen.iter().filter(|seen| seen.verb == Method::POST) {
        assert_eq!(post.header("accept"), Some("application/json, text/event-stream"));
        assert_eq!(post.header("content-type"), Some("application/json"));
    }
    assert!(gateway.stub.sessions.lock().is_empty());
}

#[tokio::test]
async fn every_request_carries_the_credential() {
    for path in ["/mcp", "/sse"] {
        let gateway = Gateway::start().await;
        let url = gateway.url(path);
        sluice(&["call", &url, "add", "a=1", "b=1", "--key", "k-option", "--header", "X-Tenant: acme"]).await;
        let mut from_environment = command(&["call", &url, "add", "a=1", "b=1"]);
        from_environment.env("SLUICE_KEY", "k-environment");
        assert_eq!(end(from_environment).await.code, Some(0));
        let seen = gateway.seen();
        let half = seen.len() / 2;
        assert!(seen[..half].iter().all(|seen| seen.header("authorization") == Some("Bearer k-option")), "{path}");
        assert!(seen[..half].iter().all(|seen| seen.header("x-tenant") == Some("acme")), "{path}");
        assert!(seen[half..].iter().all(|seen| seen.header("authorization") == Some("Bearer k-environment")), "{path}");
    }
}

#[tokio::test]
async fn whole_arguments_pass_as_they_are() {
    let gateway = Gateway::start().await;
    let url = gateway.url("/mcp");
    assert_eq!(sluice(&["call", &url, "add", "--json", r#"{"b": 5, "a": 3}"#]).await.stdout, "8\n");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, r#"{"a":1,"b":1}"#).unwrap();
    assert_eq!(sluice(&["call", &url, "add", "--json", &format!("@{}", file.path().display())]).await.stdout, "2\n");
    let mut child = command(&["call", &url, "add", "--json", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b" {\"a\":20,\n\"b\":22}\n").await.unwrap();
    assert_eq!(child.wait_with_output().await.unwrap().stdout, b"42\n");
    assert!(!gateway.said().contains(&"tools/list".to_owned()));
}

#[tokio::test]
async fn contents_are_printed_one_below_the_other() {
    let gateway = Gateway::start().await;
    let url = gateway.url("/mcp");
    let call = sluice(&["call", &url, "fails"]).await;
    assert_eq!(call.stdout, "disk full\n{\"data\":\"AA==\",\"type\":\"image\"}\n");
    assert_eq!((call.code, call.stderr.as_str()), (Some(1), "sluice: the tool failed\n"));
    let raw: Value = serde_json::from_str(&sluice(&["call", &url, "fails", "--raw"]).await.stdout).unwrap();
    assert_eq!(raw["isError"], true);
}

#[tokio::test]
async fn requests_of_the_server_are_answered() {
    for path in ["/mcp", "/sse"] {
        let gateway = Gateway::start().await;
        let call = sluice(&["call", &gateway.url(path), "asks"]).await;
        assert_eq!((call.stdout.as_str(), call.code), ("asked\n", Some(0)), "{path}: {}", call.stderr);
        let ping = gateway.wait_for(|seen| seen.body["id"] == "p").await;
        assert_eq!(ping.body, json!({ "jsonrpc": "2.0", "id": "p", "result": {} }));
        let sampling = gateway.wait_for(|seen| seen.body["id"] == 7 && seen.body["error"].is_object()).await;
        assert_eq!(sampling.body["error"]["code"], -32601);
    }
}

#[tokio::test]
async fn tools_are_listed_as_they_are_called() {
    for path in ["/mcp", "/sse"] {
        let gateway = Gateway::start().await;
        let tools = sluice(&["tools", &gateway.url(path)]).await;
        assert!(
            tools.stdout.starts_with("add(b: integer, a: integer)\n    Adds two numbers.\n\nasks(…)\n"),
            "{}",
            tools.stdout
        );
        let raw = sluice(&["tools", &gateway.url(path), "--json"]).await.stdout;
        assert!(raw.contains(r#""vendor":1.0"#), "{raw}");
    }
}

#[tokio::test]
async fn a_list_is_followed_to_its_end_and_not_in_circles() {
    let page = |seen: &super::stub::Seen, next: Value| {
        let name = seen.body["params"]["cursor"].as_str().unwrap_or("first");
        json_body(&json!({ "jsonrpc": "2.0", "id": seen.body["id"], "result": { "tools": [{ "name": name }], "nextCursor": next } }).to_string())
    };
    let gateway = Gateway::with(move |seen, _| {
        let next = if seen.body["params"]["cursor"].is_null() { json!("second") } else { Value::Null };
        (seen.what() == "tools/list").then(|| page(seen, next))
    })
    .await;
    assert_eq!(sluice(&["tools", &gateway.url("/mcp")]).await.stdout, "first(…)\n\nsecond(…)\n");
    let raw: Value = serde_json::from_str(&sluice(&["tools", &gateway.url("/mcp"), "--json"]).await.stdout).unwrap();
    assert_eq!(raw, json!({ "tools": [{ "name": "first" }, { "name": "second" }] }));
    let circle = Gateway::with(move |seen, _| (seen.what() == "tools/list").then(|| page(seen, json!("again")))).await;
    assert_eq!(sluice(&["tools", &circle.url("/mcp")]).await.code, Some(70));
}

#[tokio::test]
async fn an_answer_that_comes_on_a_later_stream_is_waited_for() {
    let gateway = Gateway::with(|seen, _| match (&seen.verb, seen.what()) {
        (&Method::POST, "add") => Some(raw_stream("id: e1\nretry: 1\ndata:\n\n".to_owned())),
        (&Method::GET, _) if seen.header("last-event-id") == Some("e1") => {
            Some(raw_stream("id: e2\ndata: {\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"late\"}]}}\n\n".to_owned()))
        }
        _ => None,
    })
    .await;
    let call = sluice(&["call", &gateway.url("/mcp"), "add", "a=1", "b=1"]).await;
    assert_eq!((call.stdout.as_str(), call.code), ("late\n", Some(0)), "{}", call.stderr);
}

#[tokio::test]
async fn health_is_one_line_and_an_exit_code() {
    let gateway = Gateway::with(|seen, _| match seen.path.as_str() {
        "/healthz" => Some(StatusCode::OK.into_response()),
        "/sick" => Some(StatusCode::SERVICE_UNAVAILABLE.into_response()),
        _ => None,
    })
    .await;
    let health = sluice(&["health", &gateway.origin]).await;
    assert_eq!((health.stdout, health.code), (format!("alive: {}/healthz\n", gateway.origin), Some(0)));
    let mut from_environment = command(&["health"]);
    from_environment.env("SLUICE_URL", &gateway.origin);
    assert_eq!(end(from_environment).await.code, Some(0));
    for path in ["/sick", "/nowhere"] {
        let health = sluice(&["health", &gateway.url(path)]).await;
        assert_eq!((health.stdout.lines().count(), health.code), (1, Some(1)), "{path}");
    }
    let url = gateway.stop().await;
    let health = sluice(&["health", &url]).await;
    assert_eq!(health.code, Some(1));
    assert!(health.stdout.contains("Connection refused"), "{}", health.stdout);
}
