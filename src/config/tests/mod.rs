//! What the tests share: configurations as text, in files of their own, with an environment of their own.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod broken;
mod documented;
mod layers;
mod mcp_servers;
mod references;
mod sandbox;
mod tenants;
mod units;

use std::path::PathBuf;

use secrecy::ExposeSecret as _;

use super::{Config, Environment, Loaded, Place, Problem, Problems, Server};

/// The least that is valid, to put more in front of or after.
const LEAST: &str = "[auth]\nanonymous = 'a'\n[tenants.a]\n[servers.s]\ncommand = 'sh'\n";

/// A folder with a configuration file in it.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path
    }

    fn load(&self, text: &str, environment: &Environment) -> Result<Loaded, Problems> {
        Config::load(&self.write("sluice.toml", text), environment)
    }
}

fn load(text: &str) -> Result<Loaded, Problems> {
    Files::new().load(text, &Environment::default())
}

#[track_caller]
fn valid(text: &str) -> Config {
    load(text).unwrap_or_else(|problems| panic!("not valid:\n{problems}")).config
}

fn environment(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().copied().collect()
}

/// Where a problem is and with what key: `LINE key` or `VARIABLE key`.
fn place(problem: &Problem) -> String {
    let place = match &problem.place {
        Place::File(_, line) => line.map_or("-".to_owned(), |line| line.to_string()),
        Place::Variable(name) => name.clone(),
    };
    format!("{place} {}", problem.key)
}

/// The environment of a child, in the open.
fn exposed(server: &Server) -> Vec<(&str, &str)> {
    server.env.iter().map(|(name, value)| (name.as_str(), value.expose_secret())).collect()
}
