//! `sluice check`: prints all problems of a configuration, or a summary of a valid one. Starts nothing.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use super::sandbox::SandboxArgs;
use super::terminal::{self, say};
use crate::config::{Config, Environment, Isolation, JwtKey, Loaded, Problem, Server, ServerName, shown_value};
use crate::process::sandbox::{Exposure, Kernel, exposure};
use crate::process::{
    Enforcement, cgroup, enforcement, may_call_the_gateway, ports_within_reach, run_as_root, tenant_enforcement,
};

/// The exit code for wrong arguments, as in clap.
const EX_USAGE: u8 = 2;
/// The exit code for an invalid configuration (`EX_CONFIG` of sysexits.h).
const EX_CONFIG: u8 = 78;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
}

/// The arguments about the configuration to read.
#[derive(Debug, clap::Args)]
pub(super) struct Source {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "config/sluice.toml")]
    config: PathBuf,
    /// An mcpServers JSON file, as desktop clients use it, in its place
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    mcp_servers: Option<PathBuf>,
    #[command(flatten)]
    sandbox: SandboxArgs,
}

impl Source {
    /// The path of the file.
    pub(super) fn path(&self) -> &Path {
        self.mcp_servers.as_ref().unwrap_or(&self.config)
    }

    /// Whether the file is given by `--mcp-servers`. Such a file does not say who may call.
    pub(super) fn is_mcp_servers(&self) -> bool {
        self.mcp_servers.is_some()
    }

    /// Reads the file, and sets the sandbox of the servers in an `mcpServers` file. Writes problems, after
    /// the warnings, to stderr. The error is the exit code.
    pub(super) fn load(&self, environment: &Environment) -> Result<Loaded, ExitCode> {
        if self.sandbox.is_given() && !self.is_mcp_servers() {
            say(
                "sluice: --sandbox and what goes with it are for --mcp-servers; a configuration file has the key sandbox",
            );
            return Err(ExitCode::from(EX_USAGE));
        }
        let read = if self.is_mcp_servers() { Config::from_mcp_servers } else { Config::load };
        let mut loaded = read(self.path(), environment).map_err(|problems| {
            warn(problems.warnings());
            let count = problems.list().len();
            let noun = if count == 1 { "problem" } else { "problems" };
            say(&format!("{problems}\n{count} {noun} in {}", self.path().display()));
            ExitCode::from(EX_CONFIG)
        })?;
        if self.is_mcp_servers() {
            for server in loaded.config.servers.values_mut().map(Arc::make_mut) {
                self.sandbox.apply(server).map_err(|error| {
                    say(&format!("sluice: {error:#}"));
                    ExitCode::from(EX_USAGE)
                })?;
            }
        }
        Ok(loaded)
    }
}

/// Runs the command. The exit code is 0 for a valid configuration that this machine can serve, and 78 otherwise.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let source = args.source;
    let Loaded { config, warnings } = match source.load(&Environment::of_process()) {
        Ok(loaded) => loaded,
        Err(code) => return Ok(code),
    };
    warn(&warnings);
    terminal::line(&format!("{} is valid", source.path().display()));
    for line in summary(&config, source.is_mcp_servers()) {
        terminal::line(&line);
    }
    Ok(enforced(&config))
}

/// Writes warnings to stderr.
fn warn(warnings: &[Problem]) {
    warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
}

/// Prints the sandbox and the limits of each server on this machine, with warnings. The exit code is 78 if a server
/// would not be started because of them, or if files open to a server let one tenant act as another.
fn enforced(config: &Config) -> ExitCode {
    let (kernel, cgroups) = (Kernel::probe(), cgroup::support());
    terminal::line(&format!("  cgroups      {cgroups}"));
    let mut code = ExitCode::SUCCESS;
    for server in config.servers.values() {
        let name = &server.name;
        let Enforcement { sandbox, limits, lacking, is_refused } = enforcement(server, kernel, cgroups.keeps);
        terminal::line(&format!("  sandbox      {name}: {sandbox}"));
        if let Some(Exposure { open, warnings, errors }) = exposure(server, &config.own, config.tenants_of(name)) {
            terminal::line(&format!("               {name}: {open}"));
            warnings.iter().for_each(|warning| say(&format!("servers.{name}: warning: {warning}")));
            errors.iter().for_each(|error| say(&format!("servers.{name}: {error}")));
            if !errors.is_empty() {
                code = ExitCode::from(EX_CONFIG);
            }
        }
        terminal::line(&format!("  limits       {name}: {limits}"));
        for part in lacking {
            let what = if is_refused { "will not be started (require_sandbox)" } else { "warning: is not enforced" };
            say(&format!("servers.{name}: {what}: {part}"));
        }
        if is_refused {
            code = ExitCode::from(EX_CONFIG);
        }
    }
    if let Some(who) = run_as_root(config) {
        say(&format!("servers: warning: run {who}"));
    }
    if let Some(whom) = may_call_the_gateway(config) {
        say(&format!("auth.anonymous: warning: {whom}"));
    }
    for port in ports_within_reach(config) {
        say(&format!("warning: {port}"));
    }
    for (name, tenant) in &config.tenants {
        if let Some(Enforcement { limits, lacking, .. }) = tenant_enforcement(tenant, cgroups.keeps) {
            terminal::line(&format!("  limits       tenant {name}: {limits}"));
            lacking.iter().for_each(|part| say(&format!("tenants.{name}: warning: is not enforced: {part}")));
        }
    }
    code
}

