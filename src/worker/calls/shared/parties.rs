//! Whose the sessions on a shared child are. What a session holds of the child counts for its tenant and its principal
//! as well: sessions are free to open, and so are no bound of their own.

use std::collections::BTreeMap;
use std::iter::once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// A tenant, or a principal, whose sessions use a shared child.
#[derive(Debug, Clone)]
pub struct Party {
    /// The name, which no other party on the same child has.
    pub name: String,
    /// Whether others may ask for the same child. A party without rivals may have everything.
    pub has_rivals: bool,
}

/// What the sessions of one party hold of a child.
#[derive(Debug, Default)]
pub(in crate::worker) struct Held {
    has_rivals: AtomicBool,
    /// The answers that the sessions wait for. Changed under the lock of the tables only.
    calls: AtomicUsize,
    /// The bytes of the sessions in the stdin queue. Changed under the lock of the queue only.
    pub(in crate::worker) queued: AtomicUsize,
}

/// What the parties of one session hold, outermost first. Empty where sessions do not share the child.
#[derive(Debug, Clone, Default)]
pub(in crate::worker) struct Holdings(Vec<Arc<Held>>);

/// What each party holds of one child. A party is forgotten when it has no session on the child and no bytes that wait.
#[derive(Debug, Default)]
pub(in crate::worker::calls) struct Parties(BTreeMap<String, Weak<Held>>);

impl Parties {
    /// The holdings of these parties, outermost first.
    pub(in crate::worker::calls) fn join(&mut self, parties: &[Party]) -> Holdings {
        Holdings(parties.iter().map(|party| self.held_by(party)).collect())
    }

    fn held_by(&mut self, party: &Party) -> Arc<Held> {
        let known = self.0.get(&party.name).and_then(Weak::upgrade);
        let held = known.unwrap_or_else(|| {
            self.0.retain(|_, held| held.strong_count() > 0);
            let held = Arc::<Held>::default();
            self.0.insert(party.name.clone(), Arc::downgrade(&held));
            held
        });
        held.has_rivals.store(party.has_rivals, Ordering::Relaxed);
        held
    }
}

impl Held {
    fn has_rivals(&self) -> bool {
        self.has_rivals.load(Ordering::Relaxed)
    }

    /// The answers that the sessions wait for.
    pub(in crate::worker::calls) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

impl Holdings {
    /// All parties, outermost first.
    pub(in crate::worker) fn all(&self) -> impl Iterator<Item = &Arc<Held>> {
        self.0.iter()
    }

    /// What `of` counts for each party that has rivals, and at last `own`, which is the session's.
    pub(in crate::worker) fn counted(
        &self,
        of: impl Fn(&Arc<Held>) -> usize,
        own: usize,
    ) -> impl Iterator<Item = usize> {
        self.0.iter().filter(|held| held.has_rivals()).map(of).chain(once(own))
    }

    /// Counts one more answer that a session of these parties waits for.
    pub(in crate::worker::calls) fn begin(&self) {
        self.0.iter().for_each(|held| held.calls.store(held.calls() + 1, Ordering::Relaxed));
    }

    /// Counts `answers` less that a session of these parties waits for.
    pub(in crate::worker::calls) fn end(&self, answers: usize) {
        self.0.iter().for_each(|held| held.calls.store(held.calls().saturating_sub(answers), Ordering::Relaxed));
    }
}

/// What a holder may still take, if `left` is left and it has `own`: one more as long as it has less than what is left
/// after that.
pub(in crate::worker) fn left_for(left: usize, own: usize) -> usize {
    left.saturating_sub(own).div_ceil(2)
}
