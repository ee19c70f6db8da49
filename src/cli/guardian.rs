//! `sluice guardian`, hidden: the process between the gateway and its children.

use std::process::ExitCode;

use anyhow::Context as _;

/// Arguments: none. The gateway is at the other end of stdin.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

/// Runs the guardian until the gateway is gone.
pub(super) fn run(Args {}: Args) -> anyhow::Result<ExitCode> {
    crate::process::guardian().context("the guardian is started by the gateway, not by hand")?;
    Ok(ExitCode::SUCCESS)
}
