//! What children hold of the machine's memory.

use std::collections::HashMap;

/// Resident memory of all process groups, in bytes: the sum over the processes of each, shared pages counted in all.
pub fn memory_of_groups() -> HashMap<u32, usize> {
    let mut groups = HashMap::new();
    let Ok(processes) = std::fs::read_dir("/proc") else { return groups };
    for (group, bytes) in processes.flatten().filter_map(|entry| resident(&entry.path())) {
        *groups.entry(group).or_default() += bytes;
    }
    groups
}

/// Fields 5 (group) and 24 (resident pages) of `/proc/PID/stat`; the name before them may hold anything but ends with
/// the last parenthesis.
fn resident(process: &std::path::Path) -> Option<(u32, usize)> {
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let group = fields.nth(2)?.parse().ok()?;
    let pages: usize = fields.nth(18)?.parse().ok()?;
    Some((group, pages * rustix::param::page_size()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_this_very_group_is_seen() {
        let group = rustix::process::getpgrp().as_raw_nonzero().get().unsigned_abs();
        assert!(memory_of_groups().get(&group).is_some_and(|bytes| *bytes > 1 << 20));
    }
}
