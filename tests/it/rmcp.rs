//! The Rust SDK's client, which nobody here wrote, against `sluice run`: it holds that what the gateway says over
//! Streamable HTTP is what `rmcp` expects.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rmcp::handler::client::ClientHandler;
use rmcp::model::{CallToolRequestParams, ProgressNotificationParam, ProtocolVersion};
use rmcp::service::{NotificationContext, RoleClient};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientLifecycleMode, serve_client_with_lifecycle};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

const SLUICE: &str = env!("CARGO_BIN_EXE_sluice");
const KEY: &str = "slk_rmcp_a-key-for-a-test-of-the-rust-sdk";
const LIMIT: Duration = Duration::from_secs(30);

/// A client that keeps the progress that it is told.
#[derive(Clone, Default)]
struct Listener(Arc<Mutex<Vec<f64>>>);

impl ClientHandler for Listener {
    async fn on_progress(&self, params: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        self.0.lock().push(params.progress);
    }
}

/// Starts `sluice run` around the built-in server, and gives it with its Streamable HTTP URL.
#[expect(clippy::disallowed_methods, reason = "the lines are those that our own binary prints")]
async fn gateway(workspace: &std::path::Path) -> (Child, String) {
    let mut gateway = Command::new(SLUICE)
        .args(["run", "--listen", "127.0.0.1:0", "--", SLUICE, "stdio-demo", "--workspace"])
        .arg(workspace)
        .env("SLUICE_KEY", KEY)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(gateway.stdout.take().unwrap()).lines();
    let url = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some(url) =
                line.split_whitespace().find(|word| word.starts_with("http://") && word.ends_with("/mcp"))
            {
                return url.to_owned();
            }
        }
        panic!("`sluice run` printed no URL");
    };
    let url = timeout(LIMIT, url).await.expect("a URL in time");
    // It may have more to say: nobody reading it would end it.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (gateway, url)
}

/// A whole conversation, as a user of the SDK has it.
async fn converse(url: &str, key: &str, lifecycle: ClientLifecycleMode) {
    let config = StreamableHttpClientTransportConfig::with_uri(url).auth_header(key);
    let listener = Listener::default();
    let transport = StreamableHttpClientTransport::from_config(config);
    let client = serve_client_with_lifecycle(listener.clone(), transport, lifecycle).await.unwrap();

    let tools = client.list_all_tools().await.unwrap();
    assert!(tools.iter().any(|tool| tool.name == "add"), "{tools:?}");

    let call = |name: &'static str, arguments: serde_json::Value| {
        let params = CallToolRequestParams::new(name).with_arguments(arguments.as_object().unwrap().clone());
        let answer = client.call_tool(params);
        async move {
            let result = answer.await.unwrap();
            assert_ne!(result.is_error, Some(true), "{result:?}");
            result.content[0].as_text().unwrap().text.clone()
        }
    };
    assert_eq!(call("add", json!({"a": 2, "b": 5})).await, "7");
    let echoes =
        (0..32).map(|number| {
            let call = &call;
            async move {
                assert_eq!(call("echo", json!({"text": format!("text {number}")})).await, format!("text {number}"))
            }
        });
    futures_util::future::join_all(echoes).await;

    call("slow", json!({"seconds": 0.3, "steps": 3})).await;
    let told = listener.0.lock().clone();
    assert!(told.starts_with(&[1.0, 2.0]), "the progress was {told:?}");

    let unknown = client.call_tool(CallToolRequestParams::new("no-such-tool")).await;
    assert!(unknown.unwrap_err().to_string().contains("no-such-tool"));
    client.cancel().await.unwrap();
}

#[tokio::test]
async fn the_rust_sdk_holds_a_conversation() {
    let workspace = tempfile::tempdir().unwrap();
    let (mut gateway, url) = gateway(workspace.path()).await;
    let auto = ClientLifecycleMode::Auto { preferred_versions: vec![ProtocolVersion::LATEST], legacy_version: None };
    for lifecycle in [ClientLifecycleMode::Initialize, auto] {
        timeout(LIMIT, converse(&url, KEY, lifecycle)).await.expect("the conversation ends in time");
    }
    let pid = rustix::process::Pid::from_raw(gateway.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(timeout(LIMIT, gateway.wait()).await.expect("it stops in time").unwrap().success());
}
