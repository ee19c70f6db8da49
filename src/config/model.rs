//! The validated configuration, as all other layers read it. Only data; other files of this folder read and check it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::names::{ServerName, TenantId};
use super::own::OwnFile;
use super::proxies::Proxies;
use super::server::{Resources, Server};

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The public listener.
    pub http: Http,
    /// The address of the admin listener, for metrics and operators. `None` if it is off.
    pub admin: Option<SocketAddr>,
    /// The settings of logging.
    pub log: Log,
    /// The largest number of children of all servers that are being started at the same time.
    pub spawn_concurrency: usize,
    /// The longest time of a drain. Then the remaining calls and sessions are ended.
    pub drain_timeout: Duration,
    /// The limits on sessions.
    pub sessions: Sessions,
    /// The bytes that the gateway itself may hold of what clients and children send.
    pub memory_budget: usize,
    /// The accepted credentials.
    pub auth: Auth,
    /// The tenants, by name. Credentials of other tenants are refused.
    pub tenants: BTreeMap<TenantId, Tenant>,
    /// The servers, by name.
    pub servers: BTreeMap<ServerName, Arc<Server>>,
    /// The server of the paths `/sse`, `/messages` and `/mcp`: the configured default server, or the only server.
    pub default_server: Option<ServerName>,
    /// The folder in which the gateway keeps data for a later gateway, such as processes that must not outlive it.
    /// `None`: no such folder is configured.
    pub state_dir: Option<PathBuf>,
    /// The files of the gateway, which no server should reach: the configuration, and files that it names for the
    /// gateway.
    pub own: Vec<OwnFile>,
}

impl Config {
    /// The number of tenants that may use a server.
    pub fn tenants_of(&self, server: &ServerName) -> usize {
        let may = |tenant: &&Tenant| tenant.servers.as_ref().is_none_or(|servers| servers.contains(server));
        self.tenants.values().filter(may).count()
    }
}

/// The public listener, and the bounds on requests and streams.
#[derive(Debug, Clone)]
pub struct Http {
    /// The address of the listener.
    pub listen: SocketAddr,
    /// The URL under which clients reach the gateway, without a trailing slash. Its path is a prefix of the paths that
    /// clients are given (the SSE event `endpoint`, RFC 9728 metadata).
    pub public_url: Option<String>,
    /// Hosts, without ports, accepted in the header `Host` besides loopback hosts and the host of `public_url`. `*`:
    /// any host.
    pub allowed_hosts: Vec<String>,
    /// Origins accepted in the header `Origin` besides the gateway's own. `*`: any origin.
    pub allowed_origins: Vec<String>,
    /// The largest number of open connections. An eighth is only for those on which a request was authenticated; the
    /// oldest of the others make way for new ones.
    pub max_connections: usize,
    /// The largest number of open connections of one address, or of the /64 of an IPv6 address. `None`: as many as are
    /// left for the others.
    pub max_connections_per_address: Option<usize>,
    /// The proxies in front of the gateway.
    pub proxies: Arc<Proxies>,
    /// The longest time for the headers of a request to arrive.
    pub header_timeout: Duration,
    /// The longest time for the body of a request to arrive.
    pub body_timeout: Duration,
    /// The largest request body, in bytes.
    pub max_body: usize,
    /// The deepest nesting of arrays and objects in a message.
    pub max_depth: usize,
    /// The largest number of messages in a batch (MCP 2025-03-26).
    pub max_batch: usize,
    /// The time between keep-alive comments on an open stream.
    pub keep_alive: Duration,
    /// The time without progress after which a stream that the client does not read is ended.
    pub slow_client_timeout: Duration,
    /// The largest number of messages that wait on a stream.
    pub stream_messages: usize,
    /// The largest number of bytes that wait on a stream. A single message may be larger if nothing else waits.
    pub stream_bytes: usize,
}

/// The settings of logging.
#[derive(Debug, Clone)]
pub struct Log {
    /// A `tracing` filter, such as `info` or `sluice=debug`.
    pub filter: String,
    /// The format of log lines.
    pub format: LogFormat,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Human-readable if stderr is a terminal, otherwise JSON.
    Auto,
    /// Human-readable.
    Human,
    /// One JSON object for each line.
    Json,
}

