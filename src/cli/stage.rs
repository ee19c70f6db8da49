//! `sluice stage`, hidden: the process that takes an order on stdin and becomes a server.

use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The process that started this one
    parent: i32,
    /// The cgroup to enter
    cgroup: Option<PathBuf>,
}

/// Becomes the server. Returns only if that failed.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    crate::telemetry::say_panics();
    Ok(crate::process::stage(args.parent, args.cgroup.as_deref()))
}
