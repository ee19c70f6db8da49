//! The registry of all sessions: look-up by id and principal, the limits on their number, and the end of idle ones, by
//! time or because another session needs their room.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dashmap::DashMap;
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::conversation::{Conversation, Conversations, NewSession, Rejected};
use super::id::SessionId;
use super::idle_index::IdleIndex;
use super::link::Target;
use super::session::Session;
use super::streams::Transport;
use crate::auth::Principal;
use crate::config::ServerName;
use crate::permits::{By, Ceiling, Claim, Claimant, Full, Permits};
use crate::telemetry::Cause;

#[cfg(test)]
mod tests;

/// The log lines about opened sessions, and as many about ended ones, that a server may cause in a period.
const SESSIONS_LOGGED: u32 = 100;

/// The interval at which idle sessions are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// The shortest and the longest time until the next look at a session that is in use: the end of the use is noticed by
/// the next look.
const LOOK: (Duration, Duration) = (SWEEP, Duration::from_secs(60));

/// The sessions that are looked at in one turn of a sweep.
const BATCH: usize = 256;

/// The bytes that each session is charged with until the session is gone: its record, its streams, and its entries in
/// the registry and in the tables of its children.
const SESSION: usize = 8 * 1024;

/// How often a new session takes the room of another one, as long as others are faster to take what has become free.
const TRIES: usize = 8;

/// All sessions of the gateway.
pub struct Registry {
    /// The open sessions by id, each with the claim under which it counts.
    sessions: DashMap<SessionId, (Arc<Session>, Claim)>,
    /// The open sessions by their use.
    by_use: IdleIndex,
    /// The number of sessions opened so far.
    opened: AtomicU64,
    /// The limits on the number of sessions.
    permits: Permits,
    /// When the drain ends. Set when the gateway shuts down: no session is opened any more.
    drain_end: OnceLock<Instant>,
    /// The tracker of all tasks that sessions spawn.
    tasks: TaskTracker,
}

impl Registry {
    /// An empty registry. Sessions spawn their tasks on `tasks`, and are counted by `permits`.
    pub fn new(tasks: TaskTracker, permits: Permits) -> Self {
        Self {
            sessions: DashMap::new(),
            by_use: IdleIndex::default(),
            opened: AtomicU64::new(0),
            permits,
            drain_end: OnceLock::new(),
            tasks,
        }
    }

    /// Counts one more session, for as long as the claim exists. At a limit, or a share of it, an unused session
    /// makes room: the longest unused one of the principal, or of the principal with the most sessions of the tenant.
    /// Never one of another tenant.
    ///
    /// # Errors
    /// A limit is reached and no session can make room, or the gateway is shutting down.
    fn claim(&self, new: &NewSession<'_>) -> Result<Claim, Rejected> {
        let NewSession { principal, sessions, tenant_sessions, .. } = *new;
        if let Some(end) = self.drain_end.get() {
            return Err(Rejected::Draining(end.saturating_duration_since(Instant::now())));
        }
        // The sessions of a tenant without a limit count as well: a later configuration may have one.
        let limits = [
            (Ceiling::Principal(principal.clone()), sessions.max_per_principal),
            (Ceiling::TenantSessions(principal.tenant().clone()), tenant_sessions.unwrap_or(usize::MAX)),
            (Ceiling::Sessions, sessions.max),
        ];
        let (claimant, mut tries) = (Claimant::of(principal), 0);
        loop {
            let full = match self.permits.try_claim(&claimant, &limits) {
                Ok(claim) => return Ok(claim),
                Err(full) => full,
            };
            tries += 1;
            let is_own = matches!((&full.by, &full.ceiling), (By::Principal(..), _) | (_, Ceiling::Principal(_)));
            let unused = match is_own {
                true => self.by_use.longest_unused(principal),
                false => self.by_use.longest_unused_of_tenant(principal),
            };
            match unused.filter(|_| tries <= TRIES) {
                Some(session) => self.evict(&session, &full.ceiling),
                None => return Err(self.rejected(full, sessions.idle_timeout)),
            }
        }
    }

