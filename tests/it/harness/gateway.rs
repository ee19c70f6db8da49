//! A gateway in the test's process, on a runtime of its own: what is left on that runtime at the end is the gateway's.

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use sluice::config::{Config, Server, TenantId};
use sluice::gateway::{Control, StartError};
use sluice::shutdown::Shutdown;
use tempfile::NamedTempFile;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::leftovers::{self, MARK};
use super::{Caller, Metrics, Request, eventually, in_time};

/// A running gateway. It is a [`Caller`] without a credential.
pub(crate) struct Gateway {
    anybody: Caller,
    admin: Caller,
    /// What starts its drain, and its end.
    pub(crate) shutdown: Shutdown,
    control: Control,
    runtime: Handle,
    mark: String,
    pids: NamedTempFile,
    ended: Option<oneshot::Receiver<Ended>>,
    thread: Option<JoinHandle<()>>,
}

/// What is left of a gateway whose `run` has returned.
struct Ended {
    metrics: Metrics,
    tasks: usize,
    /// The bytes that are still charged to somebody.
    held: usize,
}

impl Gateway {
    /// Starts a gateway for one server, the default one. Everybody may call.
    pub(crate) async fn start(server: Server) -> Self {
        Self::start_with([server], |_| {}).await
    }

    /// Starts a gateway for some servers, with a configuration that `change` has the last word on.
    pub(crate) async fn start_with(
        servers: impl IntoIterator<Item = Server>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let pids = NamedTempFile::new().unwrap();
        // A server may run as another user.
        let for_all = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        std::fs::set_permissions(pids.path(), for_all).unwrap();
        let mark = pids.path().file_name().unwrap().to_string_lossy().into_owned();
        let mut config = Config::for_servers(servers);
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        config.http.listen = loopback;
        config.admin = Some(loopback);
        config.drain_timeout = Duration::from_secs(2);
        config.auth.anonymous = Some(TenantId::fallback());
        change(&mut config);
        mark_servers(&mut config, &mark, pids.path());
        if std::env::var_os("SLUICE_TEST_LOG").is_some() {
            sluice::telemetry::init_logs(&config.log).unwrap();
        }
        let shutdown = Shutdown::default();
        let (ready, addresses) = oneshot::channel();
        let (done, ended) = oneshot::channel();
        let thread = std::thread::spawn({
            let shutdown = shutdown.clone();
            move || drop(done.send(serve(config, shutdown, ready)))
        });
        let (public, admin, control, runtime) = in_time("the gateway listens", addresses).await.unwrap();
        Self {
            anybody: Caller::new(public),
            admin: Caller::new(admin),
            shutdown,
            control,
            runtime,
            mark,
            pids,
            ended: Some(ended),
            thread: Some(thread),
        }
    }

    /// Puts another configuration in force.
    pub(crate) async fn replace(&self, mut config: Config) -> Result<(), StartError> {
        mark_servers(&mut config, &self.mark, self.pids.path());
        let control = self.control.clone();
        // On the gateway's runtime: what is started is the gateway's.
        self.runtime.spawn(async move { control.replace(config).await }).await.unwrap()
    }

    /// A caller with an API key or token.
    pub(crate) fn with_key(&self, key: &str) -> Caller {
        self.anybody.with_key(key)
    }

    /// The admin listener.
    pub(crate) fn admin(&self) -> &Caller {
        &self.admin
    }

    /// The metrics of now.
    pub(crate) async fn metrics(&self) -> Metrics {
        Metrics(self.admin.send(Request::get("/metrics")).await.text)
    }

    /// Waits until the metrics are as `wanted`.
    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&Metrics) -> bool) {
        eventually(what, async || wanted(&self.metrics().await).then_some(())).await;
    }

    /// The processes that this gateway's children are, and their offspring, as `pid command`.
    pub(crate) fn processes(&self) -> Vec<String> {
        leftovers::processes(&self.mark, &leftovers::noted(self.pids.path()))
    }

    /// Drains the gateway. Fails the test if it does not end, or leaves anything behind.
    pub(crate) async fn finish(mut self) {
        self.shutdown.drain.cancel();
        self.assert_ended().await;
    }

    /// Stops the gateway at once. Fails the test if it does not end, or leaves anything behind.
    pub(crate) async fn kill(mut self) {
        self.shutdown.drain.cancel();
        self.shutdown.kill.cancel();
        self.assert_ended().await;
    }

    async fn assert_ended(&mut self) {
        let ended = in_time("the gateway ends", self.ended.take().unwrap()).await.expect("the gateway panicked");
        // What was killed last may still be on its way out.
        let deadline = Instant::now() + Duration::from_secs(3);
        while !self.processes().is_empty() && Instant::now() < deadline {
            sleep(Duration::from_millis(5)).await;
        }
        let left = self.processes();
        assert!(left.is_empty(), "processes are left behind: {left:?}");
        let metrics = &ended.metrics;
        assert_eq!(metrics.sessions(), 0.0, "sessions are left behind");
        assert_eq!(metrics.children(), 0.0, "children are left behind");
        assert_eq!(metrics.sum("sluice_connections", ""), 0.0, "connections are left behind");
        assert_eq!(metrics.sum("sluice_stdin_queue_bytes", ""), 0.0, "queued bytes are left behind");
        assert_eq!(ended.tasks, 0, "tasks are left behind");
        assert_eq!(ended.held, 0, "bytes are still charged");
    }
}

impl Deref for Gateway {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.anybody
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let is_finished = self.ended.is_none();
        self.shutdown.drain.cancel();
        self.shutdown.kill.cancel();
        let joined = self.thread.take().map(JoinHandle::join);
        leftovers::end(&self.mark);
        if !std::thread::panicking() {
            assert!(is_finished, "the test has not called finish()");
            assert!(matches!(joined, Some(Ok(()))), "the gateway panicked");
        }
    }
}

/// Lets the processes of the servers be found again.
fn mark_servers(config: &mut Config, mark: &str, pids: &Path) {
    for server in config.servers.values_mut().map(Arc::make_mut) {
        server.env.insert(MARK.to_owned(), mark.to_owned().into());
        server.env.insert("FIXTURE_PIDS".to_owned(), pids.to_string_lossy().into_owned().into());
    }
}

/// Where a gateway listens, and what controls it.
type Ready = (SocketAddr, SocketAddr, Control, Handle);

fn serve(config: Config, shutdown: Shutdown, ready: oneshot::Sender<Ready>) -> Ended {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let host = sluice::gateway::Host::shared(env!("CARGO_BIN_EXE_sluice").into());
        let gateway = sluice::gateway::Gateway::bind(config, shutdown, host).await.unwrap();
        let (metrics, memory) = (gateway.metrics(), gateway.memory().clone());
        let addresses = (gateway.address(), gateway.admin_address().unwrap());
        assert!(ready.send((addresses.0, addresses.1, gateway.control(), Handle::current())).is_ok());
        gateway.run().await;
        // Nobody waits for the admin listener: it has been told to end, and does so about now.
        let tasks = || Handle::current().metrics().num_alive_tasks();
        let deadline = Instant::now() + Duration::from_secs(5);
        while tasks() > 0 && Instant::now() < deadline {
            sleep(Duration::from_millis(1)).await;
        }
        Ended { metrics: Metrics(metrics.render().unwrap()), tasks: tasks(), held: memory.held() }
    })
}
