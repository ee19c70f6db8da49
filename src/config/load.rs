//! Makes a [`Config`]: from a configuration file, from an `mcpServers` file, or from servers without a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Access;

use super::defaults::{ADMIN, DRAIN_TIMEOUT, SPAWN_CONCURRENCY};
use super::environment::Environment;
use super::model::{Auth, Config, Http, Log, LogFormat, Sessions, Tenant};
use super::names::{ServerName, TenantId};
use super::problem::{Problem, Problems};
use super::reading::Reading;
use super::sandbox::Sandbox;
use super::section::Section;
use super::server::{ChildLimits, Server};
use super::source::{KeyPath, Source};
use super::suggest::no_server;
use super::{auth, http, mcp_servers, memory, sandbox, secrets, servers, tenants};

const MILLION: usize = 1_000_000;
/// The file systems of `/proc` and `/sys`, in which not even root can make a folder.
const OF_THE_KERNEL: [rustix::fs::FsWord; 2] = [rustix::fs::PROC_SUPER_MAGIC, 0x6265_6572];
/// The levels of a log filter.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
const FORMATS: [(&str, LogFormat); 3] =
    [("auto", LogFormat::Auto), ("human", LogFormat::Human), ("json", LogFormat::Json)];

/// A configuration, with warnings about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The valid configuration.
    pub config: Config,
    /// Warnings, in the order of the file. They prevent nothing.
    pub warnings: Vec<Problem>,
}

impl Config {
    /// Reads a configuration file in TOML. Variables `SLUICE__SECTION__KEY` of `environment` override keys of the file,
    /// and the built-in defaults stand for absent keys. Also reads the files that the configuration names. Starts
    /// nothing.
    ///
    /// # Errors
    /// All problems at once, each with its file and line, or its variable.
    pub fn load(path: &Path, environment: &Environment) -> Result<Loaded, Problems> {
        let (source, refused) = Source::read(path, environment)?;
        let reading = Reading::new(&source, environment, refused);
        let config = read(&reading);
        let warnings = reading.findings.into_inner().conclude()?;
        Ok(Loaded { config, warnings })
    }

    /// Reads an `mcpServers` file of a desktop client: its servers, and the defaults for the rest. `${NAME}`,
    /// `${NAME:-default}` and `${env:NAME}` in `command`, `args`, `env` and `cwd` are replaced by variables of
    /// `environment`. A server gets the variables of its `env`, and `PATH` and `HOME` of `environment`. A name that
    /// cannot stand in a URL is replaced, with a warning. Variables `SLUICE__SECTION__KEY` override defaults, as in
    /// [`load`](Self::load).
    ///
    /// Nobody may call until the caller fills in `auth`, for the tenant [`TenantId::fallback`].
    ///
    /// # Errors
    /// All problems at once, each with its file and line.
    pub fn from_mcp_servers(path: &Path, environment: &Environment) -> Result<Loaded, Problems> {
        let (source, refused) = Source::of_text(path, String::new(), environment)?;
        let reading = Reading::new(&source, environment, refused);
        let servers = mcp_servers::read(path, environment, &mut reading.findings.borrow_mut())?;
        let base = Self { own: reading.own.take(), ..Self::for_servers(servers) };
        let config = Section::root(&reading, |root| general(root, base));
        admin(&reading, &config);
        let warnings = reading.findings.into_inner().conclude()?;
        Ok(Loaded { config, warnings })
    }

    /// A configuration without a file: these servers, the defaults, and the tenant [`TenantId::fallback`], which may
    /// use all of them. A single server is the default server. Nobody may call until the caller fills in `auth`.
    pub fn for_servers(servers: impl IntoIterator<Item = Server>) -> Self {
        let servers: BTreeMap<_, _> =
            servers.into_iter().map(|server| (server.name.clone(), Arc::new(server))).collect();
        Self {
            http: Http::default(),
            admin: Some(ADMIN),
            log: Log::default(),
            drain_timeout: DRAIN_TIMEOUT,
            spawn_concurrency: SPAWN_CONCURRENCY,
            sessions: Sessions::default(),
            memory_budget: memory::default(),
            auth: Auth::default(),
            tenants: BTreeMap::from([(TenantId::fallback(), Tenant::default())]),
            default_server: only(&servers),
            state_dir: None,
            own: Vec::new(),
            servers,
        }
    }
}

