//! What several tests of this folder use.

pub(super) mod rng;
