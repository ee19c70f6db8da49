//! Permits, and the claims that are granted.
//!
//! A claim takes one unit under several ceilings as a whole: while there is no room under one of them, the claim holds
//! nothing of the others. Claims that wait are served in turns, and each waits for a limited time.
//!
//! Invariants: no claim waits for which there is room, and no ceiling is exceeded.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::timeout;

use super::ceiling::{Ceiling, Limit};
use super::claimant::Claimant;
use super::counts::{Counts, Unit};
use super::full::{By, Full};
use super::queues::{Queue, Queues, Turn};
use crate::config::{Contenders, Rivals, TenantId};

/// Permits for the children, starts and sessions of a gateway; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Permits(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    taken: Counts,
    queues: Queues<Claim>,
    contenders: Contenders,
}

/// One unit under each of some ceilings. Dropped, the units go to claims that wait.
#[derive(Debug)]
pub struct Claim {
    permits: Permits,
    held: Vec<Unit>,
}

/// Removes a claim that is given up from its queue.
struct Leaving<'a> {
    permits: &'a Permits,
    claimant: &'a Claimant,
    limits: &'a [Limit],
}

impl Permits {
    /// Says who may claim from now on. Units that are held stay with their holders.
    pub fn contend(&self, contenders: Contenders) {
        let mut state = self.0.lock();
        state.contenders = contenders;
        self.serve(&mut state, |_| true);
    }

    /// Who else may want the units under this ceiling that a principal of this tenant wants.
    pub fn rivals(&self, ceiling: &Ceiling, tenant: &TenantId) -> Rivals {
        ceiling.rivals(&self.0.lock().contenders, tenant)
    }

    /// Claims one unit under each ceiling, if there is room under all of them now. A waiting claim is never overtaken
    /// by this: there is no room for any claim that waits.
    ///
    /// # Errors
    /// The first of the limits that is reached.
    pub fn try_claim(&self, claimant: &Claimant, limits: &[Limit]) -> Result<Claim, Full> {
        let units = self.0.lock().take(claimant, limits);
        units.map(|held| Claim { permits: self.clone(), held })
    }

    /// Claims one unit under each ceiling, as soon as there is room under all of them at the same moment.
    ///
    /// # Errors
    /// There was no such moment for as long as `patience`: the first of the `limits` that is reached at the end, or
    /// else the one that was reached at the beginning. Or as many claims wait as may.
    pub async fn claim(&self, claimant: &Claimant, limits: &[Limit], patience: Duration) -> Result<Claim, Full> {
        let (full, granted) = {
            let mut state = self.0.lock();
            let full = match state.take(claimant, limits) {
                Ok(held) => return Ok(Claim { permits: self.clone(), held }),
                Err(full) => full,
            };
            let State { queues, contenders, .. } = &mut *state;
            let Some(granted) = queues.enqueue(contenders, claimant, limits) else {
                return Err(Full { by: By::Queue, ..full });
            };
            (full, granted)
        };
        let _leaving = Leaving { permits: self, claimant, limits };
        let granted = timeout(patience, granted).await;
        granted.ok().and_then(Result::ok).ok_or_else(|| self.full(claimant, limits).unwrap_or(full))
    }

    /// The first of these limits under which there is no room for the claimant now.
    pub fn full(&self, claimant: &Claimant, limits: &[Limit]) -> Option<Full> {
        self.0.lock().full(claimant, limits)
    }

    /// The number of claims that wait for what `is` accepts. A claim waits for the first of its ceilings under which
    /// there is no room.
    pub fn waiting(&self, is: impl Fn(&Full) -> bool) -> usize {
        let state = self.0.lock();
        let waits = |queue: &&Queue<Claim>| state.full(&queue.claimant, &queue.limits).is_some_and(|full| is(&full));
        state.queues.in_turn().map(|(_, queue)| queue).filter(waits).map(Queue::len).sum()
    }

