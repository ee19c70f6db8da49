//! The configuration of one stdio MCP server.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::names::ServerName;
use super::sandbox::Sandbox;
use super::tools::{Resend, Tool};

/// The `PATH` of a child whose configuration gives none. Without one neither `npx` nor `uvx` would be found.
pub const CHILD_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

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

impl Server {
    /// A server with the default limits and isolation, and nothing but the default `PATH` in its environment.
    pub fn new(name: ServerName, command: impl Into<String>, args: Vec<String>) -> Self {
        Self {
            name,
            command: command.into(),
            args,
            cwd: None,
            changes_cwd: false,
            workspace: None,
            env: BTreeMap::from([("PATH".to_owned(), CHILD_PATH.into())]),
            isolation: Isolation::Session,
            limits: ChildLimits::default(),
            sandbox: Sandbox::default(),
            pool: Pool::default(),
            restart: Restart::default(),
            tools: BTreeMap::new(),
            is_by_arguments: false,
        }
    }

    /// Whether the name of the tool that a call is for makes any difference.
    pub fn minds_tools(&self) -> bool {
        !self.tools.is_empty() || self.restart.resend != Resend::Never
    }

    /// How long a call may take, of a tool or of no tool.
    pub fn call_timeout(&self, tool: Option<&str>) -> Duration {
        tool.and_then(|tool| self.tools.get(tool)?.timeout).unwrap_or(self.limits.call_timeout)
    }

    /// What this time-out of a call is called in the configuration.
    pub fn timeout_key(&self, timeout: Duration) -> &'static str {
        if timeout == self.limits.call_timeout { "limits.call_timeout" } else { "the timeout of this tool" }
    }

    /// Which calls of a tool are sent again.
    pub fn resend(&self, tool: &str) -> Resend {
        match self.tools.get(tool).and_then(|tool| tool.resend) {
            Some(true) => Resend::Always,
            Some(false) => Resend::Never,
            None => self.restart.resend,
        }
    }
}

impl PartialEq for Server {
    /// Whether two configurations of a server say the same, secrets included.
    fn eq(&self, other: &Self) -> bool {
        // Field by field, so that a new one is not forgotten here.
        let Self { name, command, args, cwd, changes_cwd, workspace, env, isolation, .. } = self;
        let Self { limits, sandbox, pool, restart, tools, is_by_arguments, .. } = self;
        let env = env.iter().map(|(name, value)| (name, value.expose_secret()));
        (name, command, args, cwd, changes_cwd)
            == (&other.name, &other.command, &other.args, &other.cwd, &other.changes_cwd)
            && (workspace, isolation, limits) == (&other.workspace, &other.isolation, &other.limits)
            && (sandbox, pool, restart) == (&other.sandbox, &other.pool, &other.restart)
            && (tools, is_by_arguments) == (&other.tools, &other.is_by_arguments)
            && env.eq(other.env.iter().map(|(name, value)| (name, value.expose_secret())))
    }
}

impl Eq for Server {}

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
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
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
