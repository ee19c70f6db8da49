//! The real binary as a gateway, and a client of it. What is left of it, and of its children, the tests ask /proc.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::harness::Metrics;

/// Far away: it is reached only by what never happens.
const PATIENCE: Duration = Duration::from_secs(30);

const SLUICE: &str = env!("CARGO_BIN_EXE_sluice");

/// `sluice serve` with the fixture as its servers, which may crash as often as they like, all processes of which carry
/// a mark in their environment.
pub(crate) struct Program {
    child: Child,
    pub(crate) url: String,
    metrics: String,
    pub(crate) mark: String,
    setup: Setup,
}

/// How it is started.
#[derive(Clone)]
pub(crate) struct Setup {
    /// Where its configuration, its state and all else is.
    pub(crate) folder: Arc<tempfile::TempDir>,
    pub(crate) binary: PathBuf,
    /// Words before those of the gateway.
    pub(crate) through: Vec<&'static str>,
    /// More configuration.
    pub(crate) configuration: String,
}

impl Default for Setup {
    fn default() -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        // Private folders may be in there: then all have to get through.
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        Self { folder, binary: SLUICE.into(), through: Vec::new(), configuration: String::new() }
    }
}

impl Program {
    /// Starts it, with the server `echo` and one that ignores SIGTERM and the end of its stdin.
    pub(crate) fn start() -> Self {
        Self::start_as(Setup::default())
    }

    /// Starts it where it can make no cgroup, as on most machines.
    pub(crate) fn without_cgroups() -> Self {
        Self::without_cgroups_as(Setup::default())
    }

    /// The same, in a way of its own.
    pub(crate) fn without_cgroups_as(setup: Setup) -> Self {
        // Who is not root is given none as it is.
        let script = "mount -t tmpfs none /sys/fs/cgroup && exec \"$0\" \"$@\"";
        let through = if rustix::process::geteuid().is_root() {
            vec!["unshare", "--mount", "sh", "-c", script]
        } else {
            Vec::new()
        };
        Self::start_as(Setup { through, ..setup })
    }

    /// The next one on the state directory of this one.
    pub(crate) fn start_next(&self) -> Self {
        Self::start_as(self.setup.clone())
    }

