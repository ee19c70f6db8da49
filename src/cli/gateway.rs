//! Runs a gateway until a signal, for `demo`, `run` and `serve`.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

use crate::config::{Config, Problem};
use crate::gateway::{Gateway, Host};
use crate::process::cgroup::Subtree;
use crate::process::sandbox::{Kernel, conceal, exposure};
use crate::process::{self, Enforcement};
use crate::shutdown::{Hangup, Shutdown, Signals};
use crate::telemetry::{finish_logs, init_logs, log_panics};

/// The longest time at the end of the process for writing the last log lines, and again for work on blocking threads.
const AT_THE_END: Duration = Duration::from_secs(1);

/// Parses an address to listen on.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "not an IP address and a port; write one, such as 127.0.0.1:8081".to_owned())
}

/// Runs a gateway until a signal. Logs `warnings`. Calls `announce` with the public and the admin address when the
/// gateway listens, on another thread, because a slow reader of stdout could block the call.
pub(super) fn run(
    config: Config,
    warnings: &[Problem],
    hangup: Hangup,
    announce: impl FnOnce(SocketAddr, Option<SocketAddr>) + Send + 'static,
) -> anyhow::Result<ExitCode> {
    init_logs(&config.log).context("there is no thread for the log")?;
    log_panics();
    let serve = || {
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        conceal().context("the gateway's memory cannot be made its own")?;
        let cgroups = prepare(&config);
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.enable_all().build().context("the runtime could not be started")?;
        let done = runtime.block_on(async {
            let shutdown = Shutdown::default();
            let signals = Signals::new(hangup).context("signals cannot be caught")?;
            let gateway = Gateway::bind(config, shutdown.clone(), Host::alone(cgroups)).await?;
            let (public, admin) = (gateway.address(), gateway.admin_address());
            tokio::spawn(signals.watch(shutdown));
            let announcing = std::thread::Builder::new().name("announce".to_owned());
            announcing
                .spawn(move || announce(public, admin))
                .context("there is no thread to announce the addresses")?;
            gateway.run().await;
            Ok(ExitCode::SUCCESS)
        });
        // Work on a blocking thread, such as a look at a file system that does not answer, does not keep the process.
        runtime.shutdown_timeout(AT_THE_END);
        done
    };
    let done = serve();
    finish_logs(AT_THE_END);
    done
}

/// The meaning of SIGHUP for a command that is run by hand: a drain on a terminal, which has gone, otherwise nothing.
pub(super) fn by_hand() -> Hangup {
    use std::io::IsTerminal as _;
    let is_on_terminal =
        std::io::stdin().is_terminal() || std::io::stdout().is_terminal() || std::io::stderr().is_terminal();
    if is_on_terminal { Hangup::Drain } else { Hangup::GoOn }
}

/// Prepares the cgroups, and logs the sandbox and the limits of each server and tenant on this machine. Returns the
/// subtree for the cgroups of children, if there can be one.
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
        let exposure = exposure(server, &config.own, config.tenants_of(name));
        let open = exposure.as_ref().map(|exposure| &exposure.open);
        tracing::info!(server = %name, sandbox, open, limits, "server configured");
        for warning in exposure.iter().flat_map(|exposure| &exposure.warnings) {
            tracing::warn!(server = %name, "{warning}");
        }
        for error in exposure.iter().flat_map(|exposure| &exposure.errors) {
            tracing::error!(server = %name, "{error}");
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
    for port in process::ports_within_reach(config) {
        tracing::warn!("{port}");
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

/// The address under which a client on this machine can reach a listener: a loopback address for an unspecified one.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => SocketAddr::from(([127, 0, 0, 1], v4.port())),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, v6.port())),
        other => other,
    }
}
