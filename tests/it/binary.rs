//! The real program, as an operator runs it: a process with an environment, a configuration file and log lines.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Caller, Metrics, Request, eventually, fixture_path};
use crate::proc;

/// The key that the configuration names, of the tenant `acme`.
pub(crate) const KEY: &str = "slk_bin_a-key-for-tests-of-the-binary";
/// The key of the tenant `umbrella`.
pub(crate) const OTHER_KEY: &str = "slk_other_another-key-for-tests-of-the-binary";

/// A variable in the environment of every gateway here that none of its children may see.
pub(crate) const CANARY: (&str, &str) = ("SLUICE_TEST_CANARY", "the-gateways-own-secret");

/// A running `sluice serve`. When it is dropped it is killed.
pub(crate) struct Binary {
    process: Child,
    /// Who calls with [`KEY`].
    pub(crate) caller: Caller,
    admin: Caller,
    log: Arc<Mutex<Vec<String>>>,
    _folder: tempfile::TempDir,
}

impl Binary {
    /// Serves the fixture in some modes, by name, with what `more` adds to the configuration.
    pub(crate) async fn start(servers: &[(&str, Vec<&str>)], more: &str) -> Self {
        Self::start_as(Command::new(env!("CARGO_BIN_EXE_sluice")), Stdio::piped(), servers, more).await
    }

    /// As `start`, by another command and with another stderr. The log is collected from a pipe only.
    pub(crate) async fn start_as(
        mut command: Command,
        stderr: Stdio,
        servers: &[(&str, Vec<&str>)],
        more: &str,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sluice.toml");
        std::fs::write(&path, configuration(servers) + more).unwrap();
        let mut process = command
            .args(["serve", "--config"])
            .arg(&path)
            .env(CANARY.0, CANARY.1)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let log = Arc::<Mutex<Vec<String>>>::default();
        if let Some(stderr) = process.stderr.take() {
            collect(stderr, Arc::clone(&log));
        }
        let said = Arc::<Mutex<Vec<String>>>::default();
        collect(process.stdout.take().unwrap(), Arc::clone(&said));
        let find = |start: &str| -> Option<SocketAddr> {
            let said = said.lock();
            let line = said.iter().find_map(|line| line.strip_prefix(start))?;
            line.trim_end_matches("/metrics").parse().ok()
        };
        let public = eventually("it serves", async || find("Sluice is serving http://")).await;
        let admin = eventually("it shows metrics", async || find("metrics on http://")).await;
        let (caller, admin) = (Caller::new(public).with_key(KEY), Caller::new(admin));
        Self { process, caller, admin, log, _folder: folder }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The process, to be waited for.
    pub(crate) fn process_mut(&mut self) -> &mut Child {
        &mut self.process
    }

    pub(crate) async fn metrics(&self) -> Metrics {
        Metrics(self.admin.send(Request::get("/metrics")).await.text)
    }

    /// The process of the child whose arguments hold `mode`.
    pub(crate) async fn child(&self, mode: &str) -> u32 {
        eventually("the child runs", async || {
            proc::descendants(self.pid()).into_iter().find(|pid| proc::arguments(*pid).contains(mode))
        })
        .await
    }

    /// What it has logged so far, line by line.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().clone()
    }

    /// Waits for a log line (JSON) that holds `text`.
    pub(crate) async fn logged(&self, text: &str) -> Value {
        eventually("it is logged", async || {
            let log = self.log.lock();
            log.iter().find(|line| line.contains(text)).map(|line| serde_json::from_str(line).unwrap())
        })
        .await
    }

    /// Stops it as an operator does. No child is left, and it says that it has ended well.
    pub(crate) async fn stop(mut self) -> Vec<String> {
        let children = proc::descendants(self.pid());
        proc::signal(self.pid(), Signal::TERM);
        let status = eventually("it ends", async || self.process.try_wait().unwrap()).await;
        assert!(status.success(), "{status}");
        for child in children {
            proc::gone(child).await;
        }
        eventually("the log ends", async || (Arc::strong_count(&self.log) == 1).then_some(())).await;
        self.log()
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn configuration(servers: &[(&str, Vec<&str>)]) -> String {
    let mut text = String::from(
        "[http]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[tenants.acme]\n[tenants.umbrella]\n",
    );
    for (key, tenant) in [(KEY, "acme"), (OTHER_KEY, "umbrella")] {
        let prefix = key.split('_').nth(1).unwrap();
        let entry = sluice::config::ApiKey::from_plain(key, tenant.parse().unwrap(), tenant.to_owned(), Vec::new());
        let sha256 = entry.sha256.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        writeln!(text, "[[auth.keys]]\nprefix = {prefix:?}\nsha256 = {sha256:?}\ntenant = {tenant:?}").unwrap();
    }
    for (name, arguments) in servers {
        writeln!(text, "[servers.{name}]\ncommand = {:?}\nargs = {arguments:?}", fixture_path()).unwrap();
    }
    text
}

/// Keeps the lines of a pipe until it ends.
fn collect(pipe: impl Read + Send + 'static, lines: Arc<Mutex<Vec<String>>>) {
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            lines.lock().push(String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned());
            line.clear();
        }
    });
}
