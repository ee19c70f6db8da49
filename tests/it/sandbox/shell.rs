//! What a user of a shell expects of `sluice run`: the server sees the folder that he is in. And what the built-in
//! server's commands can do in a sandbox, which is all that they can do without one.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;
use sluice::config::{SandboxMode, Server};

use super::stage::SLUICE;
use crate::harness::{Caller, Gateway, fixture_path};
use crate::scene::{Client, Wire};

/// A running `sluice run`.
struct Run {
    process: Child,
    caller: Caller,
}

impl Run {
    /// Runs a server in a folder.
    fn start(folder: &Path, options: &[&str], server: &[&str]) -> Self {
        let mut command = Command::new(SLUICE);
        command.args(["run", "--no-auth", "--listen", "127.0.0.1:0"]).args(options).arg("--").args(server);
        let mut process = command.current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let url = lines.find_map(|line| Some(line.unwrap().split_once("http://")?.1.to_owned())).unwrap();
        Self { process, caller: Caller::new(url.trim_end_matches("/mcp").parse().unwrap()) }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A folder with a script that needs the file beside it.
fn project() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("script"), ". ./beside\nexec \"$FIXTURE\" echo\n").unwrap();
    std::fs::write(folder.path().join("beside"), format!("FIXTURE={:?}\n", fixture_path())).unwrap();
    folder
}

#[tokio::test]
async fn a_relative_script_runs_with_what_is_beside_it() {
    let (folder, fixture) = (project(), fixture_path());
    let run = Run::start(folder.path(), &["--read", fixture.to_str().unwrap()], &["sh", "script"]);
    let client = Client::open(&run.caller, Wire::Streamable).await;
    assert_eq!(client.text("echo", json!({"text": "here"})).await, "here");
    // It may change the folder, as by hand.
    let file = folder.path().join("file");
    client.text("look", json!({"path": file, "crashes": 0})).await;
    assert!(file.exists());
    client.close().await;
}

#[tokio::test]
async fn in_a_home_the_error_says_why_nothing_is_found() {
    let (folder, fixture) = (project(), fixture_path());
    let home = format!("HOME={}", folder.path().display());
    let options = ["--env", &home, "--read", fixture.to_str().unwrap()];
    let run = Run::start(folder.path(), &options, &["sh", "script"]);
    let client = Client::connect(&run.caller, Wire::Streamable).await;
    let answer = client.initialize().await;
    let message = answer["error"]["message"].as_str().unwrap();
    let place = folder.path().canonicalize().unwrap();
    let hint = format!("it starts in {}, where everybody's things are, so its sandbox does not open", place.display());
    assert!(message.contains(&hint) && message.contains("(--read, --write)"), "{message}");
    client.close().await;
    let beside = folder.path().join("beside");
    let options = [&options[..], &["--read", beside.to_str().unwrap()]].concat();
    let run = Run::start(folder.path(), &options, &["sh", "script"]);
    Client::open(&run.caller, Wire::Streamable).await.close().await;
}

#[tokio::test]
async fn the_built_in_server_runs_commands_in_every_sandbox() {
    for mode in SandboxMode::ALL {
        let folder = tempfile::tempdir().unwrap();
        let arguments = ["stdio-demo", "--workspace", "."].map(str::to_owned).to_vec();
        let mut server = Server::new("demo".parse().unwrap(), SLUICE, arguments);
        server.sandbox.mode = mode;
        server.cwd = Some(folder.path().to_owned());
        server.sandbox.write.push(folder.path().to_owned());
        let gateway = Gateway::start(server).await;
        let client = Client::open(&gateway.with_key("none"), Wire::Streamable).await;
        let script = "echo in > made && cat made; cat /etc/passwd 2>/dev/null || echo out";
        let arguments = json!({"command": "sh", "args": ["-c", script]});
        assert_eq!(client.text("run_command", arguments).await, "in\nout\n", "{mode:?}");
        client.close().await;
        gateway.finish().await;
    }
}
