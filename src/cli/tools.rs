//! `sluice tools`: prints the tools of the server behind a URL.

use std::process::ExitCode;
use std::time::Duration;

use super::{client, terminal};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = client::EXIT_CODES)]
pub struct Args {
    /// Where the server is: a path that ends in /sse means HTTP+SSE, any other Streamable HTTP
    #[arg(value_parser = client::Unshown(client::parse_url))]
    url: reqwest::Url,
    /// Print the result of tools/list as JSON
    #[arg(long)]
    json: bool,
    /// How long all of it may take
    #[arg(long, default_value = "60s", value_parser = crate::config::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    access: client::Access,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let catalog = client::converse(args.url, &args.access, args.timeout, client::list_tools);
    let outcome = client::block_on(catalog)?.map(|catalog| {
        if args.json {
            terminal::foreign_line(&catalog.raw);
        } else {
            let tools: Vec<String> = catalog.tools.iter().map(|tool| tool.describe()).collect();
            let none = "this server has no tools".to_owned();
            terminal::foreign_line(&if tools.is_empty() { none } else { tools.join("\n\n") });
        }
        0
    });
    Ok(client::exit_code(outcome))
}
