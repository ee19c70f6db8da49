//! Warns of secrets that a server could read: the gateway's own API key, and secrets in the gateway's environment. The
//! memory of the gateway is closed to servers, but whatever has started the gateway has the same variables.

use super::chosen_key::ChosenKey;
use super::files::careless;
use super::model::Config;
use super::problem::Problem;
use super::reading::Reading;
use super::sandbox::SandboxMode;
use super::server::Server;

/// A warning if the file of the chosen API key is not safe from other users, or if a server could read the key in the
/// environment.
pub fn key_warning(chosen: &ChosenKey, config: &Config) -> Option<Problem> {
    let text = match &chosen.file {
        Some(file) => format!("not safe as it is: {}", careless(file, true)?),
        None => in_the_environment(config.servers.values().find(|server| reads_others(server))?),
    };
    Some(chosen.problem(text))
}

/// Adds a warning for each secret that comes from a variable, if a server that the secret is not for could read it
/// there.
pub(super) fn warn(reading: &Reading<'_>, config: &Config) {
    let about_the_key = reading.chosen_key.borrow().as_ref().and_then(|chosen| key_warning(chosen, config));
    reading.findings.borrow_mut().warnings.extend(about_the_key);
    for key in reading.from_variables.borrow().iter() {
        let is_for = |server: &Server| key.to_string().starts_with(&format!("servers.{}.", server.name));
        if let Some(server) = config.servers.values().find(|server| reads_others(server) && !is_for(server)) {
            reading.warning(key, in_the_environment(server));
        }
    }
}

/// Whether a server can look into other processes of the gateway's user.
fn reads_others(server: &Server) -> bool {
    server.sandbox.mode == SandboxMode::None && server.sandbox.account.is_none()
}

/// The text of a warning that `server` may read a secret in the environment.
fn in_the_environment(server: &Server) -> String {
    format!(
        "a secret in the environment of whatever has started the gateway, where the server {} may read it (its sandbox is \
         \"none\"); keep it in a file that is named instead",
        server.name
    )
}