    /// Why no session is opened: a limit is reached, or a share of it, and no unused session can make room.
    fn rejected(&self, full: Full, idle_timeout: Duration) -> Rejected {
        match (&full.by, &full.ceiling) {
            (By::Tenant(..) | By::Principal(..), _) => Rejected::Share(full),
            (_, Ceiling::Principal(_)) => Rejected::Principal(full.most),
            (_, Ceiling::TenantSessions(_)) => Rejected::Tenant(full.most),
            _ => Rejected::Full(full.most, self.by_use.first_to_end(idle_timeout).unwrap_or_default()),
        }
    }

    /// Ends a session that another one needs the room of, unless the session is in use after all.
    fn evict(&self, session: &Session, full: &Ceiling) {
        let limit = match full {
            Ceiling::Principal(_) => "max_per_principal",
            Ceiling::TenantSessions(_) => "tenant_max_sessions",
            _ => "max",
        };
        if session.end_if_unused() {
            session.link.target().deployment.metrics.evicted(limit);
            self.end(session.id(), "another session needed its room");
        }
    }

    /// Refuses new sessions from now on. The drain ends after `limit` at the latest.
    pub fn drain(&self, limit: Duration) {
        let _ = self.drain_end.set(Instant::now() + limit);
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
    /// use the server. Looks at every session: for a configuration that is new.
    pub fn tidy(&self, patience: impl Fn(&Principal, &ServerName) -> Option<Duration>) {
        self.all().iter().for_each(|session| self.look_at(session, &patience));
    }

    /// Ends a session that has been unused for too long, or whose principal may not use the server any more. Otherwise
    /// notes when to look again.
    fn look_at(&self, session: &Arc<Session>, patience: impl Fn(&Principal, &ServerName) -> Option<Duration>) {
        let Target { principal, deployment, .. } = session.link.target();
        let Some(limit) = patience(principal, &deployment.server.name) else {
            return self.end(session.id(), "its principal may not use the server any more");
        };
        let wait = match session.idle_for() {
            Some(idle) if idle >= limit => return self.end(session.id(), "idle"),
            Some(idle) => limit - idle,
            None => (limit / 16).clamp(LOOK.0, LOOK.1),
        };
        self.by_use.look_again(session, Instant::now() + wait);
    }

    /// Looks once a second at the sessions that may have been unused for too long, until `stop` is cancelled.
    pub async fn sweep(
        self: Arc<Self>,
        patience: impl Fn(&Principal, &ServerName) -> Option<Duration>,
        stop: CancellationToken,
    ) {
        let mut ticks = interval(SWEEP);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let now = Instant::now();
            loop {
                let due = self.by_use.take_due(now, BATCH);
                due.iter().for_each(|session| self.look_at(session, &patience));
                if due.len() < BATCH {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
    }
}

impl Conversations for Registry {
    fn open(&self, new: &NewSession<'_>) -> Result<Arc<dyn Conversation>, Rejected> {
        let NewSession { principal, deployment, transport, client, .. } = *new;
        let id = SessionId::random().map_err(|_| Rejected::NoRandomness)?;
        // Before the claim: nobody's session is ended for one that is not opened.
        let record = new.account.charge(SESSION).map_err(Rejected::Memory)?;
        let claim = self.claim(new)?;
        let target = Target {
            deployment: Arc::clone(deployment),
            principal: principal.clone(),
            account: new.account.clone(),
            label: id.public(),
            tasks: self.tasks.clone(),
        };
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        let session = Arc::new(Session::new((id.clone(), number), transport, new.stream, target, record));
        deployment.metrics.sessions.inc();
        self.sessions.insert(id, (Arc::clone(&session), claim));
        // Soon for the first time: the configuration may have been replaced since the request was judged.
        self.by_use.add(&session, Instant::now() + SWEEP);
        // All sessions may have been ended since the line before, when this one was not in the index yet.
        if !self.sessions.contains_key(session.id()) {
            self.by_use.remove(&session);
        }
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
        self.by_use.remove(&session);
        session.end();
        let Target { principal, deployment, .. } = session.link.target();
        deployment.metrics.sessions.dec();
        let server = &deployment.server.name;
        if Cause::info("session ended", server.to_string()).is_news(SESSIONS_LOGGED) {
            tracing::info!(tenant = %principal.tenant(), %server, session = %session.id().public(), why, "session ended");
        }
    }

    fn has_room(&self, max: usize) -> bool {
        let is_full = self.permits.full(&Claimant::nobody(), &[(Ceiling::Sessions, max)]).is_some();
        self.drain_end.get().is_none() && (!is_full || self.by_use.has_unused())
    }
}
