//! A server that fails in a sandbox: its client and the log are told that it was in one, and what widens it.

use serde_json::{Value, json};
use sluice::config::{SandboxMode, Server};
use tempfile::NamedTempFile;

use crate::binary::Binary;
use crate::scene::{Client, Scene, Wire, fixture, program};

/// The error that a client gets for an `initialize` that fails.
async fn error(mut server: Server, mode: SandboxMode) -> Value {
    server.sandbox.mode = mode;
    let scene = Scene::of(server).await;
    let client = scene.connect(Wire::Streamable).await;
    let answer = client.initialize().await;
    client.close().await;
    scene.finish().await;
    answer["error"]["message"].clone()
}

/// A script that reads where it has no business. (A path in the text of a script is not one that it was given.)
fn intrude(file: &NamedTempFile) -> String {
    format!("cat {}; exit 3", file.path().display())
}

/// A server that has no database.
fn quitter() -> Server {
    program("sh", &["-c", "echo there is no database >&2; exit 3"])
}

const KEYS: &str = "servers.subject.sandbox.read, write, network or allow";

#[tokio::test]
async fn what_was_refused_is_said_first() {
    let file = NamedTempFile::new().unwrap();
    let message = error(program("sh", &["-c", &intrude(&file)]), SandboxMode::Standard).await;
    let (before, after) = message.as_str().unwrap().split_once("; its last lines on stderr: ").unwrap();
    let hint = "it seems that its sandbox \"standard\" refused it something: allow what it needs by ";
    assert!(before.ends_with(&format!("before it answered initialize; {hint}{KEYS}")), "{message}");
    assert!(after.contains("Permission denied"), "{message}");
    let message = error(quitter(), SandboxMode::Strict).await;
    let hint = format!("it ran in the sandbox \"strict\", which is widened by {KEYS}; its last lines");
    assert!(message.as_str().unwrap().contains(&hint), "{message}");
    let message = error(quitter(), SandboxMode::None).await;
    assert!(!message.as_str().unwrap().contains("sandbox"), "{message}");
}

#[tokio::test]
async fn a_crash_is_blamed_on_the_sandbox_only_with_a_reason() {
    let mut server = fixture(&["echo"]);
    server.sandbox.mode = SandboxMode::Standard;
    let scene = Scene::of(server).await;
    let client = scene.open(Wire::Streamable).await;
    let message = |answer: Value| answer["error"]["message"].as_str().unwrap().to_owned();
    let crashed = message(client.call("crash", json!({})).await);
    assert!(!crashed.contains("sandbox"), "{crashed}");
    let file = NamedTempFile::new().unwrap();
    let refused = message(client.call("look", json!({"path": file.path(), "crashes": 0})).await);
    assert!(refused.contains("its sandbox \"standard\" refused it something"), "{refused}");
    client.close().await;
    scene.finish().await;
}

#[tokio::test]
async fn the_log_says_it_too() {
    let file = NamedTempFile::new().unwrap();
    let more = format!("[servers.intruder]\ncommand = \"sh\"\nargs = [\"-c\", {:?}]\n", intrude(&file));
    let binary = Binary::start(&[], &more).await;
    let client = Client::connect(&binary.caller.server("intruder"), Wire::Streamable).await;
    client.initialize().await;
    let line = binary.logged("child did not start").await;
    assert_eq!((&line["level"], &line["server"]), (&json!("WARN"), &json!("intruder")));
    assert!(line["hint"].as_str().unwrap().contains("servers.intruder.sandbox.read"), "{line}");
    client.close().await;
    binary.stop().await;
}
