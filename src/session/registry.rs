//! The registry of all sessions: look-up by id and principal, the limits on their number, and the end of idle ones.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::conversation::{Conversation, Conversations, NewSession, Rejected};
use super::id::SessionId;
use super::link::Target;
use super::session::Session;
use super::streams::Transport;
use crate::auth::Principal;
use crate::config::{ServerName, TenantId};
use crate::pool::Deployment;
use crate::telemetry::Cause;

/// The log lines about opened sessions, and as many about ended ones, that a server may cause in a period.
const SESSIONS_LOGGED: u32 = 100;

/// The interval at which idle sessions are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// The numbers of open sessions.
#[derive(Default)]
struct Counts {
    /// The number of all sessions.
    all: usize,
    /// The number of sessions of each principal that has any.
    principals: HashMap<Principal, usize>,
    /// The number of sessions of each tenant that has any.
    tenants: HashMap<TenantId, usize>,
    /// Whether the gateway is shutting down, so that no session is opened any more.
    draining: bool,
}

/// All sessions of the gateway.
pub struct Registry {
    /// The open sessions by id.
    sessions: DashMap<SessionId, Entry>,
    /// Their numbers, on which the limits are checked.
    counts: Mutex<Counts>,
    /// The tracker of all tasks that sessions spawn.
    tasks: TaskTracker,
}

/// A session, with the deployment that it was opened on: the pool goes on for as long as a session needs it.
struct Entry {
    session: Arc<Session>,
    deployment: Arc<Deployment>,
}

impl Registry {
    /// An empty registry. Sessions spawn their tasks on `tasks`.
    pub fn new(tasks: TaskTracker) -> Self {
        Self { sessions: DashMap::new(), counts: Mutex::default(), tasks }
    }

    /// Counts one more session, unless a limit is reached.
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

    /// Counts one session less of a principal.
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

    /// The number of open sessions.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether no session is open.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Refuses new sessions from now on.
    pub fn drain(&self) {
        self.counts.lock().draining = true;
    }

    /// Whether any session has calls in flight or queued, or running tasks.
    pub fn is_busy(&self) -> bool {
        self.sessions.iter().any(|entry| entry.session.is_busy())
    }

    /// Ends all sessions. `why` is for the log.
    pub fn end_all(&self, why: &'static str) {
        for session in self.all() {
            self.end(session.id(), why);
        }
    }

    /// A snapshot of all open sessions.
    fn all(&self) -> Vec<Arc<Session>> {
        self.sessions.iter().map(|entry| Arc::clone(&entry.session)).collect()
    }

    /// Ends sessions that have been unused for too long, and those whose principal may not use the server any more. `patience`
    /// says how long a session of a principal and a server may be unused; `None` if the principal may not use the server.
    pub fn tidy(&self, patience: impl Fn(&Principal, &ServerName) -> Option<Duration>) {
        for session in self.all() {
            match patience(&session.principal, &session.server.name) {
                None => self.end(session.id(), "its principal may not use the server any more"),
                Some(limit) if session.idle_for().is_some_and(|idle| idle >= limit) => self.end(session.id(), "idle"),
                Some(_) => {}
            }
        }
    }

    /// Tidies once a second until `stop` is cancelled.
    pub async fn sweep(
        self: Arc<Self>,
        patience: impl Fn(&Principal, &ServerName) -> Option<Duration>,
        stop: CancellationToken,
    ) {
        let mut ticks = interval(SWEEP);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.tidy(&patience);
        }
    }
}

impl Conversations for Registry {
    fn open(&self, new: &NewSession<'_>) -> Result<Arc<dyn Conversation>, Rejected> {
        let NewSession { principal, deployment, transport, .. } = *new;
        let id = SessionId::random().map_err(|_| Rejected::NoRandomness)?;
        self.count(new)?;
        let Deployment { server, pool, metrics, .. } = &**deployment;
        let target = Target {
            server: Arc::clone(server),
            principal: principal.clone(),
            label: id.public(),
            pool: Arc::clone(pool),
            metrics: metrics.clone(),
            tasks: self.tasks.clone(),
        };
        let session = Arc::new(Session::new(id.clone(), transport, new.stream, target));
        metrics.sessions.inc();
        self.sessions.insert(id, Entry { session: Arc::clone(&session), deployment: Arc::clone(deployment) });
        if Cause::info("session opened", server.name.to_string()).is_news(SESSIONS_LOGGED) {
            tracing::info!(tenant = %principal.tenant(), server = %server.name, session = %session.id().public(), ?transport, "session opened");
        }
        Ok(session)
    }

    fn find(
        &self,
        id: &str,
        principal: &Principal,
        server: &ServerName,
        transport: Transport,
    ) -> Option<Arc<dyn Conversation>> {
        let session = Arc::clone(&self.sessions.get(&SessionId::parse(id)?)?.session);
        let fits =
            session.principal == *principal && session.server.name == *server && session.transport() == transport;
        fits.then_some(session as Arc<dyn Conversation>)
    }

    /// An exclusive child is stopped in the background.
    fn end(&self, id: &SessionId, why: &'static str) {
        let Some((_, Entry { session, deployment })) = self.sessions.remove(id) else { return };
        session.end();
        self.uncount(&session.principal);
        deployment.metrics.sessions.dec();
        if Cause::info("session ended", session.server.name.to_string()).is_news(SESSIONS_LOGGED) {
            tracing::info!(tenant = %session.principal.tenant(), server = %session.server.name, session = %session.id().public(), why, "session ended");
        }
    }

    fn has_room(&self, max: usize) -> bool {
        let counts = self.counts.lock();
        !counts.draining && counts.all < max
    }
}
