//! Runs a gateway for one server without a configuration file, for `demo` and `run`: chooses the key, and prints how to
//! call.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::gateway::{self, reachable};
use super::terminal;
use crate::auth::NewKey;
use crate::config::{
    ApiKey, ChosenKey, Config, Environment, KEY, KEY_OPTION, Problem, SELF, Server, TenantId, key_warning,
};

/// The callers of a gateway without `auth` in its configuration.
pub(super) enum Access {
    /// Callers with this key, which was generated for this run.
    New(SecretString),
    /// Callers with the key of an option or a variable. This key is not printed.
    Chosen(ChosenKey),
    /// All callers on this machine.
    Anybody,
}

/// Runs a gateway for one server until a signal, and prints how to call it. `example` as in `announce`.
pub(super) fn run(
    server: Server,
    listen: SocketAddr,
    no_auth: bool,
    key: &KeyArgs,
    example: &'static str,
) -> anyhow::Result<ExitCode> {
    let mut config = Config::for_servers([server]);
    config.http.listen = listen;
    // A second gateway on the machine must not fail on the metrics of the first: a single server has none.
    config.admin = None;
    let mut warnings = Vec::new();
    let access = admit(&mut config, &mut warnings, no_auth, key)?;
    gateway::run(config, &warnings, gateway::by_hand(), move |public, _| announce(public, &access, example))
}

/// Adds a credential to a configuration without any: with `no_auth` anonymous access, otherwise the key of an option or
/// a variable, otherwise a new key. Adds a warning if the key is not safe where it stands.
///
/// # Errors
/// `no_auth` on a listener that is not loopback, or a key that cannot be used.
pub(super) fn admit(
    config: &mut Config,
    warnings: &mut Vec<Problem>,
    no_auth: bool,
    key: &KeyArgs,
) -> anyhow::Result<Access> {
    let (tenant, listen) = (TenantId::fallback(), config.http.listen);
    if no_auth {
        if !listen.ip().is_loopback() {
            bail!(
                "--no-auth on {listen} would let anybody on the network call; listen on 127.0.0.1, or leave it out and use a key"
            );
        }
        config.auth.anonymous = Some(tenant);
        return Ok(Access::Anybody);
    }
    Ok(match ChosenKey::of(&key.environment()).map_err(|problem| anyhow::anyhow!("{problem}"))? {
        None => {
            let new = NewKey::generate(tenant, None, Vec::new()).context("no key could be made")?;
            config.auth.keys.push(new.entry);
            Access::New(new.wire)
        }
        Some(chosen) => {
            let plain = chosen.key.expose_secret();
            config.auth.keys.push(ApiKey::from_plain(plain, tenant, "env".to_owned(), Vec::new()));
            warnings.extend(key_warning(&chosen, config));
            Access::Chosen(chosen)
        }
    })
}

/// The option for the gateway's API key.
#[derive(Debug, Default, clap::Args)]
pub(super) struct KeyArgs {
    /// A file with the API key that clients send, in place of the variables SLUICE_KEY_FILE and SLUICE_KEY
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

impl KeyArgs {
    /// The environment of this process, with the option in it under the name [`KEY_OPTION`].
    pub(super) fn environment(&self) -> Environment {
        let environment = Environment::of_process();
        match &self.key_file {
            Some(file) => environment.with(KEY_OPTION, &file.to_string_lossy()),
            None => environment,
        }
    }
}

/// The text about the key that is printed, and the argument of `--key` for a shell. `None` if no key is needed.
fn shown(access: &Access) -> (String, Option<String>) {
    match access {
        Access::Anybody => ("none: anybody on this machine may call (--no-auth)".to_owned(), None),
        Access::Chosen(ChosenKey { file: None, .. }) => (format!("the one in {KEY}"), Some(format!("${KEY}"))),
        Access::Chosen(ChosenKey { file: Some(file), .. }) => {
            let file = file.display();
            (format!("the one in {file}"), Some(format!("\"$(cat {file})\"")))
        }
        Access::New(key) => {
            let key = key.expose_secret();
            (
                format!("{key}   (for this run only; write one into a file to choose it, and give --key-file)"),
                Some(key.to_owned()),
            )
        }
    }
}

/// Prints the line about the key only.
pub(super) fn announce_key(access: &Access) {
    terminal::line(&format!("API key {}", shown(access).0));
}

/// The commands by which a shell in this folder, and a client in any folder, can start this program: its name if the
/// `PATH` has the name, otherwise the path it was called by, and its absolute path.
fn program() -> (String, String) {
    let path = Environment::of_process().get("PATH").unwrap_or_default().to_owned();
    let called = std::env::args_os().next().map(|called| called.to_string_lossy().into_owned());
    let called = called.filter(|called| called.contains('/') && !called.contains(char::is_whitespace));
    let is_found = path.split(':').any(|folder| Path::new(folder).join(SELF).is_file());
    match (called, std::env::current_exe()) {
        (Some(called), Ok(whole)) if !is_found => (called, whole.to_string_lossy().into_owned()),
        _ => (SELF.to_owned(), SELF.to_owned()),
    }
}

/// Prints the URLs of the gateway, and configurations to paste into clients. In the `example`, `{sluice}`, `{base}` and
/// `{key}` stand for this program, the URL and the argument with the key.
fn announce(public: SocketAddr, access: &Access, example: &str) {
    let base = format!("http://{}", reachable(public));
    let (sluice, whole) = program();
    let whole = Value::from(whole);
    let (key, header) = shown(access);
    let key_argument = header.as_ref().map(|key| format!(" --key {key}")).unwrap_or_default();
    let bearer = match access {
        Access::New(_) => header.unwrap_or_default(),
        // Clients take what is pasted as it is: a shell's variable would be sent by its name.
        Access::Chosen(_) => "YOUR_KEY".to_owned(),
        Access::Anybody => "-".to_owned(),
    };
    terminal::line(&format!(
        "Sluice is serving.

  Streamable HTTP  {base}/mcp
  HTTP+SSE         {base}/sse
  API key          {key}

Try it from another terminal:
  {sluice} tools {base}/mcp{key_argument}
  {example}

Paste into a client that speaks HTTP (Cursor, …):
  {{\"mcpServers\": {{\"sluice\": {{\"url\": \"{base}/mcp\", \"headers\": {{\"Authorization\": \"Bearer {bearer}\"}}}}}}}}

Or into one that speaks stdio only (Claude Desktop, …):
  {{\"mcpServers\": {{\"sluice\": {{\"command\": {whole}, \"args\": [\"connect\", \"{base}/mcp\"], \"env\": {{\"SLUICE_KEY\": \"{bearer}\"}}}}}}}}
",
        example = example.replace("{sluice}", &sluice).replace("{base}", &base).replace("{key}", &key_argument),
    ));
}
