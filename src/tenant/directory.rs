//! Finds the server for a principal. What a tenant may not use does not exist for it: nothing is learnt by guessing names.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::auth::Principal;
use crate::config::{Config, Server, ServerName, Tenant, TenantId};

/// Why a principal gets no server.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The credential is good, its tenant is not known here.
    #[error("the tenant \"{0}\" of this credential is not configured on this gateway ([tenants.{0}])")]
    UnknownTenant(TenantId),
    /// No such server, for this tenant.
    #[error("there is no server \"{0}\" for you here")]
    NoServer(String),
    /// No server was named, and none is the default.
    #[error("no server is the default here: use /servers/NAME/…")]
    NoDefault,
}

/// What a principal gets.
#[derive(Debug)]
pub struct Admission<'a> {
    /// The server.
    pub server: &'a Arc<Server>,
    /// Sessions that the tenant may have.
    pub max_sessions: Option<usize>,
}

/// The tenants and servers of a configuration.
#[derive(Debug)]
pub struct Directory {
    tenants: BTreeMap<TenantId, Tenant>,
    servers: BTreeMap<ServerName, Arc<Server>>,
    default_server: Option<ServerName>,
}

impl Directory {
    /// The directory of a configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            tenants: config.tenants.clone(),
            servers: config.servers.clone(),
            default_server: config.default_server.clone(),
        }
    }

    /// Finds the named server, or the default one, for a principal.
    pub fn admit(&self, principal: &Principal, name: Option<&str>) -> Result<Admission<'_>, Refusal> {
        let tenant =
            self.tenants.get(principal.tenant()).ok_or_else(|| Refusal::UnknownTenant(principal.tenant().clone()))?;
        let name = match (name, &self.default_server) {
            (Some(name), _) => name,
            (None, Some(name)) => name.as_str(),
            (None, None) => return Err(Refusal::NoDefault),
        };
        let allowed =
            tenant.servers.as_ref().is_none_or(|servers| servers.iter().any(|server| server.as_str() == name));
        match self.servers.get(name) {
            Some(server) if allowed => Ok(Admission { server, max_sessions: tenant.max_sessions }),
            _ => Err(Refusal::NoServer(name.chars().take(64).collect())),
        }
    }
}
