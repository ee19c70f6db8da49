//! The wiring, and nothing else: a configuration becomes bound listeners, and these run until the shutdown.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, interval, timeout};
use tokio_util::task::TaskTracker;

use crate::auth::{AuthSetupError, Authenticator};
use crate::config::Config;
use crate::http::{App, Limits, Listener, admin_router, router};
use crate::session::{Registry, Settings};
use crate::shutdown::Shutdown;
use crate::stream;
use crate::telemetry::Metrics;
use crate::tenant::Directory;

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
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another program listens there: stop it, or choose another port",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need privileges: choose a higher one",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        _ => "",
    }
}

/// A gateway whose listeners are bound.
pub struct Gateway {
    app: Arc<App>,
    public: Listener,
    admin: Option<Listener>,
    drain_timeout: Duration,
    tasks: TaskTracker,
}

impl Gateway {
    /// Binds the listeners of a configuration.
    ///
    /// # Errors
    /// When an address cannot be bound, or a key file cannot be read.
    pub async fn bind(config: Config, shutdown: Shutdown) -> Result<Self, StartError> {
        let auth = Authenticator::new(&config.auth)?;
        let limits = Limits::from(&config.http);
        let public = bind(config.http.listen, "http.listen", limits).await?;
        let admin = match config.admin {
            Some(address) => {
                Some(bind(address, "admin.listen", Limits { connections: ADMIN_CONNECTIONS, ..limits }).await?)
            }
            None => None,
        };
        let tasks = TaskTracker::new();
        let metrics = Arc::new(Metrics::default());
        let settings = Settings {
            sessions: config.sessions.clone(),
            stream: stream::Limits { messages: config.http.stream_messages, bytes: config.http.stream_bytes },
            slow_client_timeout: config.http.slow_client_timeout,
        };
        let sessions = Registry::new(settings, config.servers.keys(), &metrics, tasks.clone(), shutdown.kill.clone());
        let app = App {
            is_loopback: public.address().ip().is_loopback(),
            auth,
            directory: Directory::new(&config),
            sessions: Arc::new(sessions),
            metrics,
            shutdown,
            jwt: config.auth.jwt,
            http: config.http,
        };
        Ok(Self { app: Arc::new(app), public, admin, drain_timeout: config.drain_timeout, tasks })
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
        let Self { app, public, admin, drain_timeout, tasks } = self;
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
        drain(&app, drain_timeout, &tasks, &connections).await;
        tracing::info!("stopped");
    }
}

async fn bind(address: SocketAddr, key: &'static str, limits: Limits) -> Result<Listener, StartError> {
    Listener::bind(address, limits).await.map_err(|error| StartError::Bind { address, key, error })
}

/// Nothing new is accepted any more. Calls in flight may finish; then sessions and their children are stopped.
async fn drain(app: &App, limit: Duration, tasks: &TaskTracker, connections: &TaskTracker) {
    let deadline = Instant::now() + limit;
    app.sessions.drain();
    let mut ticks = interval(LOOK);
    while app.sessions.is_busy() && Instant::now() < deadline && !app.shutdown.kill.is_cancelled() {
        ticks.tick().await;
    }
    app.sessions.end_all("shutdown");
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
