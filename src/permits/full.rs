//! Why a claim is not granted.

use std::fmt;

use super::ceiling::Ceiling;
use crate::auth::Principal;
use crate::config::TenantId;

/// A ceiling under which there is no room for a claim.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Full {
    /// The ceiling.
    pub ceiling: Ceiling,
    /// The largest number of units under the ceiling.
    pub most: usize,
    /// Who holds the units.
    pub by: By,
}

/// Who holds the units that a claim does not get.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum By {
    /// All together: every unit is taken.
    All,
    /// The claimant's tenant, which holds this many units. The rest is for other tenants.
    Tenant(TenantId, usize),
    /// The claimant, who holds this many units. The rest is for other principals of the tenant, and other tenants.
    Principal(Principal, usize),
    /// The claims that wait for the ceiling already: as many as may wait.
    Queue,
}

/// A part of a sentence for the one who claims: how many units the claimant holds, and the configuration key.
impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ceiling, most, by } = self;
        let (units, key) = (ceiling.units(), ceiling.key());
        match by {
            By::All => write!(f, "all {most} {units} are taken ({key})"),
            By::Tenant(_, held) => {
                write!(f, "your tenant holds {held} of {most} {units} ({key}), and what is left is for other tenants")
            }
            By::Principal(_, held) => {
                write!(f, "you hold {held} of {most} {units} ({key}), and what is left is for others")
            }
            By::Queue => write!(f, "all {most} {units} are taken ({key}), and too many requests wait for one"),
        }
    }
}
