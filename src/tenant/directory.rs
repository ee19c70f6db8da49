//! Finds the server for a principal. A server that the tenant may not use looks like a server that does not exist, so
//! guessing names reveals nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::auth::Principal;
use crate::config::{Config, ServerName, Tenant, TenantId};
use crate::memory::{Account, Memory};
use crate::pool::{Deployment, Deployments};

/// The reason why a principal may not use a server.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The credential is valid, but the configuration has no such tenant.
    #[error("the tenant \"{0}\" of this credential is not configured on this gateway ([tenants.{0}])")]
    UnknownTenant(TenantId),
    /// The tenant has no server of this name.
    #[error("there is no server \"{0}\" for you here")]
    NoServer(String),
    /// The request names no server, and the configuration has no default server.
    #[error("no server is the default here: use /servers/NAME/…")]
    NoDefault,
}

/// The server that a principal may use.
pub struct Admission<'a> {
    /// The server, with its pool.
    pub deployment: &'a Arc<Deployment>,
    /// The largest number of sessions of the tenant. `None` without a limit.
    pub max_sessions: Option<usize>,
    /// The account of the tenant, to which is charged what the gateway holds for the principal.
    pub account: &'a Account,
}

/// The tenants and servers of a configuration.
pub struct Directory {
    /// The tenants, each with the account of its bytes.
    tenants: BTreeMap<TenantId, (Tenant, Account)>,
    servers: Deployments,
    default_server: Option<ServerName>,
}

impl Directory {
    /// Builds the directory of a configuration. `servers` are the deployments of its servers. Sets the limits that the
    /// tenants have in `memory`.
    pub fn new(config: &Config, servers: Deployments, memory: &Memory) -> Self {
        let with_account = |(name, tenant): (&TenantId, &Tenant)| {
            let account = memory.tenant(name.as_str());
            account.set_limit(tenant.memory_budget);
            (name.clone(), (tenant.clone(), account))
        };
        let tenants = config.tenants.iter().map(with_account).collect();
        Self { tenants, servers, default_server: config.default_server.clone() }
    }

    /// All deployed servers.
    pub fn servers(&self) -> &Deployments {
        &self.servers
    }

    /// Finds the server with this name, or the default server, for a principal.
    pub fn admit(&self, principal: &Principal, name: Option<&str>) -> Result<Admission<'_>, Refusal> {
        let (tenant, account) =
            self.tenants.get(principal.tenant()).ok_or_else(|| Refusal::UnknownTenant(principal.tenant().clone()))?;
        let name = match (name, &self.default_server) {
            (Some(name), _) => name,
            (None, Some(name)) => name.as_str(),
            (None, None) => return Err(Refusal::NoDefault),
        };
        let allowed =
            tenant.servers.as_ref().is_none_or(|servers| servers.iter().any(|server| server.as_str() == name));
        match self.servers.get(name) {
            Some(deployment) if allowed => Ok(Admission { deployment, max_sessions: tenant.max_sessions, account }),
            _ => Err(Refusal::NoServer(name.chars().take(64).collect())),
        }
    }
}
