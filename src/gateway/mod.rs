//! The wiring, and nothing else: a configuration becomes bound listeners, and these serve until the shutdown.

mod control;
mod drain;
mod error;
mod host;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use control::Control;
pub use error::StartError;
pub use host::Host;

use crate::auth::{Authenticator, Principal};
use crate::config::{Config, ServerName};
use crate::http::{Admin, App, Listener, Loopback, Router, Snapshot};
use crate::memory::Memory;
use crate::permits::Permits;
use crate::pool::{Children, Pools, Surroundings};
use crate::process::{
    Ceilings, Folders, Guardian, GuardianSupervisor, Record, RemovalMetrics, watch_folders, watch_usage,
};
use crate::session::Registry;
use crate::shutdown::Shutdown;
use crate::telemetry::{ConnectionMetrics, Metrics};
use drain::drain;

/// A gateway whose listeners are bound.
pub struct Gateway {
    admin: Arc<Admin>,
    sessions: Arc<Registry>,
    control: Control,
    public_listener: Listener,
    admin_listener: Option<Listener>,
    supervisor: GuardianSupervisor,
    /// How long a drain may take before what is left is killed.
    drain_timeout: Duration,
    /// Everything that sessions and pools have started.
    tasks: TaskTracker,
    /// Cancelled when no more children are wanted.
    stop_children: CancellationToken,
}

impl Gateway {
    /// Reads the credentials of a configuration, binds its listeners, and starts the guardian.
    ///
    /// # Errors
    /// An address cannot be bound, a key file cannot be read, the state directory cannot be used, or the guardian
    /// cannot be started.
    pub async fn bind(config: Config, shutdown: Shutdown, host: Host) -> Result<Self, StartError> {
        // First what can be wrong without anything else: nothing is bound and nothing killed for a key file that cannot
        // be read.
        let auth = Authenticator::after(None, &config.auth)?;
        let public_listener = listen(config.http.listen, "http.listen")?;
        let admin_listener = config.admin.map(|address| listen(address, "admin.listen")).transpose()?;
        let metrics = Arc::new(Metrics::default());
        let (supervisor, guardian) = start_guardian(&config, host, &metrics).await?;
        let memory = Memory::new(config.memory_budget);
        let (tasks, stop_children) = (TaskTracker::new(), CancellationToken::new());
        let permits = Permits::default();
        let surroundings = Surroundings {
            ceilings: watched_ceilings(&guardian, &metrics, &tasks, &stop_children),
            permits: permits.clone(),
            memory: memory.clone(),
            children: Children::default(),
            guardian: guardian.clone(),
            slow_client_timeout: config.http.slow_client_timeout,
            spawn_concurrency: config.spawn_concurrency,
            tasks: tasks.clone(),
            draining: stop_children.clone(),
            kill: shutdown.kill.clone(),
        };
        let pools = Arc::new(Pools::new(Arc::clone(&metrics), surroundings));
        let sessions = Arc::new(Registry::new(tasks.clone(), permits));
        let loopback = Loopback::of(&config);
        let snapshot = ArcSwap::from_pointee(Snapshot::new(&config, auth, loopback, &pools, None));
        let conversations = Arc::<Registry>::clone(&sessions);
        let app = Arc::new(App { snapshot, conversations, metrics, forwarded: Arc::default(), memory, shutdown });
        let control = Control::new(&app, &sessions, &pools, loopback);
        let admin = Arc::new(Admin { app, pools, guardian });
        let drain_timeout = config.drain_timeout;
        Ok(Self {
            admin,
            sessions,
            control,
            public_listener,
            admin_listener,
            supervisor,
            drain_timeout,
            tasks,
            stop_children,
        })
    }

    /// The address of the public listener.
    pub fn address(&self) -> SocketAddr {
        self.public_listener.address()
    }

    /// The address of the admin listener; `None` without one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_listener.as_ref().map(Listener::address)
    }

    /// The metrics, which can still be read when the gateway has stopped.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.admin.app.metrics)
    }

    /// The budget of bytes, which can still be read when the gateway has stopped.
    pub fn memory(&self) -> &Memory {
        &self.admin.app.memory
    }

    /// The handle that puts another configuration in force while the gateway runs.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Serves until the shutdown, then drains. When this returns, every child is gone.
    pub async fn run(self) {
        let (app, stop) = (Arc::clone(&self.admin.app), CancellationToken::new());
        let supervisor = tokio::spawn(self.supervisor.run(stop.clone()));
        let shutdown = app.shutdown.clone();
        tracing::info!(address = %self.public_listener.address(), "serving");
        let connections = TaskTracker::new();
        if let Some(listener) = self.admin_listener {
            // The admin listener goes on during the drain: that is when it is looked at.
            let only_kill = Shutdown { drain: shutdown.kill.clone(), kill: shutdown.kill.clone() };
            let uncounted = ConnectionMetrics::default();
            tokio::spawn(listener.serve(Router::Admin(self.admin), only_kill, TaskTracker::new(), uncounted));
        }
        let current = Arc::clone(&app);
        let patience =
            move |principal: &Principal, server: &ServerName| current.snapshot.load().patience(principal, server);
        self.tasks.spawn(Arc::clone(&self.sessions).sweep(patience, shutdown.drain.clone()));
        let metrics = app.metrics.connections.clone();
        self.public_listener.serve(Router::Public(app), shutdown.clone(), connections.clone(), metrics).await;
        drain(&self.sessions, &shutdown.kill, &self.stop_children, &self.tasks, &connections, self.drain_timeout).await;
        // Only now: a drain gives children time, and the guardian has none.
        stop.cancel();
        if let Err(error) = supervisor.await {
            tracing::error!(%error, "the guardian was not ended in order; it ends with this process");
        }
        tracing::info!("stopped");
    }
}

/// Binds a listener. `key` is the configuration key of the address.
fn listen(address: SocketAddr, key: &'static str) -> Result<Listener, StartError> {
    Listener::bind(address).map_err(|(address, error)| StartError::Bind { address, key, error })
}

/// Takes over the state directory from an earlier gateway, and starts the guardian.
async fn start_guardian(
    config: &Config,
    host: Host,
    metrics: &Metrics,
) -> Result<(GuardianSupervisor, Guardian), StartError> {
    let Host { program, neighbours, cgroups } = host;
    let record = match &config.state_dir {
        Some(directory) => Some(Record::take_over(directory).await?),
        None => None,
    };
    let (waiting, failures) = (metrics.folders_waiting.clone(), metrics.folder_failures.clone());
    let folders = Folders::counted(config.state_dir.as_deref(), RemovalMetrics { waiting, failures });
    folders.remove_abandoned();
    let path = program.path().to_owned();
    GuardianSupervisor::start(program, neighbours, cgroups, folders, record)
        .map_err(|error| StartError::Guardian { program: path, error })
}

/// The limits that tenants' children have together, none yet, watched by two tasks until `stop` is cancelled.
fn watched_ceilings(guardian: &Guardian, metrics: &Metrics, tasks: &TaskTracker, stop: &CancellationToken) -> Ceilings {
    let ceilings = Ceilings::new([], guardian, metrics.watch_failures.clone());
    tasks.spawn(watch_usage(ceilings.clone(), stop.clone()));
    tasks.spawn(watch_folders(ceilings.clone(), stop.clone()));
    ceilings
}
