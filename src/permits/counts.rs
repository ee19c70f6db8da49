//! How many units are taken under each ceiling, and by whom.
//!
//! Invariant: what is held by nobody is not remembered.

use std::collections::HashMap;

use super::ceiling::{Ceiling, Limit};
use super::claimant::Claimant;
use super::full::{By, Full};
use crate::auth::Principal;
use crate::config::{Contenders, TenantId};

/// A unit that is taken under a ceiling, and for whom it counts; `None`: for nobody.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) ceiling: Ceiling,
    holder: Option<Principal>,
}

/// The units taken under each ceiling.
#[derive(Debug, Default)]
pub(super) struct Counts(HashMap<Ceiling, Taken>);

/// The units taken under one ceiling.
#[derive(Debug, Default)]
struct Taken {
    /// All units, those that count for nobody included.
    all: usize,
    tenants: HashMap<TenantId, Held>,
}

/// The units of one tenant.
#[derive(Debug, Default)]
struct Held {
    all: usize,
    principals: HashMap<Principal, usize>,
}

impl Unit {
    /// One unit under each of these ceilings.
    pub(super) fn under(limits: &[Limit], claimant: &Claimant) -> Vec<Self> {
        let unit = |(ceiling, _): &Limit| Self { ceiling: ceiling.clone(), holder: claimant.charged().cloned() };
        limits.iter().map(unit).collect()
    }
}

impl Counts {
    /// The first of these limits under which there is no room for this claimant.
    pub(super) fn full(&self, contenders: &Contenders, claimant: &Claimant, limits: &[Limit]) -> Option<Full> {
        limits.iter().find_map(|(ceiling, most)| {
            let by = self.filled(contenders, claimant, ceiling, *most)?;
            Some(Full { ceiling: ceiling.clone(), most: *most, by })
        })
    }

    /// Who holds the units that leave no room for one more; `None` if there is room.
    fn filled(&self, contenders: &Contenders, claimant: &Claimant, ceiling: &Ceiling, most: usize) -> Option<By> {
        let taken = self.0.get(ceiling);
        let left = most.saturating_sub(taken.map_or(0, |taken| taken.all));
        if left == 0 {
            return Some(By::All);
        }
        let principal = claimant.charged()?;
        let (tenant, held) = (principal.tenant(), taken.and_then(|taken| taken.tenants.get(principal.tenant())));
        let rivals = ceiling.rivals(contenders, tenant);
        let of_tenant = held.map_or(0, |held| held.all);
        // What the tenant may still take: one more as long as it holds less than what is left after that.
        let for_tenant = if rivals.tenants { left.saturating_sub(of_tenant).div_ceil(2) } else { left };
        if for_tenant == 0 {
            return Some(By::Tenant(tenant.clone(), of_tenant));
        }
        let own = held.and_then(|held| held.principals.get(principal)).copied().unwrap_or_default();
        (rivals.principals && own >= for_tenant).then(|| By::Principal(principal.clone(), own))
    }

    /// Takes units, whether there is room for them or not.
    pub(super) fn take(&mut self, units: &[Unit]) {
        for Unit { ceiling, holder } in units {
            let taken = self.0.entry(ceiling.clone()).or_default();
            taken.all += 1;
            if let Some(holder) = holder {
                let held = taken.tenants.entry(holder.tenant().clone()).or_default();
                held.all += 1;
                *held.principals.entry(holder.clone()).or_default() += 1;
            }
        }
    }

    /// Gives units back.
    pub(super) fn put_back(&mut self, units: &[Unit]) {
        for Unit { ceiling, holder } in units {
            let Some(taken) = self.0.get_mut(ceiling) else { continue };
            if let Some(holder) = holder {
                taken.leave(holder);
            }
            taken.all = taken.all.saturating_sub(1);
            if taken.all == 0 {
                self.0.remove(ceiling);
            }
        }
    }

    /// The number of units taken under a ceiling.
    #[cfg(test)]
    pub(super) fn taken(&self, ceiling: &Ceiling) -> usize {
        self.0.get(ceiling).map_or(0, |taken| taken.all)
    }

    /// The numbers of units under a ceiling that a principal's tenant and the principal hold.
    #[cfg(test)]
    pub(super) fn held_by(&self, ceiling: &Ceiling, principal: &Principal) -> (usize, usize) {
        let held = self.0.get(ceiling).and_then(|taken| taken.tenants.get(principal.tenant()));
        held.map_or((0, 0), |held| (held.all, held.principals.get(principal).copied().unwrap_or_default()))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Taken {
    /// Counts one unit of a principal less.
    fn leave(&mut self, holder: &Principal) {
        let Some(held) = self.tenants.get_mut(holder.tenant()) else { return };
        held.all = held.all.saturating_sub(1);
        if let Some(own) = held.principals.get_mut(holder) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                held.principals.remove(holder);
            }
        }
        if held.all == 0 {
            self.tenants.remove(holder.tenant());
        }
    }
}
