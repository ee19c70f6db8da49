//! The registry of all sessions: look-up by id and principal, the limits on their number, and the end of idle ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::conversation::{Conversation, Conversations, NewSession, Rejected};
use super::id::SessionId;
use super::link::Target;
use super::session::Session;
use super::streams::Transport;
use crate::auth::Principal;
use crate::config::ServerName;
use crate::permits::{By, Ceiling, Claim, Claimant, Permits};
use crate::telemetry::Cause;

/// The log lines about opened sessions, and as many about ended ones, that a server may cause in a period.
const SESSIONS_LOGGED: u32 = 100;

/// The interval at which idle sessions are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// All sessions of the gateway.
pub struct Registry {
    /// The open sessions by id, each with the claim under which it counts.
    sessions: DashMap<SessionId, (Arc<Session>, Claim)>,
    /// The limits on the number of sessions.
    permits: Permits,
    /// Whether the gateway is shutting down, so that no session is opened any more.
    is_draining: AtomicBool,
    /// The tracker of all tasks that sessions spawn.
    tasks: TaskTracker,
}

impl Registry {
    /// An empty registry. Sessions spawn their tasks on `tasks`, and are counted by `permits`.
    pub fn new(tasks: TaskTracker, permits: Permits) -> Self {
        Self { sessions: DashMap::new(), permits, is_draining: AtomicBool::new(false), tasks }
    }

    /// Counts one more session, for as long as the claim exists.
    ///
    /// # Errors
    /// A limit is reached, or the gateway is shutting down.
    fn claim(&self, new: &NewSession<'_>) -> Result<Claim, Rejected> {
        let NewSession { principal, sessions, tenant_sessions, .. } = *new;
        if self.is_draining.load(Ordering::Relaxed) {
            return Err(Rejected::Draining);
        }
        // The sessions of a tenant without a limit count as well: a later configuration may have one.
        let limits = [
            (Ceiling::Sessions, sessions.max),
            (Ceiling::Principal(principal.clone()), sessions.max_per_principal),
            (Ceiling::TenantSessions(principal.tenant().clone()), tenant_sessions.unwrap_or(usize::MAX)),
        ];
        self.permits.try_claim(&Claimant::of(principal), &limits).map_err(|full| match (&full.by, &full.ceiling) {
            (By::Tenant(..) | By::Principal(..), _) => Rejected::Share(full),
            (_, Ceiling::Principal(_)) => Rejected::Principal(full.most),
            (_, Ceiling::TenantSessions(_)) => Rejected::Tenant(full.most),
            _ => Rejected::Full(full.most),
        })
    }

    /// Refuses new sessions from now on.
    pub fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    /// Whether any session has calls in flight or queued, or running tasks.
    pub fn is_busy(&self) -> bool {
        self.sessions.iter().any(|entry| entry.0.link.is_busy())
    }

    /// Ends all sessions. `why` is for the log.
    pub fn end_all(&self, why: &'static str) {
        for session in self.all() {
            self.end(session.id(), why);
        }
    }

    /// A snapshot of all open sessions.
    fn all(&self) -> Vec<Arc<Session>> {
        self.sessions.iter().map(|entry| Arc::clone(&entry.0)).collect()
    }

    /// Ends sessions that have been unused for too long, and those whose principal may not use the server any more.
    /// `patience` says how long a session of a principal and a server may be unused; `None` if the principal may not
    /// use the server.
    pub fn tidy(&self, patience: impl Fn(&Principal, &ServerName) -> Option<Duration>) {
        for session in self.all() {
            let Target { principal, deployment, .. } = session.link.target();
            match patience(principal, &deployment.server.name) {
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
        let NewSession { principal, deployment, transport, client, .. } = *new;
        let id = SessionId::random().map_err(|_| Rejected::NoRandomness)?;
        let claim = self.claim(new)?;
        let target = Target {
            deployment: Arc::clone(deployment),
            principal: principal.clone(),
            label: id.public(),
            tasks: self.tasks.clone(),
        };
        let session = Arc::new(Session::new(id.clone(), transport, new.stream, target));
        deployment.metrics.sessions.inc();
        self.sessions.insert(id, (Arc::clone(&session), claim));
        let server = &deployment.server.name;
        if Cause::info("session opened", server.to_string()).is_news(SESSIONS_LOGGED) {
            let (tenant, session) = (principal.tenant(), session.id().public());
            tracing::info!(%tenant, %server, %session, ?transport, %client, "session opened");
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
        let session = Arc::clone(&self.sessions.get(id)?.0);
        let target = session.link.target();
        let is_theirs = target.principal == *principal && target.deployment.server.name == *server;
        (is_theirs && session.client.transport == transport).then_some(session as Arc<dyn Conversation>)
    }

    /// An exclusive child is stopped in the background.
    fn end(&self, id: &SessionId, why: &'static str) {
        let Some((_, (session, _claim))) = self.sessions.remove(id) else { return };
        session.end();
        let Target { principal, deployment, .. } = session.link.target();
        deployment.metrics.sessions.dec();
        let server = &deployment.server.name;
        if Cause::info("session ended", server.to_string()).is_news(SESSIONS_LOGGED) {
            tracing::info!(tenant = %principal.tenant(), %server, session = %session.id().public(), why, "session ended");
        }
    }

    fn has_room(&self, max: usize) -> bool {
        !self.is_draining.load(Ordering::Relaxed) && {
            self.permits.full(&Claimant::nobody(), &[(Ceiling::Sessions, max)]).is_none()
        }
    }
}
