//! Chance for the tests that throw dice: the same for the same seed, everywhere.
#![expect(clippy::unwrap_used, reason = "tests")]

/// xorshift64*.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(super) fn roll(&mut self, sides: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % sides
    }

    /// Dice for somebody else.
    pub(super) fn another(&mut self) -> Self {
        Self::new(self.next())
    }
}

/// A number that whoever runs the tests may set.
pub(super) fn asked_for(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}
