//! Nothing that is secret, and nothing that anybody says, is in the log: not at the level `trace` either.

use std::process::{Command, Stdio};

use serde_json::json;

use crate::binary::{Binary, CANARY, KEY};
use crate::harness::Request;
use crate::scene::{BOTH, Client};

const SECRET: &str = "canary-jwt-secret-of-more-than-32-bytes";

/// A JWT that the gateway accepts.
fn token(secret: &std::path::Path) -> String {
    let token = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(["token", "--tenant", "acme", "--secret-file"])
        .arg(secret)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    String::from_utf8(token.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn the_log_holds_no_bodies_no_credentials_and_no_header_values() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("jwt");
    std::fs::write(&secret, SECRET).unwrap();
    let jwt = token(&secret);
    let more = format!(
        "[log]\nfilter = \"trace\"\n[auth.jwt]\nalgorithms = [\"HS256\"]\nsecret_file = {secret:?}\n\
         issuers = [\"sluice-dev\"]\naudiences = [\"sluice\"]\n[servers.echo.env]\nVALUE = \"canary-env\"\n"
    );
    let binary = Binary::start(&[("echo", vec!["echo"]), ("broken", vec!["exit", "1"])], &more).await;
    let caller = binary.caller.server("echo");
    for wire in BOTH {
        for caller in [caller.clone(), caller.with_key(&jwt)] {
            let client = Client::open(&caller, wire).await;
            assert_eq!(client.text("echo", json!({"text": "canary-argument"})).await, "canary-argument");
            client.request("x/canary-method", json!({"canary-param": 1})).await;
            client.notify("notifications/canary-notification", json!({})).await;
            client.text("raw", json!({"line": "canary-line that is no message"})).await;
            client.text("raw", json!({"line": r#"{"jsonrpc":"2.0","id":"canary-id","result":{}}"#})).await;
            client.call("crash", json!({"code": 1, "note": "canary-in-flight"})).await;
            client.text("echo", json!({"text": "canary-after"})).await;
            client.close().await;
        }
        let client = Client::connect(&binary.caller.server("broken"), wire).await;
        client.initialize().await;
        client.close().await;
    }
    // And everything that is refused.
    let forged = format!("{}canary-signature", jwt.rsplit_once('.').unwrap().0.to_owned() + ".");
    let header = |name: &str, value: &str| Request::get("/servers/echo/sse").header(name, value);
    for request in [
        header("X-Canary", "canary-header"),
        header("Authorization", "Bearer slk_canary_canary-wrong-key"),
        header("Authorization", &format!("Bearer {forged}")),
        header("Authorization", "Basic canary-basic"),
        header("X-API-Key", "canary-api-key"),
        header("Cookie", "session=canary-cookie"),
        header("Host", "canary-host.example"),
        header("Origin", "https://canary-origin.example"),
        Request::get("/servers/echo/sse?access_token=canary-query"),
        Request::get("/servers/canary-server/sse"),
        Request::post("/servers/echo/mcp", r#"{"jsonrpc": "canary-version", "id": 1"#),
        Request::post("/servers/echo/mcp", r#"{"jsonrpc": "2.0", "id": {"canary-object": 1}, "method": "ping"}"#),
        Request::post("/servers/echo/mcp", json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}))
            .header("Mcp-Session-Id", "canary-session"),
    ] {
        drop(binary.caller.open(request).await);
    }
    let log = binary.stop().await.join("\n");
    assert!(log.lines().count() > 20, "it has logged something: {log}");
    let parts = jwt.split('.').skip(1).map(str::to_owned);
    for secret in parts.chain(["canary", KEY, SECRET, CANARY.1].map(str::to_owned)) {
        let found = log.lines().find(|line| line.contains(&secret));
        assert_eq!(found, None, "{secret} is in the log");
    }
}
