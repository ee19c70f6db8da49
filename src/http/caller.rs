//! Authenticates a request and finds its server. Every request goes from credential to principal to server.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::app::App;
use super::connection_memory;
use super::metadata::metadata_url;
use super::paths::named_server;
use super::problem::Refusal;
use super::request_head::RequestHead;
use super::snapshot::Snapshot;
use crate::auth::{AuthError, Principal};
use crate::config::ServerName;
use crate::memory::{Account, Charge};
use crate::pool::Deployment;
use crate::session::{Conversation, NewSession, Transport};
use crate::telemetry::{Cause, MemoryUse, Metrics};

/// What a request takes of memory while it is handled, in bytes: its task, its exchange, a small body, and a frame of
/// its event stream.
const REQUEST: usize = 32 << 10;

/// An authenticated request to a server that its principal may use.
pub struct Caller<'a> {
    /// The principal that the credential belongs to.
    pub principal: Principal,
    /// The address of the client.
    pub client: IpAddr,
    /// The time at which the credential expires. `None` if the credential does not expire.
    pub until: Option<Instant>,
    /// The server that the path names, with its pool.
    pub deployment: &'a Arc<Deployment>,
    /// The snapshot of the configuration that the request is judged by.
    pub snapshot: &'a Snapshot,
    /// The largest number of sessions of the principal's tenant. `None` if the tenant has no limit.
    max_sessions: Option<usize>,
    /// The account of the principal's tenant.
    pub account: &'a Account,
    /// What the request itself takes, until it is answered.
    pub charge: Charge,
}

impl<'a> Caller<'a> {
    /// Authenticates a request and finds its server, or refuses the request. A refused credential is counted and
    /// logged. From then on the tenant is charged for the request.
    pub async fn of(parts: &RequestHead<'_>, snapshot: &'a Snapshot, metrics: &Metrics) -> Result<Self, Refusal> {
        let proven = match snapshot.auth.authenticate(&parts.headers, parts.uri.query()).await {
            Ok(proven) => proven,
            Err(error) => return Err(unauthenticated(parts, snapshot, metrics, &error)),
        };
        parts.authenticate(proven.principal.tenant());
        let admission = snapshot
            .directory
            .admit(&proven.principal, named_server(parts.uri.path()))
            .map_err(|refusal| Refusal::no_server(&refusal))?;
        let bytes = REQUEST + connection_memory::size_of_head(parts);
        let charge = admission.account.charge(bytes).map_err(|why| {
            metrics.memory_refused(MemoryUse::Request);
            Refusal::no_memory("the request", why)
        })?;
        Ok(Self {
            client: parts.client,
            until: proven.ends(),
            principal: proven.principal,
            deployment: admission.deployment,
            snapshot,
            max_sessions: admission.max_sessions,
            account: admission.account,
            charge,
        })
    }

    /// The name of the server.
    pub fn server(&self) -> &'a ServerName {
        &self.deployment.server.name
    }

    /// Finds this caller's session on the server with this id and transport. The session and its streams then last at
    /// least as long as the caller's credential.
    pub fn find(&self, app: &App, id: &str, transport: Transport) -> Option<Arc<dyn Conversation>> {
        let conversation = app.conversations.find(id, &self.principal, self.server(), transport)?;
        conversation.expiry().extend(self.until);
        Some(conversation)
    }

    /// A description of the session that this caller would open, with the limits that apply.
    pub fn new_session(&self, transport: Transport) -> NewSession<'_> {
        NewSession {
            principal: &self.principal,
            deployment: self.deployment,
            transport,
            client: self.client,
            sessions: &self.snapshot.sessions,
            tenant_sessions: self.max_sessions,
            stream: self.snapshot.stream(),
            account: self.account,
        }
    }
}

/// Refuses a request whose credential is missing or invalid, or cannot be checked now. Counts and logs the failure.
fn unauthenticated(parts: &RequestHead<'_>, snapshot: &Snapshot, metrics: &Metrics, error: &AuthError) -> Refusal {
    metrics.auth_failure(error.reason());
    // A peer without a credential must not fill the log. The path is left out: the peer chooses it.
    if Cause::info("a request was refused", error.reason()).is_news(1) {
        tracing::info!(reason = error.reason(), client = %parts.client, "a request was refused");
    }
    let mut refusal = Refusal::problem(error.status(), &error.to_string());
    let metadata = metadata_url(snapshot, parts);
    let scope = snapshot.jwt.as_ref().map(|jwt| jwt.required_scopes.join(" ")).filter(|scope| !scope.is_empty());
    if let Some(challenge) = error.www_authenticate(metadata.as_deref(), scope.as_deref()) {
        refusal = refusal.with(http::header::WWW_AUTHENTICATE, challenge);
    }
    if let Some(seconds) = error.retry_after() {
        refusal = refusal.retry_after(seconds);
    }
    refusal
}
