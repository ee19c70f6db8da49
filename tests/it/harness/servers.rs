//! What a test's gateway serves, and to whom.

use std::path::PathBuf;
use std::time::Duration;

use sluice::config::{ApiKey, Config, Server, TenantId};

/// The scripted server, built as an example of this package.
pub(crate) fn fixture_path() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(|deps| deps.parent()).unwrap().join("examples/fixture");
    assert!(path.is_file(), "{} is not there: run `cargo build --examples` first", path.display());
    path
}

/// The server `fixture` that runs the fixture in a mode: `echo`, `flood 1000`, … (see tests/fixtures/fixture.rs).
pub(crate) fn fixture(mode: &str) -> Server {
    let arguments = mode.split_whitespace().map(str::to_owned).collect();
    let mut server = Server::new("fixture".parse().unwrap(), fixture_path().to_string_lossy(), arguments);
    server.limits.start_timeout = Duration::from_secs(20);
    server
}

/// The same server under another name.
pub(crate) fn named(name: &str, mut server: Server) -> Server {
    server.name = name.parse().unwrap();
    server
}

/// Adds a key for a subject of a tenant, and the tenant where it is new; returns the key. Nobody is anonymous any more.
pub(crate) fn key(config: &mut Config, tenant: &str, subject: &str) -> String {
    let tenant: TenantId = tenant.parse().unwrap();
    config.auth.anonymous = None;
    config.tenants.entry(tenant.clone()).or_default();
    let key = format!("slk_{}_{tenant}-{subject}-secret", config.auth.keys.len());
    config.auth.keys.push(ApiKey::from_plain(&key, tenant, subject.to_owned(), Vec::new()));
    key
}
