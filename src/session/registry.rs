//! All sessions, found by id and principal; their limits, and the sweep that ends idle ones.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::id::SessionId;
use super::session::{Session, Surroundings};
use super::streams::Transport;
use crate::auth::Principal;
use crate::config::{Server, ServerName, Sessions, TenantId};
use crate::pool::Pools;
use crate::stream::Limits;
use crate::telemetry::{Cause, Metrics, ServerMetrics};

/// Sessions of a server whose begin, or end, is logged in a period.
const SESSIONS_LOGGED: u32 = 100;

/// How often idle sessions are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// Why a session was not opened.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The gateway has as many sessions as it may have.
    #[error("the gateway has reached its limit of {0} sessions (sessions.max); try again later")]
    Full(usize),
    /// The principal has as many sessions as it may have.
    #[error("you have reached your limit of {0} sessions (sessions.max_per_principal); close one, or try again later")]
    Principal(usize),
    /// The tenant has as many sessions as it may have.
    #[error("the tenant has reached its limit of {0} sessions (max_sessions); try again later")]
    Tenant(usize),
    /// The gateway is stopping.
    #[error("the gateway is stopping; try again in a moment")]
    Draining,
    /// The system has no random numbers.
    #[error("no session id could be made: the system has no random numbers")]
    NoRandomness,
}

impl Rejected {
    /// The `type` that callers are told.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Full(_) | Self::Principal(_) | Self::Tenant(_) => "sessions_full",
            Self::Draining => "draining",
            Self::NoRandomness => "no_randomness",
        }
    }

    /// In how many seconds it may be better.
    pub fn retry_after(&self) -> u64 {
        match self {
            Self::Full(_) | Self::Principal(_) | Self::Tenant(_) | Self::NoRandomness => 10,
            Self::Draining => 5,
        }
    }
}

/// A session to be opened, with the limits that hold at the moment.
#[derive(Debug)]
pub struct NewSession<'a> {
    /// The owner of the session.
    pub principal: &'a Principal,
    /// The server of the session.
    pub server: &'a Arc<Server>,
    /// How the client is connected.
    pub transport: Transport,
    /// Limits on all sessions, and on those of one principal.
    pub sessions: &'a Sessions,
    /// The most sessions of the principal's tenant; `None` for no limit of its own.
    pub tenant_sessions: Option<usize>,
    /// Bounds of each stream of the session.
    pub stream: Limits,
}

#[derive(Default)]
struct Counts {
    all: usize,
    principals: HashMap<Principal, usize>,
    tenants: HashMap<TenantId, usize>,
    draining: bool,
}

/// All sessions of the gateway.
pub struct Registry {
    sessions: DashMap<SessionId, Arc<Session>>,
    counts: Mutex<Counts>,
    servers: HashMap<ServerName, ServerMetrics>,
    pools: Arc<Pools>,
    tasks: TaskTracker,
}

