//! What `demo`, `run` and `serve` have in common: a runtime, signals, and a gateway that runs until they come.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::config::Config;
use crate::gateway::{Gateway, Host};
use crate::process::cgroup::Subtree;
use crate::process::sandbox::{Kernel, conceal, openness};
use crate::process::{self, Enforcement};
use crate::shutdown::{Shutdown, Signals};
use crate::telemetry::init_logs;

/// Where a running gateway listens.
pub(super) struct Addresses {
    /// The public listener.
    pub(super) public: SocketAddr,
    /// The admin listener.
    pub(super) admin: Option<SocketAddr>,
}

/// Reads an address to listen on.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "not an IP address and a port; write one, such as 127.0.0.1:8081".to_owned())
}

/// Runs a gateway until a signal. `announce` is called once it listens.
pub(super) fn run(config: Config, announce: impl FnOnce(&Addresses)) -> anyhow::Result<ExitCode> {
    init_logs(&config.log);
    conceal().context("the gateway's memory cannot be made its own")?;
    let cgroups = prepare(&config);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the runtime could not be started")?;
    runtime.block_on(async {
        let shutdown = Shutdown::default();
        let signals = Signals::new().context("signals cannot be caught")?;
        let host = Host::alone().with_cgroups(cgroups);
        let gateway = Gateway::bind(config, shutdown.clone(), host).await?;
        let addresses = Addresses { public: gateway.address(), admin: gateway.admin_address() };
        tokio::spawn(signals.watch(shutdown));
        announce(&addresses);
        gateway.run().await;
        Ok(ExitCode::SUCCESS)
    })
}

/// Clears up after a gateway that was killed, and says for each server what holds for it on this machine. Returns where
/// children get cgroups.
fn prepare(config: &Config) -> Option<Subtree> {
    let subtree = Subtree::prepare().unwrap_or_else(|error| {
        tracing::warn!(%error, "children get no cgroups");
        None
    });
    let cgroups = subtree.as_ref().map(Subtree::support).unwrap_or_default();
    tracing::info!(
        path = subtree.as_ref().map(|subtree| tracing::field::display(subtree.path().display())),
        "cgroups: {cgroups}"
    );
    let kernel = Kernel::probe();
    for server in config.servers.values() {
        let Enforcement { sandbox, limits, lacking, is_refused } = process::enforcement(server, kernel, cgroups.keeps);
        let name = &server.name;
        let openness = openness(server, &config.own);
        let open = openness.as_ref().map(|openness| &openness.open);
        tracing::info!(server = %name, sandbox, open, limits, "server configured");
        for warning in openness.iter().flat_map(|openness| &openness.warnings) {
            tracing::warn!(server = %name, "{warning}");
        }
        for part in lacking {
            match is_refused {
                true => {
                    tracing::error!(server = %name, "will not be started (require_sandbox): this machine lacks {part}")
                }
                false => tracing::warn!(server = %name, "is not enforced on this machine: {part}"),
            }
        }
    }
    if let Some(who) = process::run_as_root(config) {
        tracing::warn!("servers run {who}");
    }
    for (name, tenant) in &config.tenants {
        let Some(Enforcement { limits, lacking, .. }) = process::tenant_enforcement(tenant, cgroups.keeps) else {
            continue;
        };
        tracing::info!(tenant = %name, limits, "tenant configured");
        lacking.iter().for_each(|part| tracing::warn!(tenant = %name, "is not enforced on this machine: {part}"));
    }
    subtree
}

/// A host and port that a client on this machine can use.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => SocketAddr::from(([127, 0, 0, 1], v4.port())),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, v6.port())),
        other => other,
    }
}
