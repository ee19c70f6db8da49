//! Runs the `sluice` binary, with nothing of this process's environment that could change what it does.

use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// Longer than anything here takes; a test that waits so long has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

pub(super) struct Ended {
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// Runs it to its end.
pub(super) async fn sluice(arguments: &[&str]) -> Ended {
    end(command(arguments)).await
}

pub(super) async fn end(mut command: Command) -> Ended {
    timeout(PATIENCE, command.output()).await.expect("it ends").unwrap().into()
}

/// A running `sluice connect`.
pub(super) struct Connect {
    pub(super) child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Connect {
    pub(super) fn start(url: &str, options: &[&str]) -> Self {
        let mut child = command(&[&["connect", url], options].concat()).stdin(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().unwrap());
        Self { child, stdin, stdout: BufReader::new(stdout).lines() }
    }

    /// A session that has begun.
    pub(super) async fn initialized(url: &str, options: &[&str]) -> Self {
        let mut connect = Self::start(url, options);
        connect
            .send(r#"{"jsonrpc":"2.0","id":"init","method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#)
            .await;
        let answer = connect.receive().await;
        assert_eq!(answer["id"], "init", "{answer}");
        assert!(answer["result"].is_object(), "{answer}");
        connect.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
        connect
    }

    pub(super) async fn send(&mut self, line: &str) {
        self.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    pub(super) async fn call(&mut self, id: &str, tool: &str, arguments: &str) {
        self.send(&format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#
        ))
        .await;
    }

    /// The next line of stdout, as it is.
    pub(super) async fn line(&mut self) -> String {
        timeout(PATIENCE, self.stdout.next_line()).await.expect("a line comes").unwrap().expect("stdout is open")
    }

    pub(super) async fn receive(&mut self) -> Value {
        serde_json::from_str(&self.line().await).unwrap()
    }

    /// Closes stdin; gives the lines that still came, and the exit code.
    pub(super) async fn end(mut self) -> (Vec<Value>, Option<i32>) {
        drop(self.stdin.take());
        let mut rest = Vec::new();
        while let Some(line) = timeout(PATIENCE, self.stdout.next_line()).await.expect("stdout ends").unwrap() {
            rest.push(serde_json::from_str(&line).unwrap());
        }
        let status = timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap();
        (rest, status.code())
    }
}
