//! Random request numbers: on a shared child, a session must not guess the number of another session's call. The order
//! in which numbers were given out is kept beside them, and never leaves the gateway.

use std::cell::RefCell;
use std::hash::{BuildHasher as _, Hasher};

/// The end of the numbers for calls, excluded. A double represents them exactly.
const CALLS: u64 = 100_000_000_000_000;
/// The end of the numbers for server requests, excluded. Some clients read ids as 32 bits.
const SERVER_REQUESTS: u64 = 1 << 30;

/// The number of a request to a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number {
    /// The id in the frame.
    pub(super) wire: u64,
    /// The position among all requests for this child, those of the gateway and those that never reach the child
    /// included; from 1. For comparisons only.
    pub(super) order: u64,
}

/// A hasher for the random numbers of calls. One multiplication spreads them to the highest bits, which a hash table
/// also uses.
#[derive(Debug, Default)]
pub(super) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A random number for a call, from 1 to below 10^14. Draws again while the number is `used`.
pub(super) fn for_call(used: impl Fn(u64) -> bool) -> u64 {
    below(CALLS, used)
}

/// A random number for a server request, from 1 to below 2^30. Draws again while the number is `used`.
pub(super) fn for_server_request(used: impl Fn(u64) -> bool) -> u64 {
    below(SERVER_REQUESTS, used)
}

fn below(end: u64, used: impl Fn(u64) -> bool) -> u64 {
    loop {
        // The remainder is even enough: 2^64 is many times the end. None of the gateway's numbers is 0, which a reader
        // may take for one that is not there.
        let number = random() % end;
        if number > 0 && !used(number) {
            return number;
        }
    }
}

/// Random bytes of the system, for 32 numbers.
struct Pool {
    bytes: [u8; 256],
    used: usize,
}

fn random() -> u64 {
    thread_local! {
        static POOL: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; 256], used: 256 }) };
    }
    POOL.with_borrow_mut(|pool| {
        if pool.used >= pool.bytes.len() {
            if getrandom::fill(&mut pool.bytes).is_err() {
                // Random all the same, but not as good: the keys of the standard library's hashes are of the system as
                // well.
                return std::hash::RandomState::new().hash_one(pool.used);
            }
            pool.used = 0;
        }
        let eight = pool.bytes.get(pool.used..pool.used + 8).and_then(|eight| <[u8; 8]>::try_from(eight).ok());
        pool.used += 8;
        u64::from_le_bytes(eight.unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn numbers_are_of_the_whole_range_and_none_is_given_twice() {
        let mut calls = HashSet::new();
        for _ in 0..10_000 {
            let number = for_call(|number| calls.contains(&number));
            assert!((1..CALLS).contains(&number) && calls.insert(number));
        }
        // Where there were a rule, most of them would lie on one side.
        let above = |part: u64| calls.iter().filter(|number| **number > CALLS / 4 * part).count();
        assert!(above(1) > 7000 && above(2) > 4500 && above(3) > 2000 && above(3) < 3000);
        let even = calls.iter().filter(|number| number.is_multiple_of(2)).count();
        assert!((4500..5500).contains(&even));
        assert!(for_server_request(|number| number > 1_000_000) <= 1_000_000, "one that is used is not given");
    }
}