    /// What claims wait for, and how many for each.
    pub fn wanted(&self) -> Vec<(Full, usize)> {
        let state = self.0.lock();
        let (mut wanted, mut places) = (Vec::<(Full, usize)>::new(), HashMap::new());
        for (_, queue) in state.queues.in_turn() {
            let Some(full) = state.full(&queue.claimant, &queue.limits) else { continue };
            let place = *places.entry(full.clone()).or_insert(wanted.len());
            match wanted.get_mut(place) {
                Some((_, count)) => *count += queue.len(),
                None => wanted.push((full, queue.len())),
            }
        }
        wanted
    }

    /// Gives units back, and serves the claims for which there is room now.
    fn release(&self, units: &[Unit]) {
        let mut state = self.0.lock();
        state.taken.put_back(units);
        self.serve(&mut state, |ceiling| units.iter().any(|unit| unit.ceiling == *ceiling));
    }

    /// Serves the claims for which there is room, in turns, of those that need units under a ceiling that `is_freed`.
    fn serve(&self, state: &mut State, is_freed: impl Fn(&Ceiling) -> bool) {
        while let Some((turn, held)) = state.next(&is_freed) {
            if let Some(mut claim) = state.queues.serve(turn, Claim { permits: self.clone(), held }) {
                // Emptied here: its own drop would lock the state again.
                state.taken.put_back(&std::mem::take(&mut claim.held));
            }
        }
    }
}

impl State {
    fn full(&self, claimant: &Claimant, limits: &[Limit]) -> Option<Full> {
        self.taken.full(&self.contenders, claimant, limits)
    }

    /// Takes a unit under each ceiling, or none if there is no room under one.
    ///
    /// # Errors
    /// The first of the limits that is reached.
    fn take(&mut self, claimant: &Claimant, limits: &[Limit]) -> Result<Vec<Unit>, Full> {
        if let Some(full) = self.full(claimant, limits) {
            return Err(full);
        }
        let units = Unit::under(limits, claimant);
        self.taken.take(&units);
        Ok(units)
    }

    /// Takes the units of the claim that has the next turn, of those for which there is room and that need units under
    /// a ceiling that `is_freed`.
    fn next(&mut self, is_freed: impl Fn(&Ceiling) -> bool) -> Option<(Turn, Vec<Unit>)> {
        let has_room = |queue: &Queue<Claim>| {
            queue.limits.iter().any(|(ceiling, _)| is_freed(ceiling))
                && self.full(&queue.claimant, &queue.limits).is_none()
        };
        let (turn, queue) = self.queues.in_turn().find(|(_, queue)| has_room(queue))?;
        let units = Unit::under(&queue.limits, &queue.claimant);
        self.taken.take(&units);
        Some((turn, units))
    }
}

impl Claim {
    /// Whether the claim holds a unit under this ceiling.
    pub fn holds(&self, ceiling: &Ceiling) -> bool {
        self.held.iter().any(|unit| unit.ceiling == *ceiling)
    }

    /// Takes over the units of another claim. A unit under a ceiling that both hold goes back.
    pub fn merge(&mut self, mut other: Self) {
        let units = std::mem::take(&mut other.held).into_iter();
        let (twice, missing): (Vec<_>, Vec<_>) = units.partition(|unit| self.holds(&unit.ceiling));
        other.held = twice;
        self.held.extend(missing);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.held.is_empty() {
            self.permits.release(&std::mem::take(&mut self.held));
        }
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.permits.0.lock().queues.tidy(self.claimant, self.limits);
    }
}

#[cfg(test)]
impl Permits {
    /// The number of units taken under a ceiling.
    pub(super) fn taken(&self, ceiling: &Ceiling) -> usize {
        self.0.lock().taken.taken(ceiling)
    }

    /// The units under a ceiling that a principal's tenant, and the principal, hold.
    pub(super) fn held_by(&self, ceiling: &Ceiling, principal: &crate::auth::Principal) -> (usize, usize) {
        self.0.lock().taken.held_by(ceiling, principal)
    }

    /// Whether nothing is taken, and nobody waits.
    pub(super) fn is_unused(&self) -> bool {
        let state = self.0.lock();
        state.taken.is_empty() && state.queues.is_empty()
    }
}
