//! What children hold of the machine's memory.

use std::collections::HashMap;
use std::time::Duration;

use super::guardian::Guardian;

/// How old the list of processes may be.
const FRESH: Duration = Duration::from_millis(250);

/// Resident memory of all process groups, in bytes: the sum over the processes of each, shared pages counted in all. Nothing is
/// known where processes cannot be looked at. Not for a thread that serves.
pub fn memory_of_groups(guardian: &Guardian) -> HashMap<u32, usize> {
    guardian.processes().read(FRESH).map(|tree| tree.memory_of_groups()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_this_very_group_is_seen() {
        let group = rustix::process::getpgrp().as_raw_nonzero().get().unsigned_abs();
        assert!(memory_of_groups(&Guardian::of_nobody()).get(&group).is_some_and(|bytes| *bytes > 1 << 20));
    }
}
