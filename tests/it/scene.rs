//! A gateway with the server that a test is about, and somebody else's session on it that must not notice anything.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use sluice::config::{Config, Server};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::harness::{self, Caller, Gateway, Metrics, in_time, key, named};
pub(crate) use crate::talk::{BOTH, Client, Wire};

/// A pause between the calls of the bystander.
const PAUSE: Duration = Duration::from_millis(5);

/// A gateway with two servers, `subject` and `healthy`, and two principals.
pub(crate) struct Scene {
    pub(crate) gateway: Gateway,
    pub(crate) alice: Caller,
    pub(crate) alices_key: String,
    bystander: Bystander,
}

/// What is counted of the server `subject`.
pub(crate) struct Counts(Metrics);

impl Scene {
    pub(crate) async fn of(server: Server) -> Self {
        Self::with(server, |_| {}).await
    }

    /// With a configuration that `change` has the last word on.
    pub(crate) async fn with(server: Server, change: impl FnOnce(&mut Config)) -> Self {
        let mut keys = (String::new(), String::new());
        let servers = [named("subject", server), named("healthy", fixture(&["echo"]))];
        let gateway = Gateway::start_with(servers, |config| {
            keys = (key(config, "acme", "alice"), key(config, "umbrella", "bob"));
            change(config);
        })
        .await;
        let alice = gateway.with_key(&keys.0).server("subject");
        let bystander = Bystander::watch(gateway.with_key(&keys.1).server("healthy")).await;
        Self { gateway, alice, alices_key: keys.0, bystander }
    }

    /// A client of `subject` that has said nothing yet.
    pub(crate) async fn connect(&self, wire: Wire) -> Client {
        Client::connect(&self.alice, wire).await
    }

    /// A client of `subject` that has shaken hands.
    pub(crate) async fn open(&self, wire: Wire) -> Client {
        Client::open(&self.alice, wire).await
    }

    pub(crate) async fn counts(&self) -> Counts {
        Counts(self.gateway.metrics().await)
    }

    /// Waits until the counts of `subject` are as `wanted`.
    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&Counts) -> bool) {
        harness::eventually(what, async || wanted(&self.counts().await).then_some(())).await;
    }

    /// Calls that the bystander has had answered so far.
    pub(crate) fn bystander_calls(&self) -> usize {
        self.bystander.calls.load(Ordering::Relaxed)
    }

    /// Ends the gateway: the bystander has noticed nothing, and nothing is left.
    pub(crate) async fn finish(self) {
        self.bystander.unharmed().await;
        self.gateway.finish().await;
    }
}

impl Counts {
    fn of(&self, name: &str, label: &str) -> u64 {
        // Counts are whole numbers.
        self.0.sum(name, &format!("server=\"subject\"{label}")) as u64
    }

    /// A metric that has no label but the server.
    pub(crate) fn value(&self, name: &str) -> u64 {
        self.of(name, "")
    }

    pub(crate) fn sessions(&self) -> u64 {
        self.value("sluice_sessions")
    }

    pub(crate) fn children(&self) -> u64 {
        self.value("sluice_children")
    }

    pub(crate) fn spawned(&self) -> u64 {
        self.value("sluice_children_spawned_total")
    }

    pub(crate) fn restarts(&self) -> u64 {
        self.value("sluice_children_restarts_total")
    }

    pub(crate) fn dropped(&self, reason: &str) -> u64 {
        self.of("sluice_dropped_messages_total", &format!(",reason=\"{reason}\""))
    }

    pub(crate) fn exits(&self, reason: &str) -> u64 {
        self.of("sluice_children_exits_total", &format!(",reason=\"{reason}\""))
    }

    /// Messages that the child has said.
    pub(crate) fn to_client(&self) -> u64 {
        self.of("sluice_messages_total", ",direction=\"to_client\"")
    }

    /// Messages that have been put to the child.
    pub(crate) fn to_server(&self) -> u64 {
        self.of("sluice_messages_total", ",direction=\"to_server\"")
    }
}

/// Somebody with a session of his own, who calls all the time and must get every answer.
pub(crate) struct Bystander {
    calls: Arc<AtomicUsize>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Bystander {
    pub(crate) async fn watch(caller: Caller) -> Self {
        let client = Client::open(&caller, Wire::Streamable).await;
        let (calls, stop) = (Arc::<AtomicUsize>::default(), CancellationToken::new());
        let task = tokio::spawn(call_on(client, Arc::clone(&calls), stop.clone()));
        Self { calls, stop, task }
    }

    /// Every call was answered, by one and the same child.
    pub(crate) async fn unharmed(self) {
        self.stop.cancel();
        in_time("the bystander ends", self.task).await.expect("the bystander has noticed");
    }
}

async fn call_on(client: Client, calls: Arc<AtomicUsize>, stop: CancellationToken) {
    let pid = client.pid().await;
    loop {
        let text = format!("call {}", calls.fetch_add(1, Ordering::Relaxed));
        assert_eq!(client.text("echo", json!({"text": text})).await, text);
        if tokio::time::timeout(PAUSE, stop.cancelled()).await.is_ok() {
            break;
        }
    }
    assert_eq!(client.pid().await, pid, "another child has taken over");
    assert_eq!(client.unsolicited(), Vec::<serde_json::Value>::new());
    client.close().await;
}

/// The fixture in a mode, as a server. What a stop takes is short, where a test does not say otherwise.
pub(crate) fn fixture(mode: &[&str]) -> Server {
    let mut server = harness::fixture("");
    server.args = mode.iter().map(|&word| word.to_owned()).collect();
    server
}

/// Any program as a server.
pub(crate) fn program(command: &str, arguments: &[&str]) -> Server {
    let mut server = fixture(arguments);
    server.command = command.to_owned();
    server
}

/// The mode of a [`switchable`] fixture.
pub(crate) struct Mode(tempfile::NamedTempFile);

impl Mode {
    /// What the next instance does.
    pub(crate) fn set(&self, mode: &[&str]) {
        std::fs::write(self.0.path(), mode.join(" ")).unwrap();
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }
}

/// The fixture in a mode that each instance looks up when it starts.
pub(crate) fn switchable(mode: &[&str]) -> (Server, Mode) {
    let file = Mode(tempfile::NamedTempFile::new().unwrap());
    file.set(mode);
    let (fixture, path) = (harness::fixture_path(), file.path());
    let script = r#"exec "$0" $(cat "$1")"#;
    (program("sh", &["-c", script, fixture.to_str().unwrap(), path.to_str().unwrap()]), file)
}