impl Registry {
    /// An empty registry. `pools` have their children; `tasks` tracks everything that sessions start.
    pub fn new<'a>(
        servers: impl Iterator<Item = &'a ServerName>,
        metrics: &Arc<Metrics>,
        pools: Arc<Pools>,
        tasks: TaskTracker,
    ) -> Self {
        let servers = servers.map(|name| (name.clone(), metrics.server(name.as_str()))).collect();
        Self { sessions: DashMap::new(), counts: Mutex::default(), servers, pools, tasks }
    }

    /// Opens a session.
    ///
    /// # Errors
    /// A limit is reached, or the gateway drains.
    pub fn open(&self, new: &NewSession<'_>) -> Result<Arc<Session>, Rejected> {
        let NewSession { principal, server, transport, .. } = *new;
        let id = SessionId::random().map_err(|_| Rejected::NoRandomness)?;
        let metrics = self.servers.get(&server.name).ok_or(Rejected::Draining)?;
        let pool = self.pools.get(&server.name).ok_or(Rejected::Draining)?;
        self.count(new)?;
        let surroundings = Surroundings {
            pool: Arc::clone(pool),
            metrics: metrics.clone(),
            stream_limits: new.stream,
            tasks: self.tasks.clone(),
        };
        let session = Session::new(id.clone(), principal.clone(), Arc::clone(server), transport, surroundings);
        metrics.sessions.inc();
        self.sessions.insert(id, Arc::clone(&session));
        if Cause::info("session opened", server.name.to_string()).is_news(SESSIONS_LOGGED) {
            tracing::info!(tenant = %principal.tenant(), server = %server.name, session = %session.id().public(), ?transport, "session opened");
        }
        Ok(session)
    }

    fn count(&self, new: &NewSession<'_>) -> Result<(), Rejected> {
        let NewSession { principal, sessions: limits, tenant_sessions, .. } = *new;
        let mut counts = self.counts.lock();
        if counts.draining {
            return Err(Rejected::Draining);
        }
        if counts.all >= limits.max {
            return Err(Rejected::Full(limits.max));
        }
        if counts.principals.get(principal).is_some_and(|count| *count >= limits.max_per_principal) {
            return Err(Rejected::Principal(limits.max_per_principal));
        }
        if let Some(limit) = tenant_sessions
            && counts.tenants.get(principal.tenant()).is_some_and(|count| *count >= limit)
        {
            return Err(Rejected::Tenant(limit));
        }
        counts.all += 1;
        *counts.principals.entry(principal.clone()).or_default() += 1;
        *counts.tenants.entry(principal.tenant().clone()).or_default() += 1;
        Ok(())
    }

    fn uncount(&self, principal: &Principal) {
        let mut counts = self.counts.lock();
        counts.all = counts.all.saturating_sub(1);
        if let Some(count) = counts.principals.get_mut(principal) {
            *count -= 1;
            if *count == 0 {
                counts.principals.remove(principal);
            }
        }
        if let Some(count) = counts.tenants.get_mut(principal.tenant()) {
            *count -= 1;
            if *count == 0 {
                counts.tenants.remove(principal.tenant());
            }
        }
    }

    /// The session, if it is this principal's, of this server and of this transport: a stranger learns nothing.
    pub fn find(
        &self,
        id: &str,
        principal: &Principal,
        server: &ServerName,
        transport: Transport,
    ) -> Option<Arc<Session>> {
        let session = Arc::clone(&*self.sessions.get(&SessionId::parse(id)?)?);
        let fits =
            session.principal() == principal && session.server().name == *server && session.transport() == transport;
        fits.then_some(session)
    }

    /// Ends a session. Its child is stopped in the background; idempotent.
    pub fn end(&self, session: &Session, why: &'static str) {
        if self.sessions.remove(session.id()).is_none() {
            return;
        }
        session.end();
        self.uncount(session.principal());
        if let Some(metrics) = self.servers.get(&session.server().name) {
            metrics.sessions.dec();
        }
        if Cause::info("session ended", session.server().name.to_string()).is_news(SESSIONS_LOGGED) {
            tracing::info!(tenant = %session.principal().tenant(), server = %session.server().name, session = %session.id().public(), why, "session ended");
        }
    }

    /// How many sessions are open.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether no session is open.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Whether another session would be opened where `max` are allowed in all.
    pub fn has_room(&self, max: usize) -> bool {
        let counts = self.counts.lock();
        !counts.draining && counts.all < max
    }

    /// Takes no new sessions from now on.
    pub fn drain(&self) {
        self.counts.lock().draining = true;
    }

    /// Whether any session has calls in flight.
    pub fn is_busy(&self) -> bool {
        self.sessions.iter().any(|entry| entry.is_busy())
    }

    /// Ends all sessions.
    pub fn end_all(&self, why: &'static str) {
        for session in self.all() {
            self.end(&session, why);
        }
    }

    fn all(&self) -> Vec<Arc<Session>> {
        self.sessions.iter().map(|entry| Arc::clone(&*entry)).collect()
    }

    /// Ends sessions that have been unused for `idle_timeout`, which is read anew each second, until `stop` is cancelled.
    pub async fn sweep(self: Arc<Self>, idle_timeout: impl Fn() -> Duration, stop: CancellationToken) {
        let mut ticks = interval(SWEEP);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let limit = idle_timeout();
            for session in self.all() {
                if session.idle_for().is_some_and(|idle| idle >= limit) {
                    self.end(&session, "idle");
                }
            }
        }
    }
}