/// The name of the server if there is exactly one.
fn only(servers: &BTreeMap<ServerName, Arc<Server>>) -> Option<ServerName> {
    servers.keys().next().filter(|_| servers.len() == 1).cloned()
}

/// Reads the whole configuration. The result is usable only if no problem was found.
pub(super) fn read(reading: &Reading<'_>) -> Config {
    let config = Section::root(reading, |root| {
        let base = general(root, Config::for_servers([]));
        let (limits, memory_budget) = root
            .table("limits", |limits| (servers::read_limits(limits, &ChildLimits::default()), memory::read(limits)));
        let sandbox = sandbox::read(root, &Sandbox::default());
        let servers = servers::read(root, &limits, &sandbox);
        let tenants = tenants::read(root, &servers);
        Config {
            spawn_concurrency: root
                .table("children", |children| children.count("spawn_concurrency", SPAWN_CONCURRENCY, 1..=10_000)),
            auth: root.table("auth", |section| auth::read(section, &base.http, &tenants)),
            default_server: default_server(root, &servers),
            state_dir: state_dir(root),
            memory_budget,
            own: reading.own.take(),
            tenants,
            servers,
            ..base
        }
    });
    whole(reading, &config);
    config
}

/// Reads the tables that have nothing to do with tenants and servers, whose keys variables may override. `base` has the
/// rest.
fn general(root: &mut Section<'_>, base: Config) -> Config {
    Config {
        http: root.table("http", http::read),
        admin: root.table("admin", http::read_admin),
        log: root.table("log", log),
        drain_timeout: root.table("shutdown", |shutdown| {
            shutdown.duration("drain_timeout", DRAIN_TIMEOUT, Duration::ZERO..=Duration::from_secs(3600))
        }),
        sessions: root.table("sessions", sessions),
        ..base
    }
}

/// The first word of a filter that is no target and no level, in a filter without any level: probably a misspelt level.
fn lonely_word(filter: &str) -> Option<&str> {
    let words = || filter.split(',').map(str::trim).filter(|word| !word.is_empty());
    let is_level =
        |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word)) || word.parse::<u8>().is_ok();
    let is_part = |word: &&str| word.starts_with("sluice") || word.contains(['=', '[', ':']);
    words().find(|word| !is_part(word)).filter(|_| !words().any(is_level))
}

fn log(section: &mut Section<'_>) -> Log {
    let default = Log::default();
    let filter = section.string("filter").unwrap_or(default.filter);
    if let Err(error) = tracing_subscriber::EnvFilter::builder().parse(&filter) {
        let text = format!("not a log filter: {error}; write one, such as \"info\" or \"info,sluice=debug\"");
        section.problem("filter", text);
    }
    if let Some(word) = lonely_word(&filter) {
        let levels = LEVELS.join(", ");
        let text = format!("{word:?} is no level, so only a part of that name is logged; write one of {levels}");
        section.warning("filter", text);
    }
    Log { filter, format: section.choice("format", default.format, &FORMATS) }
}

fn sessions(s: &mut Section<'_>) -> Sessions {
    let default = Sessions::default();
    let before = s.reading.problems();
    let idle_timeouts = Duration::from_millis(10)..=Duration::from_secs(30 * 24 * 3600);
    let sessions = Sessions {
        max: s.count("max", default.max, 1..=MILLION),
        max_per_principal: s.count("max_per_principal", default.max_per_principal, 1..=MILLION),
        idle_timeout: s.duration("idle_timeout", default.idle_timeout, idle_timeouts.clone()),
        child_idle_timeout: s.optional_duration("child_idle_timeout", idle_timeouts),
    };
    if sessions.max_per_principal > sessions.max && s.reading.problems() == before {
        let key = if s.has("max_per_principal") { "max_per_principal" } else { "max" };
        let Sessions { max, max_per_principal, .. } = sessions;
        let text =
            format!("max_per_principal ({max_per_principal}) is more than max ({max}); lower one or raise the other");
        s.problem(key, text);
    }
    sessions
}

