//! The validated settings of one stdio MCP server.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::names::ServerName;
use super::sandbox::Sandbox;
use super::tools::{Resend, Tool};

/// The `PATH` of a child if the configuration sets no other. Launchers such as `npx` and `uvx` need one.
pub const CHILD_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The sessions that may share a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// None: each session has a child of its own. The default.
    Session,
    /// The sessions of one principal.
    Principal,
    /// The sessions of one tenant.
    Tenant,
    /// All sessions.
    Shared,
}

impl Isolation {
    /// All of them, each with its word in a configuration.
    pub const WORDS: [(&'static str, Self); 4] = [
        ("session", Self::Session),
        ("principal", Self::Principal),
        ("tenant", Self::Tenant),
        ("shared", Self::Shared),
    ];
}

/// The settings of a stdio MCP server.
#[derive(Debug, Clone)]
pub struct Server {
    /// The name, as in URLs.
    pub name: ServerName,
    /// The program: a path, a name that is looked up in the `PATH` of `env`, or `sluice` for this program.
    pub command: String,
    /// The arguments.
    pub args: Vec<String>,
    /// The working directory. `None` without a `workspace`: a temporary folder in a sandbox, otherwise that of the
    /// gateway.
    pub cwd: Option<PathBuf>,
    /// Whether a sandboxed child may change files in `cwd`. Set by `sluice run`, for the folder in which the user has
    /// started it.
    pub changes_cwd: bool,
    /// The folder with a working directory for each tenant or principal, which only children of that tenant or
    /// principal use.
    pub workspace: Option<PathBuf>,
    /// The environment of a child, with references resolved; `TMPDIR` is added for a private temporary folder. Values
    /// may be secrets and must not be shown.
    pub env: BTreeMap<String, SecretString>,
    /// The sessions that may share a child.
    pub isolation: Isolation,
    /// The limits of a child.
    pub limits: ChildLimits,
    /// The sandbox of a child.
    pub sandbox: Sandbox,
    /// The number and the lifetime of children.
    pub pool: Pool,
    /// The consequences of crashes.
    pub restart: Restart,
    /// The settings of single tools, by the names of the tools.
    pub tools: BTreeMap<String, Tool>,
    /// Whether idle children are kept though others need their room, as the server's memory is its point.
    pub keep_children: bool,
    /// Whether the sandbox comes from arguments of a command, not from keys of a file. Messages then name the
    /// arguments.
    pub is_by_arguments: bool,
}

impl Server {
    /// A server with default settings. The only variable in its environment is the default `PATH`.
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
            keep_children: false,
            is_by_arguments: false,
        }
    }

    /// Whether the handling of a call depends on the name of its tool.
    pub fn minds_tools(&self) -> bool {
        !self.tools.is_empty() || self.restart.resend != Resend::Never
    }

    /// The longest time for a call of this tool, or for a request that calls no tool.
    pub fn call_timeout(&self, tool: Option<&str>) -> Duration {
        tool.and_then(|tool| self.tools.get(tool)?.timeout).unwrap_or(self.limits.call_timeout)
    }

    /// The words by which messages name the setting with this time-out.
    pub fn timeout_key(&self, timeout: Duration) -> &'static str {
        if timeout == self.limits.call_timeout { "limits.call_timeout" } else { "the timeout of this tool" }
    }

    /// Which calls of a tool are sent again after a crash.
    pub fn resend(&self, tool: &str) -> Resend {
        match self.tools.get(tool).and_then(|tool| tool.resend) {
            Some(true) => Resend::Always,
            Some(false) => Resend::Never,
            None => self.restart.resend,
        }
    }
}

impl PartialEq for Server {
    /// Whether all settings are the same, secrets included.
    fn eq(&self, other: &Self) -> bool {
        // Field by field, so that a new one is not forgotten here.
        let Self { name, command, args, cwd, changes_cwd, workspace, env, isolation, .. } = self;
        let Self { limits, sandbox, pool, restart, tools, keep_children, is_by_arguments, .. } = self;
        let env = env.iter().map(|(name, value)| (name, value.expose_secret()));
        (name, command, args, cwd, changes_cwd)
            == (&other.name, &other.command, &other.args, &other.cwd, &other.changes_cwd)
            && (workspace, isolation, limits) == (&other.workspace, &other.isolation, &other.limits)
            && (sandbox, pool, restart) == (&other.sandbox, &other.pool, &other.restart)
            && (tools, keep_children, is_by_arguments) == (&other.tools, &other.keep_children, &other.is_by_arguments)
            && env.eq(other.env.iter().map(|(name, value)| (name, value.expose_secret())))
    }
}

