//! Describes which parts of a server's sandbox and limits this machine enforces, for the log at start and for `sluice
//! check`.

use std::sync::Arc;

use super::cgroup::Controllers;
use super::limits::cores_go_to;
use super::sandbox::Kernel;
use super::temp_mount::can_mount;
use crate::config::{Config, Resources, Sandbox, SandboxMode, SandboxOpen, Server, Tenant, show_bytes, show_duration};

const NO_CPU: &str = "limits.cpu, which needs a cgroup that is delegated to the gateway";

/// What is enforced for a server or a tenant, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enforcement {
    /// The sandbox and the mechanisms that enforce it. Empty for a tenant.
    pub sandbox: String,
    /// The limits, each with the mechanism that enforces it.
    pub limits: String,
    /// What is configured and not enforced, each with the reason.
    pub lacking: Vec<String>,
    /// Whether the server will not be started because a required part is not enforced.
    pub is_refused: bool,
}

/// Describes the sandbox and limits of `server` on a machine with this kernel and these cgroup controllers.
pub fn enforcement(server: &Server, kernel: Kernel, cgroups: Controllers) -> Enforcement {
    let sandbox = &server.sandbox;
    let mut lacking = if sandbox.mode == SandboxMode::None { Vec::new() } else { kernel.lacking() };
    let is_refused = sandbox.required && !lacking.is_empty();
    if server.limits.resources.millicores.is_some() && !cgroups.cpu {
        lacking.push(NO_CPU.to_owned());
    }
    if let Some(program) = cores_go_to() {
        lacking.push(format!(
            "no cores: the kernel gives them to {program}, as the gateway's hard limit on core files is 0; \
             start it with another (ulimit -Hc, LimitCORE=infinity in systemd)"
        ));
    }
    Enforcement { sandbox: describe(sandbox, kernel), limits: limits(server, cgroups), lacking, is_refused }
}

/// Describes the limits of `tenant`; `None` if it has no limits.
pub fn tenant_enforcement(tenant: &Tenant, cgroups: Controllers) -> Option<Enforcement> {
    let children = tenant.max_children.map(|count| format!("{count} children"));
    let limits = children.into_iter().chain(parts(&tenant.limits, cgroups)).collect::<Vec<_>>().join(", ");
    let is_lacking = tenant.limits.millicores.is_some() && !cgroups.cpu;
    let lacking = is_lacking.then(|| NO_CPU.to_owned()).into_iter().collect();
    (!limits.is_empty()).then(|| Enforcement { sandbox: String::new(), limits, lacking, is_refused: false })
}

/// A warning that names the servers running as root; `None` if there are none. A sandbox takes root's privileges away,
/// but not the access to files that belong to root.
pub fn run_as_root(config: &Config) -> Option<String> {
    let is_root = |server: &&Arc<Server>| match &server.sandbox.account {
        Some(account) => account.uid == 0,
        None => rustix::process::geteuid().is_root(),
    };
    let names: Vec<_> = config.servers.values().filter(is_root).map(|server| server.name.as_str()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "as root, to whom the system's files belong: {}; start the gateway as another user, or give the servers one \
             (sandbox.user)",
            names.join(", ")
        )
    })
}

/// A warning that names the servers that can call this gateway over the network. `None` unless the configuration lets
/// everybody call it as a tenant.
pub fn may_call_the_gateway(config: &Config) -> Option<String> {
    let tenant = config.auth.anonymous.as_ref()?;
    let has_network = |server: &&Arc<Server>| server.sandbox.mode != SandboxMode::None && server.sandbox.has_network();
    let names: Vec<_> = config.servers.values().filter(has_network).map(|server| server.name.as_str()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "lets servers whose network is on call this gateway as the tenant {tenant}: {}; give out keys (auth.keys), or \
             turn their network off (sandbox.network)",
            names.join(", ")
        )
    })
}

fn describe(sandbox: &Sandbox, kernel: Kernel) -> String {
    let user = match &sandbox.account {
        Some(account) => format!("as {}", account.name),
        None if rustix::process::geteuid().is_root() => "as root, without its privileges".to_owned(),
        None => "as the gateway's user".to_owned(),
    };
    if sandbox.mode == SandboxMode::None {
        let user = if user.contains("without") { "as root" } else { &user };
        return format!("none, {user}");
    }
    let network = if sandbox.has_network() { "network on" } else { "network off" };
    let open = if sandbox.open == SandboxOpen::Listed { ", open is what is listed" } else { "" };
    let allowed: Vec<_> = sandbox.allow.iter().map(|allowance| allowance.as_str()).collect();
    let allowed = if allowed.is_empty() { String::new() } else { format!(", allowed: {}", allowed.join(" and ")) };
    format!("{}, {network}{open}, {user}{allowed}; by {}", sandbox.mode.as_str(), kernel.enforces().join(", "))
}

fn limits(server: &Server, cgroups: Controllers) -> String {
    let mut parts = parts(&server.limits.resources, cgroups);
    if server.sandbox.mode != SandboxMode::None {
        let temp = &server.limits.temp;
        let by = if temp.size.is_some() && can_mount() { "by a tmpfs" } else { "watched" };
        parts.push(format!(
            "{} and {} files in its temporary folder ({by}; in other folders that it may change as much as the disk has)",
            show_bytes(temp.bytes()),
            temp.files
        ));
    }
    parts.push("no core files".to_owned());
    parts.join(", ")
}