/// The lines of a summary of the configuration. Arguments and environments are left out, because they may contain
/// secrets. With `elsewhere` the file has no credentials.
fn summary(config: &Config, elsewhere: bool) -> Vec<String> {
    let mut lines = vec![
        format!("  clients      http://{}", config.http.listen),
        format!("  metrics      {}", config.admin.map_or("off".to_owned(), |admin| format!("http://{admin}/metrics"))),
    ];
    for server in config.servers.values() {
        let isolation = match server.isolation {
            Isolation::Session => "a child for each session",
            Isolation::Principal => "a child for each principal",
            Isolation::Tenant => "a child for each tenant",
            Isolation::Shared => "one child for all",
        };
        let default = if config.default_server.as_ref() == Some(&server.name) { ", the default" } else { "" };
        lines.push(format!("  server       {}: {} ({isolation}{default})", server.name, command(server)));
        lines.push(format!("               {}: {}", server.name, when_full(server)));
    }
    for (name, tenant) in &config.tenants {
        let servers = tenant.servers.as_ref().map_or("all servers".to_owned(), |servers| match servers.as_slice() {
            [] => "no server".to_owned(),
            names => names.iter().map(ServerName::as_str).collect::<Vec<_>>().join(", "),
        });
        lines.push(format!("  tenant       {name}: {servers}"));
    }
    let credentials = if elsewhere { "not said in such a file".to_owned() } else { credentials(config) };
    lines.push(format!("  credentials  {credentials}"));
    lines
}

/// What a server's pool does when it is full, in words.
fn when_full(server: &Server) -> String {
    let (most, queue_timeout) = (server.pool.max_children, server.pool.queue_timeout);
    let first = match server.keep_children {
        true => "idle ones are kept (keep_children)",
        false => "then idle ones end, and their sessions get others when they need them",
    };
    format!("{most} children at most; {first}; who gets none within {queue_timeout:?} is refused")
}

/// The command of a server. If there is no such program, a text that may be a secret is left out.
fn command(server: &Server) -> Cow<'_, str> {
    if server.program().is_some() { server.command.as_str().into() } else { shown_value(&server.command) }
}

/// The accepted credentials in words.
fn credentials(config: &Config) -> String {
    let count = config.auth.keys.len();
    let keys = (count > 0).then(|| format!("{count} key{}", if count == 1 { "" } else { "s" }));
    let jwt = config.auth.jwt.as_ref().map(|jwt| {
        let source = match jwt.key {
            JwtKey::Secret(_) => "a shared secret",
            JwtKey::Pem(_) => "a public key",
            JwtKey::JwksFile(_) | JwtKey::JwksUrl(_) => "a JWK set",
        };
        format!("JWT by {source}")
    });
    let anonymous =
        config.auth.anonymous.as_ref().map(|tenant| format!("anybody on this machine, as the tenant {tenant}"));
    [anonymous, keys, jwt].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::cli::parse;
    use crate::config::SandboxMode;

    /// An `ExitCode` can be compared by what it shows only.
    fn code(line: &[&str]) -> String {
        format!("{:?}", run(parse(line).unwrap()).unwrap())
    }

    #[test]
    fn a_valid_file_is_0_and_a_broken_one_78() {
        const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/sluice.toml");
        let (good, bad) = (format!("{:?}", ExitCode::SUCCESS), format!("{:?}", ExitCode::from(78)));
        assert_eq!(code(&["--config", CONFIG]), good);
        assert_eq!(code(&["--config", "/nonexistent"]), bad);
        assert_eq!(code(&["--mcp-servers", CONFIG]), bad);
        assert!(parse::<Args>(&["--config", CONFIG, "--mcp-servers", CONFIG]).is_err());
    }

    #[test]
    fn the_sandbox_of_servers_is_in_the_file_or_among_the_arguments() {
        const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/sluice.toml");
        const SERVERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/examples/mcp-servers.json");
        let usage = format!("{:?}", ExitCode::from(2));
        assert_eq!(code(&["--config", CONFIG, "--sandbox", "none"]), usage);
        assert_eq!(code(&["--mcp-servers", SERVERS, "--sandbox", "none", "--read", "/usr"]), usage);
        let source = parse::<Args>(&["--mcp-servers", SERVERS, "--sandbox", "strict"]).unwrap().source;
        let config = source.load(&Environment::of_process()).unwrap().config;
        assert!(config.servers.values().all(|server| server.sandbox.mode == SandboxMode::Strict));
    }

    #[test]
    fn the_summary_names_what_is_there_and_no_argument() {
        let mut server = crate::config::Server::new("s".parse().unwrap(), "npx", vec!["--token=hunter2".to_owned()]);
        server.env.insert("TOKEN".to_owned(), "hunter2".into());
        let mut config = Config::for_servers([server]);
        config.auth.anonymous = Some("default".parse().unwrap());
        let lines = summary(&config, false).join("\n");
        for part in ["http://127.0.0.1:8081", "s: npx (a child for each session, the default)", "default: all servers"]
        {
            assert!(lines.contains(part), "{part:?} is not in:\n{lines}");
        }
        assert!(lines.ends_with("credentials  anybody on this machine, as the tenant default"), "{lines}");
        assert!(!lines.contains("hunter2"), "{lines}");
    }
}
