//! The wiring, and nothing else: a configuration becomes bound listeners, and these run until the shutdown.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::{AuthSetupError, Authenticator};
use crate::config::Config;
use crate::http::{App, Guard, Limits, Listener, admin_router, router};
use crate::process::cgroup::Subtree;
use crate::process::{Ceilings, Folders, Keeper, Neighbours, Program, Record, RecordError, RemovalMetrics};
use crate::session::{Registry, Settings};
use crate::shutdown::Shutdown;
use crate::stream;
use crate::telemetry::Metrics;
use crate::tenant::Directory;
use crate::worker::{Pools, Surroundings};

/// How often a drain looks whether calls are still in flight.
const LOOK: Duration = Duration::from_millis(20);
/// Time beyond the drain's for what has been killed to be gone.
const AFTER_KILL: Duration = Duration::from_secs(5);
/// Connections on the admin listener.
const ADMIN_CONNECTIONS: usize = 64;

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error("cannot listen on {address} ({key}): {error}{}", hint(error))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The key that names it.
        key: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// Keys could not be read.
    #[error(transparent)]
    Auth(#[from] AuthSetupError),
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] RecordError),
    /// There is no guardian, and without one no child.
    #[error("cannot start the guardian ({} guardian): {error}", program.display())]
    Guardian {
        /// The program that was to be it.
        program: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another program listens there: stop it, or choose another port",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need privileges: choose a higher one",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        _ => "",
    }
}

/// The process that a gateway runs in.
#[derive(Debug)]
pub struct Host {
    /// The binary `sluice`, which is executed again as the guardian.
    pub program: Program,
    /// Who else has children in this process.
    pub neighbours: Neighbours,
    /// Where children get cgroups, if anywhere.
    pub cgroups: Option<Subtree>,
}

impl Host {
    /// A process that is this binary, and nothing but a gateway.
    pub fn alone() -> Self {
        Self { program: Program::running(), neighbours: Neighbours::None, cgroups: None }
    }

    /// Another program with children of its own, such as a test.
    pub fn shared(program: PathBuf) -> Self {
        Self { program: program.into(), neighbours: Neighbours::Some, cgroups: None }
    }

    /// With cgroups for the children.
    #[must_use]
    pub fn with_cgroups(self, cgroups: Option<Subtree>) -> Self {
        Self { cgroups, ..self }
    }
}

/// A gateway whose listeners are bound.
pub struct Gateway {
    app: Arc<App>,
    public: Listener,
    admin: Option<Listener>,
    drain_timeout: Duration,
    tasks: TaskTracker,
    stop_children: CancellationToken,
    keeper: Keeper,
}

impl Gateway {
    /// Binds the listeners of a configuration, and starts the guardian.
    ///
    /// # Errors
    /// When an address cannot be bound, a key file cannot be read, or the guardian cannot be started.
    pub async fn bind(config: Config, shutdown: Shutdown, host: Host) -> Result<Self, StartError> {
        let auth = Authenticator::new(&config.auth)?;
        let limits = Limits::from(&config.http);
        let public = bind(config.http.listen, "http.listen", limits)?;
        let admin = match config.admin {
            Some(address) => Some(bind(address, "admin.listen", Limits { connections: ADMIN_CONNECTIONS, ..limits })?),
            None => None,
        };
        let Host { program, neighbours, cgroups } = host;
        let record = match &config.state_dir {
            Some(directory) => Some(Record::take_over(directory).await?),
            None => None,
        };
        let metrics = Arc::new(Metrics::default());
        let (waiting, failures) = (metrics.folders_waiting.clone(), metrics.folder_failures.clone());
        let folders = Folders::counted(config.state_dir.as_deref(), RemovalMetrics { waiting, failures });
        folders.sweep();
        let path = program.path().to_owned();
        let (keeper, guardian) = Keeper::start(program, neighbours, cgroups, folders)
            .map_err(|error| StartError::Guardian { program: path, error })?;
        let keeper = keeper.with_record(record);
        let tasks = TaskTracker::new();
        let stop_children = CancellationToken::new();
        let ceilings = Ceilings::new(&config.tenants, &guardian, metrics.watch_failures.clone());
        tasks.spawn(ceilings.clone().watch(stop_children.clone()));
        tasks.spawn(ceilings.clone().watch_folders(guardian.clone(), stop_children.clone()));
        let surroundings = Surroundings {
            ceilings,
            guardian: guardian.clone(),
            slow_client_timeout: config.http.slow_client_timeout,
            spawn_concurrency: config.spawn_concurrency,
            spawning_spares: Arc::new(Semaphore::new(config.spawn_concurrency.div_ceil(2))),
            tasks: tasks.clone(),
            draining: stop_children.clone(),
            kill: shutdown.kill.clone(),
        };
        let pools = Arc::new(Pools::start(config.servers.values(), &metrics, &surroundings));
        let settings = Settings {
            sessions: config.sessions.clone(),
            stream: stream::Limits { messages: config.http.stream_messages, bytes: config.http.stream_bytes },
        };
        let sessions = Registry::new(settings, config.servers.keys(), &metrics, Arc::clone(&pools), tasks.clone());
        let app = App {
            guard: Guard::new(&config.http, public.address().ip().is_loopback()),
            // Without an admin listener there is nothing to guard.
            admin_guard: Guard::new(
                &config.http,
                admin.as_ref().is_none_or(|admin| admin.address().ip().is_loopback()),
            ),
            auth,
            directory: Directory::new(&config),
            sessions: Arc::new(sessions),
            metrics,
            guardian,
            pools,
            shutdown,
            jwt: config.auth.jwt,
            http: config.http,
        };
        Ok(Self {
            app: Arc::new(app),
            public,
            admin,
            drain_timeout: config.drain_timeout,
            tasks,
            stop_children,
            keeper,
        })
    }

