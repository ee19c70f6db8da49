//! `sluice serve`: runs the gateway that a configuration file describes.

use std::net::SocketAddr;
use std::process::ExitCode;

use super::check::Source;
use super::gateway::{self, reachable};
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
    let access = match args.source.is_mcp_servers() {
        true => Some(single::admit(&mut config, &mut warnings, false, &args.key)?),
        false => None,
    };
    gateway::run(config, &warnings, Hangup::GoOn, move |public, admin| {
        access.iter().for_each(single::announce_key);
        terminal::line(&format!("Sluice is serving http://{}", reachable(public)));
        if let Some(admin) = admin {
            terminal::line(&format!("metrics on http://{admin}/metrics"));
        }
    })
}
