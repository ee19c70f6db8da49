//! A cache of tokens that were found valid, so that the next request with a token costs a hash and not a signature
//! check. An entry lives until the token's expiry, at most for a minute.

use std::collections::HashMap;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::Proven;

/// The longest lifetime of an entry, in seconds. A withdrawn key may be accepted for that time.
const MAX_AGE: u64 = 60;

/// The largest number of entries. A full cache first drops its expired entries, or all entries if none has expired.
const CAPACITY: usize = 4096;

/// The SHA-256 of a token. The token itself is not stored.
pub(super) type TokenHash = [u8; 32];

#[derive(Default)]
pub(super) struct Verdicts(Mutex<HashMap<TokenHash, Verdict>>);

struct Verdict {
    proven: Proven,
    /// The end of the entry's lifetime, in seconds since the epoch.
    until: u64,
}

impl Verdicts {
    pub(super) fn hash(token: &str) -> TokenHash {
        Sha256::digest(token.as_bytes()).into()
    }

    /// The result for a token that was found valid before and still is at `now`, in seconds since the epoch.
    pub(super) fn get(&self, token: &TokenHash, now: u64) -> Option<Proven> {
        self.0.lock().get(token).filter(|verdict| now < verdict.until).map(|verdict| verdict.proven.clone())
    }

    /// Stores the result for a token until `expires`, at most for a minute. `now` and `expires` are in seconds since
    /// the epoch.
    pub(super) fn put(&self, token: TokenHash, proven: Proven, now: u64, expires: u64) {
        let mut verdicts = self.0.lock();
        if verdicts.len() >= CAPACITY {
            verdicts.retain(|_, verdict| now < verdict.until);
            if verdicts.len() >= CAPACITY {
                verdicts.clear();
            }
        }
        verdicts.insert(token, Verdict { proven, until: expires.min(now.saturating_add(MAX_AGE)) });
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::auth::Principal;

    fn somebody() -> Proven {
        Proven::for_good(Principal::new("acme".parse().unwrap(), crate::auth::Issuer::Key, "sub", vec![]))
    }

    #[test]
    fn a_verdict_ends_with_its_token_or_after_a_minute() {
        let verdicts = Verdicts::default();
        verdicts.put([1; 32], somebody(), 100, 110);
        assert!(verdicts.get(&[1; 32], 109).is_some());
        assert!(verdicts.get(&[1; 32], 110).is_none());
        verdicts.put([2; 32], somebody(), 100, 10_000);
        assert!(verdicts.get(&[2; 32], 159).is_some());
        assert!(verdicts.get(&[2; 32], 160).is_none());
        assert!(verdicts.get(&[3; 32], 100).is_none());
    }

    #[test]
    fn it_does_not_grow_past_its_capacity() {
        let verdicts = Verdicts::default();
        for n in 0..CAPACITY * 2 + 1 {
            verdicts.put(Verdicts::hash(&n.to_string()), somebody(), 100, 200);
            assert!(verdicts.0.lock().len() <= CAPACITY);
        }
        assert!(verdicts.get(&Verdicts::hash(&(CAPACITY * 2).to_string()), 100).is_some());
    }
}
