//! `sluice guardian`, hidden: the process between the gateway and its children.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

/// Arguments. The gateway is at the other end of stdin.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the children's cgroups are
    cgroups: Option<PathBuf>,
}

/// Runs the guardian until the gateway is gone.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    crate::process::guardian(args.cgroups).context("the guardian is started by the gateway, not by hand")?;
    Ok(ExitCode::SUCCESS)
}
