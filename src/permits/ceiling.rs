//! What there is a limited number of, and who shares it.

use std::borrow::Cow;

use crate::auth::Principal;
use crate::config::{Contenders, Rivals, ServerName, TenantId};

/// Something of which there is a limited number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Ceiling {
    /// The children of a tenant (`tenants.NAME.limits.max_children`).
    Tenant(TenantId),
    /// The sessions of a tenant (`tenants.NAME.max_sessions`).
    TenantSessions(TenantId),
    /// The sessions of a principal (`sessions.max_per_principal`).
    Principal(Principal),
    /// All sessions (`sessions.max`).
    Sessions,
    /// The children of a server that somebody uses, or waits for: all but spares (`pool.max_children`). Tenants share
    /// these.
    InUse(ServerName),
    /// The children of a server, spares included (`pool.max_children`).
    Server(ServerName),
    /// Starts of children under way, over all servers (`children.spawn_concurrency`).
    Starts,
    /// Starts of spares under way, over all servers: half of `children.spawn_concurrency`.
    SpareStarts,
    /// Look-ups of the program and the working directory of a server's children.
    Lookups(ServerName),
    /// Claims that wait.
    Waiting,
}

/// One ceiling, and the largest number of units that may be taken under it.
pub type Limit = (Ceiling, usize);

impl Ceiling {
    /// The configuration key of the limit; that the limit is fixed, where no key sets it.
    pub fn key(&self) -> Cow<'static, str> {
        match self {
            Self::Tenant(tenant) => format!("tenants.{tenant}.limits.max_children").into(),
            Self::TenantSessions(tenant) => format!("tenants.{tenant}.max_sessions").into(),
            Self::Principal(_) => "sessions.max_per_principal".into(),
            Self::Sessions => "sessions.max".into(),
            Self::InUse(_) | Self::Server(_) => "pool.max_children".into(),
            Self::Starts | Self::SpareStarts => "children.spawn_concurrency".into(),
            Self::Lookups(_) | Self::Waiting => "a fixed limit".into(),
        }
    }

    /// The plural of what is counted.
    pub fn units(&self) -> &'static str {
        match self {
            Self::Tenant(_) | Self::InUse(_) | Self::Server(_) => "children",
            Self::TenantSessions(_) | Self::Principal(_) | Self::Sessions => "sessions",
            Self::Starts | Self::SpareStarts => "starts under way",
            Self::Lookups(_) => "look-ups of its program",
            Self::Waiting => "requests that wait",
        }
    }

    /// Who else may want the units under this ceiling that a principal of this tenant wants.
    pub(super) fn rivals(&self, contenders: &Contenders, tenant: &TenantId) -> Rivals {
        match self {
            Self::Principal(_) | Self::Server(_) | Self::SpareStarts => Rivals::default(),
            Self::Tenant(_) | Self::TenantSessions(_) => contenders.in_tenant(tenant),
            Self::InUse(server) | Self::Lookups(server) => contenders.for_server(server, tenant),
            Self::Sessions | Self::Starts | Self::Waiting => contenders.for_all(tenant),
        }
    }
}
