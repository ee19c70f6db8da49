//! The validated configuration: what the rest of the crate reads. Every value here is usable as it stands;
//! reading and checking files is the business of the files beside this one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use super::names::{ServerName, TenantId};
use super::own::OwnFile;
use super::sandbox::Sandbox;
use super::tools::{Resend, Tool};

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
#[derive(Debug, Clone)]
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

/// Who may share a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// A child for each session. The default.
    Session,
    /// A child for each principal.
    Principal,
    /// A child for each tenant.
    Tenant,
    /// One child for all.
    Shared,
}

/// A configured stdio MCP server.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its name in URLs.
    pub name: ServerName,
    /// The program: a path, or a name looked up in the `PATH` of `env`.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its working directory.
    pub cwd: Option<PathBuf>,
    /// Whether it may change that in a sandbox: where one user has started one server by hand, in a folder of his own.
    pub changes_cwd: bool,
    /// The folder below which each tenant, or each principal, has a working directory that its children may change.
    pub workspace: Option<PathBuf>,
    /// Its whole environment, references already resolved. Values may be secrets: never print them.
    pub env: BTreeMap<String, SecretString>,
    /// Who may share a child.
    pub isolation: Isolation,
    /// Time limits and bounds of a child.
    pub limits: ChildLimits,
    /// What a child is kept from.
    pub sandbox: Sandbox,
    /// How many children there are, and for how long.
    pub pool: Pool,
    /// What follows a crash.
    pub restart: Restart,
    /// What is particular to single tools, by their names.
    pub tools: BTreeMap<String, Tool>,
    /// Whether its settings are arguments of a command, and no keys of a file: what to tell the operator to change.
    pub is_by_arguments: bool,
}

/// When children are started (php-fpm's words).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    /// `max_children` of them, always.
    Static,
    /// Between `min_spare` and `max_spare` wait for the next session.
    Dynamic,
    /// When a session needs one.
    Ondemand,
}

/// How many children a server has, and for how long.
#[derive(Debug, Clone)]
pub struct Pool {
    /// When children are started.
    pub mode: PoolMode,
    /// Children at once, spares included. At the ceiling, sessions queue.
    pub max_children: usize,
    /// Spares that are always there (`dynamic`).
    pub min_spare: usize,
    /// Spares that are never exceeded (`dynamic`).
    pub max_spare: usize,
    /// Children that sessions are spread over, where they share one (`shared`).
    pub replicas: usize,
    /// A shared child without a session ends after this.
    pub idle_timeout: Duration,
    /// How long a session waits for a child at the ceiling.
    pub queue_timeout: Duration,
    /// Calls after which a child is replaced.
    pub max_requests: Option<usize>,
    /// Age at which a child is replaced.
    pub max_age: Option<Duration>,
    /// Resident memory of a child's group at which it is replaced, in bytes.
    pub max_rss: Option<usize>,
}

/// What follows a crash.
#[derive(Debug, Clone, Copy)]
pub struct Restart {
    /// The pause before the start after the second crash; it doubles with each.
    pub backoff_min: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
    /// Crashes within `window` after which the server is left alone, for the tenant whose it was.
    pub max_crashes: usize,
    /// How long a crash counts.
    pub window: Duration,
    /// For how long the server is left alone.
    pub open: Duration,
    /// Which calls that were in flight are sent again.
    pub resend: Resend,
}

/// Time limits and bounds of a child.
#[derive(Debug, Clone)]
pub struct ChildLimits {
    /// From the spawn to the answer to `initialize`.
    pub start_timeout: Duration,
    /// From a call to its answer; progress starts it anew.
    pub call_timeout: Duration,
    /// How long a shared child is believed to go on with a call that it was told is cancelled, without a sign of life. `None`: as
    /// long as the call might have taken.
    pub cancel_grace: Option<Duration>,
    /// A child whose call takes longer than this is ended, progress or not.
    pub harakiri: Option<Duration>,
    /// A child that has said nothing for this long, with nothing in flight, is asked whether it is still there.
    pub ping_interval: Option<Duration>,
    /// From that `ping` to any sign of life; without one, the child is ended.
    pub ping_timeout: Duration,
    /// From closing stdin to SIGTERM.
    pub stdin_grace: Duration,
    /// From SIGTERM to SIGKILL.
    pub term_grace: Duration,
    /// Longest line on stdout, in bytes.
    pub max_line: usize,
    /// Calls in flight on one child. One of the sessions that share it may have as many as are left for the others.
    pub max_in_flight: usize,
    /// Bytes waiting for stdin; those of one session as with the calls.
    pub stdin_queue: usize,
    /// Lines of stderr kept for error messages.
    pub stderr_tail: usize,
    /// What it may use of the machine.
    pub resources: Resources,
    /// What it may put into its temporary folder.
    pub temp: TempLimits,
}

/// What a child may put into its temporary folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TempLimits {
    /// Bytes. Where they are set and the gateway may mount one, a file system in memory keeps them; else they are watched, and
    /// [`TempLimits::SIZE`] where they are not set.
    pub size: Option<usize>,
    /// Files, folders and all else that has a name.
    pub files: usize,
}

/// What a child, with all that it starts, may use of the machine. `None` sets no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Memory of all its processes together, in bytes.
    pub memory: Option<usize>,
    /// Thousandths of a processor for all its processes together. Needs a cgroup.
    pub millicores: Option<usize>,
    /// Processor time of each of its processes.
    pub cpu_time: Option<Duration>,
    /// Processes and threads.
    pub processes: Option<usize>,
    /// Descriptors open in each of its processes.
    pub open_files: Option<usize>,
    /// The largest file that it may make, in bytes.
    pub file_size: Option<usize>,
}
