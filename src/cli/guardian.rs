//! `sluice guardian`, hidden: the process that starts and reaps the children of a gateway.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use nix::sys::signal::{SigSet, Signal};

use crate::shutdown::caught;
use crate::telemetry::say_panics;

/// Arguments. Stdin is a socket to the gateway.
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

/// Blocks the signals that the gateway catches. A signal to all processes of that name, or of a service, is for the
/// gateway, which needs the guardian for its drain. SIGKILL ends the guardian alone. A stage unblocks the signals
/// before it becomes a server.
fn ignore_signals() -> nix::Result<()> {
    SigSet::from_iter(caught().filter_map(|number| Signal::try_from(number).ok())).thread_block()
}
