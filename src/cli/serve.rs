//! `sluice serve`: runs the gateway that a configuration file describes.

use std::net::SocketAddr;
use std::process::ExitCode;

use super::check::Source;
use super::gateway::{self, Addresses, reachable};
use super::{single, terminal};
use crate::config::Loaded;
use crate::shutdown::Hangup;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// Where to listen, in place of what the file says
    #[arg(long, value_name = "ADDRESS", value_parser = gateway::address)]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    key: single::KeyArgs,
}

/// Runs the command. The exit code is 78 if the configuration is invalid.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Loaded { mut config, mut warnings } = match args.source.load(&args.key.environment()) {
        Ok(loaded) => loaded,
        Err(code) => return Ok(code),
    };
    if let Some(listen) = args.listen {
        if config.auth.anonymous.is_some() && !listen.ip().is_loopback() {
            anyhow::bail!(
                "auth.anonymous on {listen} would let anybody on the network call; add keys, or listen on 127.0.0.1"
            );
        }
        config.http.listen = listen;
    }
    if args.source.is_mcp_servers() {
        let access = single::admit(&mut config, &mut warnings, false, &args.key)?;
        return gateway::run(config, &warnings, Hangup::GoOn, move |addresses| {
            single::announce_key(&access);
            announce(addresses);
        });
    }
    gateway::run(config, &warnings, Hangup::GoOn, announce)
}

/// Prints the addresses.
fn announce(addresses: &Addresses) {
    terminal::line(&format!("Sluice is serving http://{}", reachable(addresses.public)));
    if let Some(admin) = addresses.admin {
        terminal::line(&format!("metrics on http://{admin}/metrics"));
    }
}
