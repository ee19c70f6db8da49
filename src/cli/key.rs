//! `sluice key`: generates an API key, and prints the key and its hashed entry for the configuration.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use secrecy::ExposeSecret as _;
use serde_json::json;
use toml_edit::{Array, value};

use super::terminal;
use crate::auth::NewKey;
use crate::config::TenantId;
use crate::text::hex;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a key: prints it once, and the hashed entry for the configuration
    New(New),
}

#[derive(Debug, clap::Args)]
struct New {
    /// The tenant that the key acts for
    #[arg(long)]
    tenant: TenantId,
    /// Who holds the key [default: the key's public prefix]
    #[arg(long)]
    subject: Option<String>,
    /// What the key may do; may be repeated
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Print key and entry as one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let KeyCommand::New(args) = args.command;
    let key = NewKey::generate(args.tenant, args.subject, args.scopes)
        .context("the operating system gave no randomness for a key")?;
    terminal::line(&if args.json { as_json(&key) } else { as_text(&key) });
    Ok(ExitCode::SUCCESS)
}

fn as_text(key: &NewKey) -> String {
    format!(
        "# The key. It is shown this once: give it to its holder, who sends it as \"Authorization: Bearer <key>\".\n\
         {}\n\n\
         # The entry for the configuration file. It holds a hash only.\n{}",
        key.wire.expose_secret(),
        entry(key).trim_end()
    )
}

/// The entry for the configuration in TOML.
fn entry(key: &NewKey) -> String {
    let entry = &key.entry;
    let mut values = vec![
        ("prefix", value(&entry.prefix)),
        ("sha256", value(hex(&entry.sha256))),
        ("tenant", value(entry.tenant.as_str())),
        ("subject", value(&entry.subject)),
    ];
    if !entry.scopes.is_empty() {
        values.push(("scopes", value(entry.scopes.iter().collect::<Array>())));
    }
    let lines = values.into_iter().map(|(name, value)| format!("{name} = {value}\n"));
    format!("[[auth.keys]]\n{}", lines.collect::<String>())
}

fn as_json(key: &NewKey) -> String {
    let entry = &key.entry;
    json!({
        "key": key.wire.expose_secret(),
        "entry": {
            "prefix": entry.prefix,
            "sha256": hex(&entry.sha256),
            "tenant": entry.tenant.as_str(),
            "subject": entry.subject,
            "scopes": entry.scopes,
        },
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use toml_edit::DocumentMut;

    use super::*;

    fn key(subject: &str) -> NewKey {
        NewKey::generate("acme".parse().unwrap(), Some(subject.into()), vec!["mcp:call".into()]).unwrap()
    }

    #[test]
    fn the_key_is_a_line_and_the_entry_is_toml_without_it() {
        let key = key("o'neil \"ci\"");
        let text = as_text(&key);
        assert_eq!(text.lines().filter(|line| *line == key.wire.expose_secret()).count(), 1);
        let toml: DocumentMut = entry(&key).parse().unwrap();
        let entry = &toml["auth"]["keys"][0];
        assert_eq!(entry["subject"].as_str(), Some("o'neil \"ci\""));
        assert_eq!(entry["sha256"].as_str(), Some(hex(&key.entry.sha256).as_str()));
        assert_eq!(entry["scopes"][0].as_str(), Some("mcp:call"));
        assert!(text.contains("[[auth.keys]]\n"), "{text}");
        assert!(!toml.to_string().contains(key.wire.expose_secret()));
        // The whole output may be pasted: the key itself is then an error of its own line, not a silent setting.
        assert!(text.parse::<DocumentMut>().is_err());
    }

    #[test]
    fn json_has_both_parts() {
        let key = key("ci");
        let json: serde_json::Value = serde_json::from_str(&as_json(&key)).unwrap();
        assert_eq!(json["key"], key.wire.expose_secret());
        assert_eq!(json["entry"]["prefix"], key.entry.prefix.as_str());
        assert_eq!(json["entry"]["sha256"].as_str().unwrap().len(), 64);
    }
}
