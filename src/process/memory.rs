//! What children hold of the machine's memory.

/// Bytes in a page, on the systems that this runs on. An estimate is good enough where the limit is a soft one.
const PAGE: usize = 4096;

/// Resident memory of a process group, in bytes: the sum over its processes, shared pages counted in each. 0 if there is
/// no such group any more.
pub fn group_rss(group: u32) -> usize {
    let Ok(processes) = std::fs::read_dir("/proc") else { return 0 };
    processes.flatten().filter_map(|entry| resident(&entry.path(), group)).sum()
}

/// Fields 5 (group) and 24 (resident pages) of `/proc/PID/stat`; the name before them may hold anything but ends with
/// the last parenthesis.
fn resident(process: &std::path::Path, group: u32) -> Option<usize> {
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let its_group: u32 = fields.nth(2)?.parse().ok()?;
    let pages: usize = fields.nth(18)?.parse().ok()?;
    (its_group == group).then_some(pages * PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_this_very_group_is_seen() {
        let group = rustix::process::getpgrp().as_raw_nonzero().get().unsigned_abs();
        assert!(group_rss(group) > 1 << 20);
        assert_eq!(group_rss(u32::MAX), 0);
    }
}
