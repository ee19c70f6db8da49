//! What request handlers share.

use std::sync::Arc;

use super::guard::Guard;
use crate::auth::Authenticator;
use crate::config::{Http, Jwt};
use crate::process::Guardian;
use crate::session::Registry;
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;
use crate::tenant::Directory;
use crate::worker::Pools;

/// What request handlers share; one for each gateway, in an `Arc`.
pub struct App {
    /// The public listener's settings.
    pub http: Http,
    /// Which hosts and origins the public listener serves.
    pub guard: Guard,
    /// Which hosts and origins the admin listener serves.
    pub admin_guard: Guard,
    /// Credentials to principals.
    pub auth: Authenticator,
    /// Principals to servers.
    pub directory: Directory,
    /// The sessions.
    pub sessions: Arc<Registry>,
    /// The children.
    pub pools: Arc<Pools>,
    /// What starts children, and knows how many processes there are.
    pub guardian: Guardian,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Whether the gateway is stopping.
    pub shutdown: Shutdown,
    /// How JWTs are validated, for what clients are told about it.
    pub jwt: Option<Jwt>,
}

impl App {
    /// The path part of the public URL, put before the paths that are handed out.
    pub fn prefix(&self) -> &str {
        let Some(url) = &self.http.public_url else { return "" };
        let after_scheme = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        after_scheme.find('/').and_then(|slash| after_scheme.get(slash..)).unwrap_or_default().trim_end_matches('/')
    }

    /// Whether a new session would be served now.
    pub fn is_ready(&self) -> bool {
        !self.shutdown.drain.is_cancelled() && self.sessions.has_room()
    }
}
