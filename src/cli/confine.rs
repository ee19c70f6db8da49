//! `sluice confine`, hidden: restricts its process, and becomes the program that the built-in server's `run_command`
//! runs.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use crate::demo::confine;
use crate::process::sandbox;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The path of the program, and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Runs the command. Returns only if the program could not be executed.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let restrict = || sandbox::enclose_in(Path::new(".")).map_err(|error| error.to_string());
    Ok(confine::run(&args.command, restrict))
}
