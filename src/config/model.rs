//! The validated configuration: what the rest of the crate reads. Every value here is usable as it stands;
//! reading and checking files is the business of the files beside this one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::names::{ServerName, TenantId};
use super::own::OwnFile;
use super::server::{Resources, Server};

/// A whole, valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The public listener.
    pub http: Http,
    /// The listener for metrics and operators; `None` turns it off.
    pub admin: Option<SocketAddr>,
    /// What is logged, and how.
    pub log: Log,
    /// Children that are started at the same time, over all servers.
    pub spawn_concurrency: usize,
    /// How long a drain may take before what is left is ended.
    pub drain_timeout: Duration,
    /// Limits on sessions.
    pub sessions: Sessions,
    /// Who may call.
    pub auth: Auth,
    /// The tenants. A credential that names a tenant not listed here is refused.
    pub tenants: BTreeMap<TenantId, Tenant>,
    /// The servers, by name.
    pub servers: BTreeMap<ServerName, Arc<Server>>,
    /// The server behind `/sse`, `/messages` and `/mcp`: the configured default, or the only one.
    pub default_server: Option<ServerName>,
    /// Where the gateway keeps what a later one has to know: the processes that it must not leave behind.
    pub state_dir: Option<PathBuf>,
    /// What no server should reach: this configuration, and what it names for the gateway itself.
    pub own: Vec<OwnFile>,
}

impl Config {
    /// How many tenants may use a server.
    pub fn tenants_of(&self, server: &ServerName) -> usize {
        let may = |tenant: &&Tenant| tenant.servers.as_ref().is_none_or(|servers| servers.contains(server));
        self.tenants.values().filter(may).count()
    }
}

/// The public listener and what it accepts.
#[derive(Debug, Clone)]
pub struct Http {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The URL under which clients reach the gateway, without a trailing slash. Its path is put before the paths that
    /// the gateway hands out (SSE `endpoint`, RFC 9728 metadata).
    pub public_url: Option<String>,
    /// Host names (no port) accepted in `Host` beside the loopback names. `*` accepts any.
    pub allowed_hosts: Vec<String>,
    /// Origins (scheme://host[:port]) accepted in `Origin` beside the listener's own. `*` accepts any.
    pub allowed_origins: Vec<String>,
    /// Connections open at once; more wait in the kernel's queue.
    pub max_connections: usize,
    /// Time for a request's headers to arrive.
    pub header_timeout: Duration,
    /// Time for a request's body to arrive.
    pub body_timeout: Duration,
    /// Largest request body, in bytes.
    pub max_body: usize,
    /// Deepest nesting of arrays and objects in a message.
    pub max_depth: usize,
    /// Most messages in one batch (2025-03-26).
    pub max_batch: usize,
    /// Time between keep-alive comments on an open stream.
    pub keep_alive: Duration,
    /// A stream that takes nothing for this long is cut.
    pub slow_client_timeout: Duration,
    /// Messages waiting on one stream.
    pub stream_messages: usize,
    /// Bytes waiting on one stream (one message may be larger when nothing else waits).
    pub stream_bytes: usize,
}

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct Log {
    /// A `tracing` filter, such as `info` or `sluice=debug`.
    pub filter: String,
    /// The form of a line.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Human-readable on a terminal, JSON otherwise.
    Auto,
    /// Human-readable.
    Human,
    /// One JSON object a line.
    Json,
}

/// Limits on sessions.
#[derive(Debug, Clone)]
pub struct Sessions {
    /// Sessions in all.
    pub max: usize,
    /// Sessions of one principal.
    pub max_per_principal: usize,
    /// A session with no open stream and no call in flight ends after this.
    pub idle_timeout: Duration,
}

/// Who may call.
#[derive(Debug, Clone)]
pub struct Auth {
    /// Everybody is the principal `anonymous` of this tenant. Only ever on a loopback listener.
    pub anonymous: Option<TenantId>,
    /// Hashed API keys.
    pub keys: Vec<ApiKey>,
    /// JWT validation.
    pub jwt: Option<Jwt>,
}

/// An API key as it is stored: `slk_<prefix>_<secret>` on the wire, its hash here.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// The public part, by which the entry is found.
    pub prefix: String,
    /// SHA-256 of the whole key as the client sends it.
    pub sha256: [u8; 32],
    /// The tenant it acts for.
    pub tenant: TenantId,
    /// Who holds it.
    pub subject: String,
    /// What it may do.
    pub scopes: Vec<String>,
}

/// How JWTs are validated (RFC 7519; RFC 8725 for the rules).
#[derive(Debug, Clone, PartialEq)]
pub struct Jwt {
    /// Algorithms accepted. Never empty; all of one family where the key is a shared secret.
    pub algorithms: Vec<jsonwebtoken::Algorithm>,
    /// Where keys come from.
    pub key: JwtKey,
    /// Issuers accepted (`iss`, exact).
    pub issuers: Vec<String>,
    /// Audiences accepted (`aud`: one of them must be there).
    pub audiences: Vec<String>,
    /// Clock difference forgiven for `exp` and `nbf`.
    pub leeway: Duration,
    /// The claim that names the tenant. Dots descend into objects.
    pub tenant_claim: String,
    /// The claim that names the subject.
    pub subject_claim: String,
    /// The claim with the scopes: a space-separated string or an array.
    pub scope_claim: String,
    /// Scopes that every token must have.
    pub required_scopes: Vec<String>,
    /// Authorization servers named in the RFC 9728 metadata.
    pub authorization_servers: Vec<String>,
}

/// Where the keys for JWTs come from.
#[derive(Debug, Clone)]
pub enum JwtKey {
    /// A shared secret (HS256, HS384, HS512).
    Secret(SecretString),
    /// A public key in PEM.
    Pem(PathBuf),
    /// A JWK set in a file, read again when it changes.
    JwksFile(PathBuf),
    /// A JWK set behind a URL (https, or http on loopback), cached and refreshed.
    JwksUrl(String),
}

impl PartialEq for JwtKey {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Secret(one), Self::Secret(other)) => one.expose_secret() == other.expose_secret(),
            (Self::Pem(one), Self::Pem(other)) | (Self::JwksFile(one), Self::JwksFile(other)) => one == other,
            (Self::JwksUrl(one), Self::JwksUrl(other)) => one == other,
            _ => false,
        }
    }
}

/// A tenant. By default it may use every server, and has no limit of its own.
#[derive(Debug, Clone, Default)]
pub struct Tenant {
    /// Servers it may use; `None` means all.
    pub servers: Option<Vec<ServerName>>,
    /// Sessions of this tenant; `None` means no limit of its own.
    pub max_sessions: Option<usize>,
    /// Children of this tenant; `None` means no limit of its own.
    pub max_children: Option<usize>,
    /// What they may use: memory, processors and processes all together, the rest each process.
    pub limits: Resources,
}