    /// Starts it in a way of its own.
    pub(crate) fn start_as(setup: Setup) -> Self {
        let folder = &setup.folder;
        let mark = format!("SLUICE_TEST_MARK={}", folder.path().display());
        let config = folder.path().join("sluice.toml");
        std::fs::write(&config, configuration(&mark, folder.path()) + &setup.configuration).unwrap();
        let mut words = setup.through.iter().copied().map(std::ffi::OsStr::new).chain([setup.binary.as_os_str()]);
        let mut command = Command::new(words.next().unwrap());
        let mut child = command
            .args(words)
            .args(["serve", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(if std::env::var_os("SLUICE_TEST_LOG").is_some() { Stdio::inherit() } else { Stdio::null() })
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut url = || {
            let line = lines.next().expect("it says where it listens").unwrap();
            line[line.find("http://").unwrap()..].to_owned()
        };
        let (url, metrics) = (url(), url());
        Self { child, url, metrics, mark, setup }
    }

    /// What the admin listener says at a path.
    pub(crate) async fn admin(&self, path: &str) -> String {
        let url = reqwest::Url::parse(&self.metrics).unwrap().join(path).unwrap();
        reqwest::get(url).await.unwrap().text().await.unwrap()
    }

    /// What another one says that is refused the same state directory.
    pub(crate) async fn refused_next(&self) -> String {
        let mut command = tokio::process::Command::new(SLUICE);
        command.args(["serve", "--config"]).arg(self.setup.folder.path().join("sluice.toml")).kill_on_drop(true);
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let output = crate::harness::in_time("it is refused", child.wait_with_output()).await.unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// The guardian: its only child.
    pub(crate) async fn guardian(&self) -> i32 {
        let children = || children_of(self.pid()).into_iter().find(|pid| command_line(*pid).contains("guardian"));
        eventually("there is a guardian", children).await
    }

    /// The processes directly below the guardian, but for those that wait for a child to become.
    pub(crate) async fn below_the_guardian(&self) -> Vec<i32> {
        let mut pids = children_of(self.guardian().await);
        pids.retain(|pid| !command_line(*pid).contains("sluice stage"));
        pids
    }

    /// The folder of its cgroups; none if it has none.
    pub(crate) async fn cgroups(&self) -> Option<PathBuf> {
        let line = command_line(self.guardian().await);
        line.split_whitespace().nth(2).map(PathBuf::from)
    }

    /// Kills the gateway as nothing can be prepared for, and reaps it.
    pub(crate) fn kill_9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it in order.
    pub(crate) async fn finish(mut self) {
        signal(self.pid(), Signal::TERM);
        eventually("the gateway ends", || self.child.try_wait().unwrap()).await;
        assert_eq!(self.left(), Vec::<i32>::new(), "processes are left behind");
    }

    /// All processes of its children and below, zombies among them only if they are children of this process.
    pub(crate) fn left(&self) -> Vec<i32> {
        processes().filter(|pid| environment(*pid).contains(&self.mark)).collect()
    }

    /// Where a test may put files.
    pub(crate) fn folder(&self) -> &Path {
        self.setup.folder.path()
    }

    /// The processes in the record for a later gateway.
    pub(crate) fn recorded(&self) -> Vec<i32> {
        let text = std::fs::read_to_string(self.setup.folder.path().join("state/processes")).unwrap();
        text.lines().skip(1).map(|line| line.split_once(' ').unwrap().0.parse().unwrap()).collect()
    }

    /// The metrics of now.
    pub(crate) async fn metrics(&self) -> Metrics {
        Metrics(reqwest::get(&self.metrics).await.unwrap().text().await.unwrap())
    }

    /// How many processes are owned, and how many found, by the metrics of one moment.
    pub(crate) async fn processes(&self) -> (u64, u64) {
        let metrics = self.metrics().await;
        // Counts are whole numbers.
        let number = |name: &str| metrics.sum(name, "") as u64;
        (number("sluice_processes_owned"), number("sluice_processes_found"))
    }

    /// A session with one of the servers.
    pub(crate) async fn open(&self, server: &str) -> Session {
        let url = format!("{}/servers/{server}/mcp", self.url);
        // A gateway that was stopped for long closes the connections that have been idle meanwhile.
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
        let mut session = Session { http, url, id: None };
        let params = json!({
            "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}
        });
        let reply = session.post(&json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})).await;
        let id = reply.headers().get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned());
        let opened = answer(reply).await;
        session.id = Some(id.unwrap_or_else(|| panic!("no session: {opened}")));
        assert!(opened["result"].is_object(), "{opened}");
        session.post(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
        session
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in self.left() {
            let _ = rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
    }
}

fn configuration(mark: &str, folder: &Path) -> String {
    let fixture = crate::harness::fixture_path();
    let (key, value) = mark.split_once('=').unwrap();
    let server = |name: &str, mode: &str| {
        format!(
            "[servers.{name}]\ncommand = {fixture:?}\nargs = [{mode:?}]\nenv = {{ {key} = {value:?} }}\n\
             restart = {{ max_crashes = 1000, backoff_min = \"1ms\", backoff_max = \"1ms\" }}\n"
        )
    };
    format!(
        "state_dir = {:?}\nhttp.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\nauth.anonymous = \"t\"\nlog.filter = \"warn\"\n\
         limits.stdin_grace = \"300ms\"\nlimits.term_grace = \"300ms\"\nsessions.max = 20000\n\
         sessions.max_per_principal = 20000\n[tenants.t]\n{}{}",
        folder.join("state"),
        server("echo", "echo"),
        server("stubborn", "ignore-term"),
    )
}

/// A session on Streamable HTTP.
#[derive(Clone)]
pub(crate) struct Session {
    http: reqwest::Client,
    url: String,
    id: Option<String>,
}

impl Session {
    fn request(&self, message: &Value) -> reqwest::RequestBuilder {
        let request = self.http.post(&self.url).json(message).header("Accept", "application/json, text/event-stream");
        match &self.id {
            Some(id) => request.header("Mcp-Session-Id", id),
            None => request,
        }
    }

    async fn post(&self, message: &Value) -> reqwest::Response {
        let reply = self.request(message).send().await.unwrap();
        assert!(reply.status().is_success(), "{}: {}", reply.status(), reply.text().await.unwrap());
        reply
    }

    /// Calls a tool, and does not look at what becomes of it.
    pub(crate) async fn start_call(&self, tool: &str, arguments: Value) -> Value {
        let params = json!({"name": tool, "arguments": arguments});
        answer(self.post(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})).await).await
    }