/// The configured default server, or the only server.
fn default_server(root: &mut Section<'_>, servers: &BTreeMap<ServerName, Arc<Server>>) -> Option<ServerName> {
    let Some(text) = root.string("default_server") else { return only(servers) };
    let found = servers.keys().find(|name| name.as_str() == text).cloned();
    if found.is_none() {
        root.problem("default_server", no_server(&text, servers));
    }
    found
}

/// The state directory. The gateway makes it at the start; here only the rights for that are checked.
fn state_dir(root: &mut Section<'_>) -> Option<PathBuf> {
    let text = root.nonempty("state_dir")?;
    let path = root.reading.source.folder().join(text);
    // The temporary folders of all servers may be in there.
    root.reading.owns(&KeyPath::of(&["state_dir"]), path.clone(), true);
    let there = path.ancestors().find(|path| path.symlink_metadata().is_ok()).unwrap_or(Path::new("/"));
    let why = if !there.is_dir() {
        Some(format!("{} is no folder", there.display()))
    } else if rustix::fs::statfs(there).is_ok_and(|found| OF_THE_KERNEL.contains(&found.f_type)) {
        Some(format!("{} is the kernel's, and holds no files", there.display()))
    } else {
        let access = rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK);
        access.err().map(|error| format!("the gateway may not write to {}: {error}", there.display()))
    };
    if let Some(why) = why {
        root.problem("state_dir", format!("cannot be made or used: {why}; name a folder of the gateway's own"));
    }
    Some(path)
}

/// Checks the address of the admin listener.
fn admin(reading: &Reading<'_>, config: &Config) {
    let (Some(admin), listen) = (config.admin, config.http.listen) else { return };
    let path = KeyPath::of(&["admin", "listen"]);
    if http::collide(admin, listen) {
        reading.problem(&path, format!("{admin} is taken by http.listen ({listen}); use another port"));
    }
    if !admin.ip().is_loopback() {
        reading.warning(&path, "metrics without credentials beyond this machine; let only your monitoring reach it");
    }
}

/// Warns if no proxy is named although there should be one.
fn warn_of_no_proxy(reading: &Reading<'_>, http: &Http) {
    let is_https = http.public_url.as_ref().is_some_and(|url| url.starts_with("https:"));
    let text = match http.listen.ip().is_loopback() {
        _ if !http.proxies.trusted.is_empty() => return,
        _ if is_https => "empty, though http.public_url is that of a proxy: its clients count as one; list its address",
        true => return,
        false => {
            "empty: who connects is taken for a client, and nothing is encrypted; put a proxy with TLS in front, and \
             list its address"
        }
    };
    reading.warning(&KeyPath::of(&["http", "trusted_proxies"]), text);
}

/// Checks the rules that concern several tables.
fn whole(reading: &Reading<'_>, config: &Config) {
    let http = &config.http;
    secrets::warn(reading, config);
    if config.servers.is_empty() {
        reading
            .problem(&KeyPath::of(&["servers"]), "there is no server; add one: [servers.NAME] with command and args");
    }
    if config.tenants.is_empty() {
        reading.problem(&KeyPath::of(&["tenants"]), "there is no tenant; add one: [tenants.NAME]");
    }
    admin(reading, config);
    memory::doubtful(reading, config);
    warn_of_no_proxy(reading, http);
    if !http.listen.ip().is_loopback() && http.allowed_hosts.is_empty() {
        let text = "a request for any host name is taken while this is empty; list the names that clients use";
        reading.warning(&KeyPath::of(&["http", "allowed_hosts"]), text);
    }
}
