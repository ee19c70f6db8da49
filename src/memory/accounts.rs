//! The accounts of a budget, by holder.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use super::share::Share;
use super::total::Total;

/// The number of entries up to which none is looked for that is of no use.
const FEW: usize = 64;

/// The accounts that somebody has a handle of, or that hold bytes. Beside them, at most as many and 64 that nobody has a
/// handle of any more.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    known: BTreeMap<Arc<str>, Weak<Share>>,
    /// The number of accounts after the last time that the others were removed.
    in_use: usize,
}

impl Accounts {
    /// The account of a holder: the one that there is, or a new one that shares `total`. All that are of no use are
    /// removed when the number of entries has doubled, so that a new account costs the same however many there are.
    pub(super) fn find(&mut self, holder: &str, total: &Arc<Total>) -> Arc<Share> {
        if let Some(known) = self.known.get(holder).and_then(Weak::upgrade) {
            return known;
        }
        if self.known.len() >= 2 * self.in_use + FEW {
            self.known.retain(|_, account| account.strong_count() > 0);
            self.in_use = self.known.len();
        }
        let account = Arc::new(Share::new(Arc::clone(total)));
        self.known.insert(holder.into(), Arc::downgrade(&account));
        account
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_no_use_is_removed_in_time_and_what_is_in_use_stays() {
        let (mut accounts, total) = (Accounts::default(), Arc::new(Total::new(1000)));
        let kept: Vec<_> = (0..100).map(|number| accounts.find(&format!("kept {number}"), &total)).collect();
        for number in 0..10_000 {
            drop(accounts.find(&format!("gone {number}"), &total));
            assert!(accounts.known.len() <= 2 * kept.len() + FEW);
        }
        for (number, account) in kept.iter().enumerate() {
            assert!(Arc::ptr_eq(account, &accounts.find(&format!("kept {number}"), &total)));
        }
    }
}
