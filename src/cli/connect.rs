//! `sluice connect`: connects a client that only speaks stdio to a gateway. Only messages go to stdout.

use std::process::ExitCode;
use std::time::Duration;

use super::client;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What goes wrong with a request is its answer, a JSON-RPC error; stderr says it, too. The end of stdin ends the session.

Exit codes: 0 stdin or stdout was closed; 2 the command line is wrong; 70 stdin could not be read; 130 and 143
interrupted and terminated.")]
pub struct Args {
    /// Where the server is: a path that ends in /sse means HTTP+SSE, any other Streamable HTTP
    #[arg(value_parser = client::Unshown(client::parse_url))]
    url: reqwest::Url,
    /// How long one request may take
    #[arg(long, default_value = "10m", value_parser = crate::config::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    access: client::Access,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    Ok(client::exit_code(client::block_on(client::relay(args.url, &args.access, args.timeout))?))
}