/// The limits on sessions.
#[derive(Debug, Clone)]
pub struct Sessions {
    /// The largest number of sessions.
    pub max: usize,
    /// The largest number of sessions of one principal.
    pub max_per_principal: usize,
    /// The time after which a session without an open stream, a call in flight and a task is ended.
    pub idle_timeout: Duration,
    /// The time after which an idle child of sessions is ended, though nobody needs its room. `None`: never.
    pub child_idle_timeout: Option<Duration>,
}

/// The accepted credentials. By default there are none, and nobody may call.
#[derive(Debug, Clone, Default)]
pub struct Auth {
    /// The tenant of callers without a credential, who are the principal `anonymous`. `None`: a credential is required.
    /// Allowed only on a loopback listener.
    pub anonymous: Option<TenantId>,
    /// The API keys.
    pub keys: Vec<ApiKey>,
    /// The rules for JWTs. `None`: JWTs are not accepted.
    pub jwt: Option<Jwt>,
}

/// An API key as the configuration stores it. Clients send `slk_<prefix>_<secret>`; the secret is not stored.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// The public part of the key, by which the entry is found. Empty for a key of another form.
    pub prefix: String,
    /// The SHA-256 of the whole key as clients send it.
    pub sha256: [u8; 32],
    /// The tenant of the key.
    pub tenant: TenantId,
    /// The subject: the holder of the key.
    pub subject: String,
    /// The scopes that the key grants.
    pub scopes: Vec<String>,
}

/// The rules for JWTs (RFC 7519, RFC 8725).
#[derive(Debug, Clone, PartialEq)]
pub struct Jwt {
    /// The accepted algorithms. Not empty. Only HMAC algorithms with a shared secret, only others with public keys.
    pub algorithms: Vec<jsonwebtoken::Algorithm>,
    /// The source of the keys.
    pub key: JwtKey,
    /// The accepted issuers (`iss`).
    pub issuers: Vec<String>,
    /// The accepted audiences. `aud` of a token must contain one of them.
    pub audiences: Vec<String>,
    /// The tolerated difference between clocks, for `exp` and `nbf`.
    pub leeway: Duration,
    /// The claim with the tenant. A dot may lead into an object.
    pub tenant_claim: String,
    /// The claim with the subject. Dots as in `tenant_claim`.
    pub subject_claim: String,
    /// The claim with the scopes, a string with spaces or an array. Dots as in `tenant_claim`.
    pub scope_claim: String,
    /// The scopes that every token must have.
    pub required_scopes: Vec<String>,
    /// The authorization servers that the RFC 9728 metadata names.
    pub authorization_servers: Vec<String>,
}

/// The source of the keys for JWTs.
#[derive(Debug, Clone)]
pub enum JwtKey {
    /// A shared secret (HS256, HS384, HS512).
    Secret(SecretString),
    /// A file with a public key in PEM.
    Pem(PathBuf),
    /// A file with a JWK set. The file is read again when it changes.
    JwksFile(PathBuf),
    /// The URL of a JWK set (https, or http with a loopback address), which is cached and fetched again.
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

/// The settings of a tenant. By default the tenant may use every server and has no limits of its own.
#[derive(Debug, Clone, Default)]
pub struct Tenant {
    /// The servers that the tenant may use. `None`: all servers.
    pub servers: Option<Vec<ServerName>>,
    /// The largest number of sessions of the tenant. `None`: no limit of its own.
    pub max_sessions: Option<usize>,
    /// The largest number of children of the tenant. `None`: no limit of its own.
    pub max_children: Option<usize>,
    /// The largest part of `limits.memory_budget` that the tenant may hold, in bytes. `None`: what is left for the
    /// others.
    pub memory_budget: Option<usize>,
    /// The limits on the use of the machine: memory, processors and processes of all children of the tenant together,
    /// the others for each process.
    pub limits: Resources,
}