    /// Calls a tool: the text of its result.
    pub(crate) async fn call(&self, tool: &str, arguments: Value) -> String {
        let answer = self.start_call(tool, arguments).await;
        answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// The process id of its server.
    pub(crate) async fn pid(&self) -> i32 {
        self.call("pid", json!({})).await.parse().unwrap()
    }

    /// Has its server leave all kinds of processes behind: their ids.
    pub(crate) async fn fork(&self) -> Vec<i32> {
        serde_json::from_str(&self.call("fork_grandchild", json!({"setsid": true, "orphan": true})).await).unwrap()
    }

    /// A call that its server has got, and never answers. `reached` is a file that is not there yet.
    pub(crate) async fn hang(&self, reached: &Path) -> JoinHandle<()> {
        let (session, arguments) = (self.clone(), json!({"reached": reached}));
        let params = json!({"name": "hang", "arguments": arguments});
        let message = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params});
        let call = tokio::spawn(async move {
            // What becomes of it is of no interest, nor that the gateway is killed meanwhile.
            let _ = session.request(&message).send().await;
        });
        eventually("the call has reached the server", || reached.exists().then_some(())).await;
        call
    }

    /// Ends the session.
    pub(crate) async fn delete(self) {
        let request = self.http.delete(&self.url).header("Mcp-Session-Id", self.id.unwrap());
        assert!(request.send().await.unwrap().status().is_success());
    }
}

/// The answer in a reply: JSON, or the last event of a stream.
async fn answer(reply: reqwest::Response) -> Value {
    let text = reply.text().await.unwrap();
    let last = text.lines().rev().find_map(|line| line.strip_prefix("data: ")).unwrap_or(&text);
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Asks until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begin.elapsed() < PATIENCE, "it did not happen: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until processes have ended, and are reaped if that is for a gateway or a guardian to do.
pub(crate) async fn gone(pids: &[i32]) {
    let is_gone = |pid: &i32| match stat(*pid) {
        Some(('Z', parent)) => !command_line(parent).contains("sluice"),
        Some(_) => false,
        None => true,
    };
    eventually(&format!("{pids:?} are gone"), || pids.iter().all(is_gone).then_some(())).await;
}

/// Whether there is a process of this id, be it a zombie.
pub(crate) fn exists(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

pub(crate) fn signal(pid: i32, signal: Signal) {
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// The children of a process, zombies among them.
pub(crate) fn children_of(parent: i32) -> Vec<i32> {
    processes().filter(|pid| stat(*pid).is_some_and(|(_, its)| its == parent)).collect()
}

/// State and parent.
pub(crate) fn stat(pid: i32) -> Option<(char, i32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit(')').next()?.split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// The descriptors that a process has open.
pub(crate) fn descriptors(pid: i32) -> Vec<String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

fn processes() -> impl Iterator<Item = i32> {
    std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn environment(pid: i32) -> String {
    String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default()).into_owned()
}

fn command_line(pid: i32) -> String {
    String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).replace('\0', " ")
}

/// Prints a result of the test run where it is seen without `--nocapture`.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
