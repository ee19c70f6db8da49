//! `sluice stage`, hidden: the process that becomes a server.

use std::process::ExitCode;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The process that started this one
    parent: i32,
}

/// Becomes the server. Returns only where that failed.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    Ok(crate::process::stage(args.parent))
}
