//! What one configuration decides about requests. A handler reads one snapshot for the whole of a request, so that a
//! request is judged by one configuration; the gateway replaces the snapshot as a whole.

use std::time::Duration;

use super::guard::Guard;
use crate::auth::{Authenticator, Principal};
use crate::config::{Config, Http, Jwt, ServerName, Sessions};
use crate::pool::{Deployments, Pools};
use crate::stream;
use crate::tenant::Directory;

/// Whether each listener is bound to a loopback address. The guard of such a listener serves loopback and listed hosts
/// only.
#[derive(Debug, Clone, Copy)]
pub struct Loopback {
    /// The public listener.
    pub public: bool,
    /// The admin listener; true without one.
    pub admin: bool,
}

impl Loopback {
    /// Whether the configured address of each listener is a loopback address.
    pub fn of(config: &Config) -> Self {
        Self {
            public: config.http.listen.ip().is_loopback(),
            admin: config.admin.is_none_or(|address| address.ip().is_loopback()),
        }
    }
}

/// What one configuration decides about requests.
pub struct Snapshot {
    /// The section `[http]`: bounds and times of requests and streams, and the public URL.
    pub http: Http,
    /// Hosts and origins that the public listener serves.
    pub guard: Guard,
    /// Hosts and origins that the admin listener serves.
    pub admin_guard: Guard,
    /// Finds the principal of a credential.
    pub auth: Authenticator,
    /// Rules for JWTs, from which the RFC 9728 metadata is made.
    pub jwt: Option<Jwt>,
    /// Finds the server for a principal.
    pub directory: Directory,
    /// Limits on sessions.
    pub sessions: Sessions,
}

impl Snapshot {
    /// Puts a configuration in force in place of the `previous` one: builds its snapshot, deploys its servers among
    /// `pools`, and sets the memory budget and the limits of its tenants. The caller makes `auth` from the same
    /// configuration first, because that can fail. Writes limits to cgroups, so threads that serve must not call this
    /// function.
    pub fn new(
        config: &Config,
        auth: Authenticator,
        loopback: Loopback,
        pools: &Pools,
        previous: Option<&Self>,
    ) -> Self {
        let none = Deployments::new();
        let deployments = pools.deploy(config, previous.map_or(&none, |previous| previous.directory.servers()));
        Self {
            auth,
            guard: Guard::new(&config.http, loopback.public),
            admin_guard: Guard::new(&config.http, loopback.admin),
            directory: Directory::new(config, deployments, pools.memory()),
            http: config.http.clone(),
            jwt: config.auth.jwt.clone(),
            sessions: config.sessions.clone(),
        }
    }

    /// The path of the public URL, without a slash at its end; empty without a public URL. URLs that the gateway tells
    /// clients have this path before the paths of its endpoints.
    pub fn prefix(&self) -> &str {
        let Some(url) = &self.http.public_url else { return "" };
        let after_scheme = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        after_scheme.find('/').and_then(|slash| after_scheme.get(slash..)).unwrap_or_default().trim_end_matches('/')
    }

    /// The time for which a session of this principal and server may be unused. `None` if the principal is no longer
    /// known or may not use the server any more.
    pub fn patience(&self, principal: &Principal, server: &ServerName) -> Option<Duration> {
        let may_call = self.auth.knows(principal) && self.directory.admit(principal, Some(server.as_str())).is_ok();
        may_call.then_some(self.sessions.idle_timeout)
    }

    /// The bounds of one stream: the numbers of messages and bytes that may wait for the client.
    pub fn stream(&self) -> stream::Budget {
        stream::Budget { messages: self.http.stream_messages, bytes: self.http.stream_bytes }
    }
}
