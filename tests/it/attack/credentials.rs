//! A credential holds for as long as it says, and for whom it says, and no longer.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::binary::Binary;
use crate::harness::{Response, Sse, Streamable, eventually};

const SECRET: &str = "a secret for tokens of more than 32 bytes";

/// A token that holds for so many seconds.
fn token(secret: &Path, seconds: u64) -> String {
    let made = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(["token", "--tenant", "acme", "--ttl", &format!("{seconds}s"), "--secret-file"])
        .arg(secret)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

/// A gateway that takes such tokens, to the second.
async fn gateway(folder: &Path) -> (Binary, std::path::PathBuf) {
    let secret = folder.join("jwt");
    std::fs::write(&secret, SECRET).unwrap();
    let more = format!(
        "[auth.jwt]\nalgorithms = [\"HS256\"]\nsecret_file = {secret:?}\nissuers = [\"sluice-dev\"]\n\
         audiences = [\"sluice\"]\nleeway = \"0s\"\n"
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.env("SLUICE__HTTP__KEEP_ALIVE", "100ms");
    (Binary::start_as(command, Stdio::piped(), &[("echo", vec!["echo"])], &more).await, secret)
}

/// Reads a stream of comments to its end: the last event.
async fn last(stream: &mut Response) -> String {
    let mut last = String::new();
    while let Some(event) = stream.event().await {
        assert!(event.data.is_none(), "{event:?}");
        last = event.raw;
    }
    last
}

#[tokio::test]
async fn a_stream_ends_with_the_credential_that_opened_it() {
    let folder = tempfile::tempdir().unwrap();
    let (binary, secret) = gateway(folder.path()).await;
    let caller = binary.caller.server("echo").with_key(&token(&secret, 2));
    let start = Instant::now();
    let streamable = Streamable::initialize(&caller, "2025-11-25").await;
    let mut get = streamable.stream().await;
    let mut sse = Sse::open(&caller).await.initialized("2024-11-05").await;
    for stream in [&mut get, &mut sse.stream] {
        assert_eq!(last(stream).await, "retry: 3000\n\n", "the client is told to come back");
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }
    binary.logged("the credential has expired").await;
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    eventually("the token is refused", async || (sse.send(&ping).await.status == 401).then_some(())).await;
    // The session on HTTP+SSE ends with its stream; the other is there for a newer credential.
    eventually("one session", async || (binary.metrics().await.sessions() == 1.0).then_some(())).await;
    binary.stop().await;
}

#[tokio::test]
async fn a_stream_goes_on_for_a_client_that_has_shown_a_newer_credential() {
    let folder = tempfile::tempdir().unwrap();
    let (binary, secret) = gateway(folder.path()).await;
    let caller = binary.caller.server("echo");
    let (short, long) = (caller.with_key(&token(&secret, 2)), caller.with_key(&token(&secret, 300)));
    let streamable = Streamable::initialize(&short, "2025-11-25").await;
    let mut get = streamable.stream().await;
    let mut sse = Sse::open(&short).await.initialized("2024-11-05").await;
    let ping = json!({"jsonrpc": "2.0", "method": "notifications/x"});
    for (path, session) in [("/mcp".to_owned(), Some(&streamable.session)), (sse.endpoint.clone(), None)] {
        let path = if session.is_some() { long.path(&path) } else { path };
        let mut request = crate::harness::Request::post(&path, &ping);
        if let Some(session) = session {
            request = request.header("Mcp-Session-Id", session);
        }
        assert_eq!(long.send(request).await.status, 202);
    }
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        for stream in [&mut get, &mut sse.stream] {
            assert!(stream.event().await.expect("it goes on").is_comment());
        }
    }
    binary.stop().await;
}
