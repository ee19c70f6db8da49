//! The built-in defaults of the configuration, for configuration files and for the commands without a file.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::model::{Http, Jwt, JwtKey, Log, LogFormat, Sessions};
use super::server::{ChildLimits, Resources, TempLimits};

const MIB: usize = 1 << 20;

/// The default address of the admin listener.
pub(super) const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9081);
/// The default of `shutdown.drain_timeout`.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
/// The default of `children.spawn_concurrency`.
pub(super) const SPAWN_CONCURRENCY: usize = 8;
/// The default of `auth.jwt.leeway`.
pub(super) const JWT_LEEWAY: Duration = Duration::from_secs(30);
/// The default claims of a JWT with tenant, subject and scopes.
pub(super) const TENANT_CLAIM: &str = "tenant";
pub(super) const SUBJECT_CLAIM: &str = "sub";
pub(super) const SCOPE_CLAIM: &str = "scope";

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)),
            public_url: None,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            max_connections: 10_000,
            max_connections_per_address: None,
            proxies: Arc::default(),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            max_body: 16 * MIB,
            max_depth: 128,
            max_batch: 64,
            keep_alive: Duration::from_secs(15),
            slow_client_timeout: Duration::from_secs(30),
            stream_messages: 1024,
            stream_bytes: 4 * MIB,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Auto }
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            max: 10_000,
            max_per_principal: 100,
            idle_timeout: Duration::from_secs(30 * 60),
            child_idle_timeout: None,
        }
    }
}

impl Default for ChildLimits {
    fn default() -> Self {
        Self {
            // A cold `npx` or `uvx` downloads the server first.
            start_timeout: Duration::from_secs(120),
            call_timeout: Duration::from_secs(10 * 60),
            cancel_grace: None,
            harakiri: None,
            ping_interval: Some(Duration::from_secs(60)),
            // Long enough for a child that has been swapped out, on a machine that is busy with others.
            ping_timeout: Duration::from_secs(30),
            stdin_grace: Duration::from_secs(2),
            term_grace: Duration::from_secs(3),
            max_line: 16 * MIB,
            max_in_flight: 1024,
            stdin_queue: 32 * MIB,
            stderr_tail: 20,
            resources: Resources::default(),
            temp: TempLimits::default(),
        }
    }
}

impl TempLimits {
    /// The default limit on the size of a temporary folder, in bytes.
    pub const SIZE: usize = 1 << 30;

    /// The largest size of a temporary folder, in bytes: as configured, or the default.
    pub fn bytes(&self) -> usize {
        self.size.unwrap_or(Self::SIZE)
    }
}

impl Default for TempLimits {
    fn default() -> Self {
        Self { size: None, files: 250_000 }
    }
}

impl Jwt {
    /// The settings for tokens of one issuer and one audience, with a key for one algorithm. The rest are the defaults.
    pub fn new(key: JwtKey, algorithm: jsonwebtoken::Algorithm, issuer: &str, audience: &str) -> Self {
        Self {
            algorithms: vec![algorithm],
            key,
            issuers: vec![issuer.to_owned()],
            audiences: vec![audience.to_owned()],
            leeway: JWT_LEEWAY,
            tenant_claim: TENANT_CLAIM.to_owned(),
            subject_claim: SUBJECT_CLAIM.to_owned(),
            scope_claim: SCOPE_CLAIM.to_owned(),
            required_scopes: Vec::new(),
            authorization_servers: Vec::new(),
        }
    }
}