impl Eq for Server {}

/// The rule for starting children (php-fpm's words).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    /// `max_children` children run at all times.
    Static,
    /// Between `min_spare` and `max_spare` children wait for the next session.
    Dynamic,
    /// A child is started when a session needs one.
    Ondemand,
}

/// The number and the lifetime of a server's children.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// The rule for starting children.
    pub mode: PoolMode,
    /// The largest number of children, spares included. Further sessions wait.
    pub max_children: usize,
    /// The number of spares to keep ready (`dynamic`).
    pub min_spare: usize,
    /// The largest number of spares (`dynamic`).
    pub max_spare: usize,
    /// The number of children over which sessions are spread with `isolation` = `shared`.
    pub replicas: usize,
    /// The time without sessions after which a shared child is stopped, and the time after which a
    /// spare is stopped if no client has sent its `initialize` again.
    pub idle_timeout: Duration,
    /// The longest time that a request waits for capacity for a child.
    pub queue_timeout: Duration,
    /// The number of calls after which a child is replaced. `None`: no limit.
    pub max_requests: Option<usize>,
    /// The age at which a child is replaced. `None`: no limit.
    pub max_age: Option<Duration>,
    /// The resident memory of a child and its descendants, in bytes, above which the child is replaced. `None`: no
    /// limit.
    pub max_rss: Option<usize>,
}

/// The consequences of crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restart {
    /// The pause before the start after the second crash in a row. The pause doubles with each further crash; a random
    /// part of it, up to a half, is left out.
    pub backoff_min: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
    /// The number of crashes in a row within `window` after which the circuit breaker opens, for the tenant of the
    /// children.
    pub max_crashes: usize,
    /// The time for which a crash counts.
    pub window: Duration,
    /// The time for which the circuit breaker permits no start.
    pub open: Duration,
    /// Which calls in flight are sent again to the next child.
    pub resend: Resend,
}

/// The limits of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildLimits {
    /// The longest time from the start to the answer to `initialize`.
    pub start_timeout: Duration,
    /// The longest time from a call to its answer. Progress starts the time anew.
    pub call_timeout: Duration,
    /// The time without any message about it for which a shared child is taken to go on with a cancelled call. `None`:
    /// the time-out of the call.
    pub cancel_grace: Option<Duration>,
    /// How long a call may be in flight, whatever its progress, before the child is ended. A call that has timed out is
    /// in flight no more, and `initialize` does not count. `None`: no limit.
    pub harakiri: Option<Duration>,
    /// The time of silence after which an idle child gets a `ping`. `None`: never.
    pub ping_interval: Option<Duration>,
    /// The time after a `ping` within which the child must send something. Otherwise the child is ended.
    pub ping_timeout: Duration,
    /// The longest time from closing stdin to SIGTERM.
    pub stdin_grace: Duration,
    /// The longest time from SIGTERM to SIGKILL.
    pub term_grace: Duration,
    /// The longest line on stdout, in bytes.
    pub max_line: usize,
    /// The largest number of calls in flight on a child. A session on a shared child may have as many as remain for the
    /// others.
    pub max_in_flight: usize,
    /// The largest number of bytes that wait for stdin, shared by sessions like `max_in_flight`.
    pub stdin_queue: usize,
    /// The number of lines of stderr that are kept for error messages.
    pub stderr_tail: usize,
    /// The limits on the use of the machine.
    pub resources: Resources,
    /// The limits on the temporary folder.
    pub temp: TempLimits,
}

/// The limits on the temporary folder of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TempLimits {
    /// The largest size of all files, in bytes. If it is set and the gateway may mount a tmpfs, a tmpfs enforces it;
    /// otherwise the size is watched. `None`: [`TempLimits::SIZE`], watched.
    pub size: Option<usize>,
    /// The largest number of files and folders.
    pub files: usize,
}

/// The limits on the use of the machine by a child and its descendants. `None`: no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// The memory of all processes together, in bytes.
    pub memory: Option<usize>,
    /// The thousandths of a processor for all processes together. Needs a cgroup.
    pub millicores: Option<usize>,
    /// The processor time of each process.
    pub cpu_time: Option<Duration>,
    /// The number of processes and threads.
    pub processes: Option<usize>,
    /// The number of open descriptors in each process.
    pub open_files: Option<usize>,
    /// The size of the largest file that a process may make, in bytes.
    pub file_size: Option<usize>,
}
