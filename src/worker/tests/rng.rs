//! A random number generator for tests: the same numbers for the same seed, everywhere.
#![expect(clippy::unwrap_used, reason = "tests")]

/// xorshift64*.
pub(in crate::worker) struct TestRng(u64);

impl TestRng {
    pub(in crate::worker) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(in crate::worker) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number from 0 up to `end`, excluded.
    pub(in crate::worker) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % end
    }

    /// A generator of other numbers.
    pub(in crate::worker) fn fork(&mut self) -> Self {
        Self::new(self.next())
    }
}

/// The number in an environment variable, or `default`.
pub(in crate::worker) fn from_environment(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}