fn parts(limits: &Resources, cgroups: Controllers) -> Vec<String> {
    let by = |cgroup| if cgroup { "by its cgroup" } else { "watched" };
    let cpu = if cgroups.cpu { "by its cgroup" } else { "NOT enforced" };
    let parts = [
        limits.memory.map(|memory| format!("memory {} ({})", show_bytes(memory), by(cgroups.memory))),
        limits.millicores.map(|millicores| format!("{} processors ({cpu})", millicores as f64 / 1000.0)),
        limits.processes.map(|processes| format!("{processes} processes ({})", by(cgroups.pids))),
        limits.cpu_time.map(|time| format!("{} of processor time for each process", show_duration(time))),
        limits.open_files.map(|files| format!("{files} open files for each process")),
        limits.file_size.map(|size| format!("files up to {}", show_bytes(size))),
    ];
    parts.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use crate::config::Account;

    #[test]
    fn what_is_enforced_is_said_with_what_enforces_it() {
        let mut server = Server::new("s".parse().unwrap(), "sh", Vec::new());
        server.sandbox.mode = SandboxMode::Standard;
        server.limits.resources.memory = Some(64 << 20);
        server.limits.resources.millicores = Some(1500);
        let kernel = Kernel { landlock: 7, seccomp: true };
        let without = enforcement(&server, kernel, Controllers::default());
        assert!(without.sandbox.starts_with("standard, network on, as "), "{without:?}");
        assert!(without.sandbox.contains("Landlock 7"), "{without:?}");
        server.sandbox.open = SandboxOpen::Listed;
        let listed = enforcement(&server, kernel, Controllers::default());
        assert!(listed.sandbox.starts_with("standard, network on, open is what is listed, as "), "{listed:?}");
        let folder = "1GiB and 250000 files in its temporary folder (watched; in other folders that it may change as much as \
                      the disk has)";
        assert_eq!(
            without.limits,
            format!("memory 64MiB (watched), 1.5 processors (NOT enforced), {folder}, no core files")
        );
        assert!(without.lacking[0].starts_with("limits.cpu"), "{without:?}");
        let all = Controllers { memory: true, pids: true, cpu: true };
        let with = enforcement(&server, kernel, all);
        assert_eq!(
            (with.limits.as_str(), with.lacking.len()),
            (&*format!("memory 64MiB (by its cgroup), 1.5 processors (by its cgroup), {folder}, no core files"), 0)
        );
    }

    #[test]
    fn the_limits_of_a_tenant_are_said_too() {
        let mut tenant = Tenant::default();
        assert_eq!(tenant_enforcement(&tenant, Controllers::default()), None);
        tenant.max_children = Some(3);
        tenant.limits.memory = Some(64 << 20);
        tenant.limits.millicores = Some(500);
        let said = tenant_enforcement(&tenant, Controllers::default()).unwrap();
        assert_eq!(said.limits, "3 children, memory 64MiB (watched), 0.5 processors (NOT enforced)");
        assert_eq!(said.lacking.len(), 1);
    }

    #[test]
    fn who_runs_as_root_is_named() {
        let mut servers = ["a", "b"].map(|name| Server::new(name.parse().unwrap(), "sh", Vec::new()));
        let account = |uid| Account { name: String::new(), uid, gid: 0, groups: Vec::new(), home: None };
        servers[0].sandbox.account = Some(account(1));
        servers[1].sandbox.account = Some(account(0));
        let said = run_as_root(&Config::for_servers(servers.clone())).unwrap();
        assert!(said.starts_with("as root, to whom the system's files belong: b; start"), "{said}");
        servers[1].sandbox.account = Some(account(1));
        assert_eq!(run_as_root(&Config::for_servers(servers)), None);
    }

    #[test]
    fn who_may_call_the_gateway_is_named_where_anybody_may() {
        let mut servers = ["a", "b", "c"].map(|name| Server::new(name.parse().unwrap(), "sh", Vec::new()));
        servers[0].sandbox.network = Some(false);
        servers[2].sandbox.mode = SandboxMode::None;
        let mut config = Config::for_servers(servers);
        config.auth.anonymous = Some("acme".parse().unwrap());
        let said = may_call_the_gateway(&config).unwrap();
        assert!(said.contains("as the tenant acme: b; give out keys"), "{said}");
        config.auth.anonymous = None;
        assert_eq!(may_call_the_gateway(&config), None);
    }

    #[test]
    fn only_who_requires_a_part_is_refused_for_it() {
        let mut server = Server::new("s".parse().unwrap(), "sh", Vec::new());
        server.sandbox.mode = SandboxMode::Standard;
        let old = Kernel { landlock: 0, seccomp: true };
        let enforced = enforcement(&server, old, Controllers::default());
        assert!(!enforced.is_refused && enforced.lacking[0].contains("Landlock"), "{enforced:?}");
        server.sandbox.required = true;
        assert!(enforcement(&server, old, Controllers::default()).is_refused);
        server.sandbox.mode = SandboxMode::None;
        let none = enforcement(&server, old, Controllers::default());
        assert!(!none.is_refused && none.lacking.is_empty() && none.sandbox.starts_with("none"), "{none:?}");
    }
}