    /// Where the public listener is.
    pub fn address(&self) -> SocketAddr {
        self.public.address()
    }

    /// Where the admin listener is.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Listener::address)
    }

    /// Its metrics, which can still be read when it has stopped.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.app.metrics)
    }

    /// Serves until the shutdown, then drains. When it returns, every child is gone.
    pub async fn run(self) {
        let Self { app, public, admin, drain_timeout, tasks, stop_children, keeper } = self;
        let stop = CancellationToken::new();
        let keeper = tokio::spawn(keeper.run(stop.clone()));
        let shutdown = app.shutdown.clone();
        tracing::info!(address = %public.address(), "serving");
        let connections = TaskTracker::new();
        if let Some(admin) = admin {
            // The admin listener goes on during the drain: that is when it is looked at.
            let only_kill = Shutdown { drain: shutdown.kill.clone(), kill: shutdown.kill.clone() };
            let open = prometheus_client::metrics::gauge::Gauge::default();
            tokio::spawn(admin.serve(admin_router(Arc::clone(&app)), only_kill, TaskTracker::new(), open));
        }
        tasks.spawn(Arc::clone(&app.sessions).sweep(shutdown.drain.clone()));
        let open = app.metrics.connections.clone();
        public.serve(router(Arc::clone(&app)), shutdown.clone(), connections.clone(), open).await;
        drain(&app, drain_timeout, &tasks, &connections, &stop_children).await;
        // Only now: a drain gives children time, and the guardian has none.
        stop.cancel();
        if let Err(error) = keeper.await {
            tracing::error!(%error, "the guardian was not ended in order; it ends with this process");
        }
        tracing::info!("stopped");
    }
}

fn bind(address: SocketAddr, key: &'static str, limits: Limits) -> Result<Listener, StartError> {
    Listener::bind(address, limits).map_err(|(address, error)| StartError::Bind { address, key, error })
}

/// Nothing new is accepted any more. Calls in flight may finish; then sessions and their children are stopped.
async fn drain(
    app: &App,
    limit: Duration,
    tasks: &TaskTracker,
    connections: &TaskTracker,
    stop_children: &CancellationToken,
) {
    let deadline = Instant::now() + limit;
    app.sessions.drain();
    let mut ticks = interval(LOOK);
    while app.sessions.is_busy() && Instant::now() < deadline && !app.shutdown.kill.is_cancelled() {
        ticks.tick().await;
    }
    app.sessions.end_all("shutdown");
    stop_children.cancel();
    tasks.close();
    connections.close();
    let polite = deadline.max(Instant::now() + Duration::from_millis(500));
    tokio::select! {
        () = tasks.wait() => {}
        () = tokio::time::sleep_until(polite) => {}
        () = app.shutdown.kill.cancelled() => {}
    }
    // Whatever is left of children and connections has no more time.
    let _ = timeout(Duration::from_millis(200), connections.wait()).await;
    app.shutdown.kill.cancel();
    let gone = async {
        tasks.wait().await;
        connections.wait().await;
    };
    if timeout(AFTER_KILL, gone).await.is_err() {
        tracing::error!(tasks = tasks.len(), connections = connections.len(), "something did not end in time");
    }
}
