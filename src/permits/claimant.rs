//! Who claims something.

use crate::auth::Principal;
use crate::config::TenantId;

/// Who claims: whose turn it is, and for whom the units count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimant {
    principal: Option<Principal>,
    is_charged: bool,
}

impl Claimant {
    /// A principal, for whom the units count.
    pub fn of(principal: &Principal) -> Self {
        Self { principal: Some(principal.clone()), is_charged: true }
    }

    /// A principal who claims what all tenants use: the units count for nobody, and no share bounds them.
    pub fn for_everybody(principal: &Principal) -> Self {
        Self { principal: Some(principal.clone()), is_charged: false }
    }

    /// The gateway itself. The units count for nobody, and no share bounds them.
    pub fn nobody() -> Self {
        Self { principal: None, is_charged: false }
    }

    /// The tenant in whose turn the claim is served.
    pub(super) fn tenant(&self) -> Option<&TenantId> {
        self.principal.as_ref().map(Principal::tenant)
    }

    /// The principal for whom the units count; `None` if they count for nobody.
    pub fn charged(&self) -> Option<&Principal> {
        self.principal.as_ref().filter(|_| self.is_charged)
    }
}
