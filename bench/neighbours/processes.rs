//! How much processes work, by /proc.

use std::collections::HashMap;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Between two looks at the processor time.
const LOOK: Duration = Duration::from_millis(100);
/// What counts as quiet, in ticks of the clock (10 ms) in one look.
const QUIET: u64 = 1;

/// Waits until a process and its descendants hardly work, at most for `patience`; returns whether they are quiet.
pub(crate) fn wait_for_quiet(ancestor: u32, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    let mut before = ticks(ancestor);
    while Instant::now() < deadline {
        sleep(LOOK);
        let now = ticks(ancestor);
        // Processes that have ended take their ticks with them.
        if now.abs_diff(before) <= QUIET {
            return true;
        }
        before = now;
    }
    false
}

/// The processor time of a process and its descendants so far.
fn ticks(ancestor: u32) -> u64 {
    let processes: HashMap<u32, (u32, u64)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat(pid)?)))
        .collect();
    let parent = |pid: &u32| processes.get(pid).map(|(parent, _)| *parent);
    let is_below = |pid: u32| std::iter::successors(Some(pid), parent).take(64).any(|pid| pid == ancestor);
    processes.iter().filter(|(pid, _)| is_below(**pid)).map(|(_, (_, ticks))| ticks).sum()
}

/// Parent and processor time of a process.
fn stat(pid: u32) -> Option<(u32, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it is in parentheses, and may contain anything.
    let fields: Vec<&str> = text.rsplit(')').next()?.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some((u32::try_from(number(1)?).ok()?, number(11)? + number(12)?))
}
