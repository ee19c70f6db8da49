//! `sluice demo`: runs a gateway for the built-in MCP server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use super::{gateway, single};
use crate::config::{SELF, Server};

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081", value_parser = gateway::address)]
    listen: SocketAddr,
    /// The folder that the built-in server may use; a temporary one for each session otherwise
    #[arg(long, value_name = "DIR")]
    workspace: Option<PathBuf>,
    #[command(flatten)]
    key: single::KeyArgs,
}

/// Runs the command.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut arguments = vec!["stdio-demo".to_owned()];
    if let Some(workspace) = args.workspace {
        let workspace = std::path::absolute(workspace)?;
        // The server could not make it: that takes the right to write to the folder around it.
        std::fs::create_dir_all(&workspace).with_context(|| format!("cannot make {}", workspace.display()))?;
        arguments.extend(["--workspace".to_owned(), workspace.to_string_lossy().into_owned()]);
    }
    let server = Server::new("demo".parse()?, SELF, arguments);
    single::run(server, args.listen, false, &args.key, "{sluice} call {base}/sse add a=2 b=5{key}")
}
