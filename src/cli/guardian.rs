//! `sluice guardian`, hidden: the process between the gateway and its children.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use nix::sys::signal::{SigSet, Signal};

use crate::telemetry::say_panics;

/// Arguments. The gateway is at the other end of stdin.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the children's cgroups are
    cgroups: Option<PathBuf>,
}

/// Runs the guardian until the gateway is gone.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    say_panics();
    ignore_signals().context("signals cannot be blocked")?;
    crate::process::guardian(args.cgroups).context("the guardian is started by the gateway, not by hand")?;
    Ok(ExitCode::SUCCESS)
}

/// The guardian ends when the gateway does, and only then: the gateway may have calls in flight. A signal to all processes of that name, or of a service, is for
/// the gateway: it still needs the guardian, for its drain. Whoever means the guardian sends SIGKILL. A stage
/// takes this back before it becomes a server.
fn ignore_signals() -> nix::Result<()> {
    use Signal::{
        SIGALRM, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGPWR, SIGQUIT, SIGSTKFLT, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM,
        SIGXCPU, SIGXFSZ,
    };
    SigSet::from_iter([
        SIGALRM, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGPWR, SIGQUIT, SIGSTKFLT, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM,
        SIGXCPU, SIGXFSZ,
    ])
    .thread_block()
}
