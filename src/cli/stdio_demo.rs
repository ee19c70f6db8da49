//! `sluice stdio-demo`: the built-in MCP server on stdin and stdout. Only messages go to stdout; logs go to stderr.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use crate::config::RUNNING;
use crate::demo::{Runner, Toolbox, Workspace, serve};
use crate::process::sandbox::PROGRAMS;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The only folder that the tools reach; made where it is missing. Without it, a temporary one that is removed at
    /// the end
    #[arg(long, value_name = "DIR")]
    workspace: Option<PathBuf>,
}

/// Runs the server until stdin closes, or until SIGTERM or SIGINT.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    // A stderr that takes nothing ends no server: the formatter would panic about it.
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).log_internal_errors(false).init();
    let workspace = match &args.workspace {
        Some(folder) => Workspace::open(folder)?,
        None => Workspace::private()?,
    };
    let runner = Runner::new(RUNNING.into(), PROGRAMS);
    let toolbox = Arc::new(Toolbox { workspace, runner });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            outcome = serve(tokio::io::stdin(), tokio::io::stdout(), Arc::clone(&toolbox)) => outcome.map_err(Into::into),
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    });
    // Drops every call, and with it what it started; does not wait for the thread that sits in read(0).
    runtime.shutdown_background();
    drop(toolbox);
    outcome.map(|()| ExitCode::SUCCESS)
}
