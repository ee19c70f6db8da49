//! `sluice health`: asks a gateway whether it is alive. For the health check of a container without another HTTP
//! client.

use std::process::ExitCode;
use std::time::Duration;

use super::{client, terminal};

/// The longest time for the answer, shorter than the time-out of container engines for a check.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 the gateway answered 200; 1 it did not, within 3 seconds; 2 the command line is wrong."
)]
pub struct Args {
    /// What to ask; /healthz where the URL has no path
    #[arg(env = "SLUICE_URL", default_value = "http://127.0.0.1:8081/healthz", value_parser = client::Unshown(client::parse_url))]
    url: reqwest::Url,
}

/// Asks a URL, with `/healthz` for the path `/`, and prints whether the gateway is alive. The exit code is 1 if not.
pub fn run(mut args: Args) -> anyhow::Result<ExitCode> {
    if args.url.path() == "/" {
        args.url.set_path("/healthz");
    }
    let shown = client::display(&args.url);
    Ok(match client::block_on(ask(args.url))? {
        Ok(()) => {
            terminal::line(&format!("alive: {shown}"));
            ExitCode::SUCCESS
        }
        Err(reason) => {
            terminal::line(&format!("not alive: {shown}: {reason}"));
            ExitCode::FAILURE
        }
    })
}

/// Requests a URL. The error is the reason why the answer is not 200.
async fn ask(url: reqwest::Url) -> Result<(), String> {
    let http = client::http_client(&url).map_err(|error| error.to_string())?;
    let response = http.get(url).timeout(TIMEOUT).send().await.map_err(|error| client::reason(&error))?;
    if response.status() == reqwest::StatusCode::OK { Ok(()) } else { Err(response.status().to_string()) }
}
