//! Measures the temporary folders of children, and has children ended whose folder is too large. Invariants: each
//! folder is measured once a second, unless measuring all takes more than a tenth of the time; the folder that has
//! waited longest comes next; no thread that serves requests measures.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{Ceilings, Charged};
use crate::process::folder::Measurement;
use crate::process::usage::{Excess, Limit};

/// Time between two rounds, at least.
const INTERVAL: Duration = Duration::from_secs(1);
/// Time to rest after a round, as a multiple of the time that the round took.
const REST: u32 = 9;
/// Longest round: after this time no further folder is measured.
const PASS: Duration = Duration::from_secs(1);
/// Maximum age of the process tree that a round uses.
const MAX_AGE: Duration = Duration::from_millis(500);

/// When each child's folder was last measured, by the number of its registration.
type LastMeasured = HashMap<u64, Instant>;

/// Measures folders in rounds until `stop` is cancelled.
pub async fn watch_folders(ceilings: Ceilings, stop: CancellationToken) {
    let (mut last, mut took) = (LastMeasured::new(), Duration::ZERO);
    while stop.run_until_cancelled(tokio::time::sleep(rest(took))).await.is_some() {
        let (ceilings, stop) = (ceilings.clone(), stop.clone());
        let look = move || {
            let begin = Instant::now();
            measure_folders(&ceilings, &mut last, &stop);
            (last, begin.elapsed())
        };
        (last, took) = tokio::task::spawn_blocking(look).await.unwrap_or_default();
    }
}

/// Measures one folder after another for up to a second, and has children ended whose folder is over its limit. The
/// next round continues with the others.
fn measure_folders(ceilings: &Ceilings, last: &mut LastMeasured, stop: &CancellationToken) {
    let folder = |(id, charged): (&u64, &Charged)| {
        let (folder, most) = charged.temp.as_ref().filter(|_| charged.excess.borrow().is_none())?;
        Some((*id, charged.pid, folder.clone(), *most))
    };
    let mut folders: Vec<_> = ceilings.0.charged.lock().iter().filter_map(folder).collect();
    last.retain(|id, _| folders.iter().any(|(other, ..)| other == id));
    // Those that were not looked at yet come first.
    folders.sort_by_key(|(id, ..)| last.get(id).copied());
    let leaders: Vec<i32> = folders.iter().map(|(_, pid, ..)| *pid).collect();
    if leaders.is_empty() {
        return;
    }
    let mut processes: HashMap<i32, Vec<i32>> = HashMap::new();
    let begin = Instant::now();
    match ceilings.0.guardian.processes().read(MAX_AGE) {
        Ok(tree) => tree.descendants_by_leader(&leaders).for_each(|(pid, leader, _)| {
            processes.entry(leader).or_default().push(pid);
        }),
        // What they have removed and still have open is not counted this time.
        Err(_) => drop(ceilings.0.failures.inc()),
    }
    for (id, pid, folder, most) in folders {
        if stop.is_cancelled() || begin.elapsed() >= PASS {
            return;
        }
        let processes = processes.get(&pid).map(Vec::as_slice).unwrap_or_default();
        let look = folder.upgrade().map(|folder| folder.usage(most, processes, || stop.is_cancelled()));
        match look {
            Some(Ok(Measurement::Found(used))) if used.files > most.files => {
                ceilings.end(id, Excess::new(Limit::TempFiles, most.files, None))
            }
            Some(Ok(Measurement::Found(used))) if used.bytes > most.bytes => {
                ceilings.end(id, Excess::new(Limit::TempSize, most.bytes, None))
            }
            Some(Ok(Measurement::Hidden)) => ceilings.end(id, Excess::new(Limit::TempHidden, most.files, None)),
            Some(Err(_)) => drop(ceilings.0.failures.inc()),
            _ => {}
        }
        last.insert(id, Instant::now());
    }
}

/// The time to rest after a round that took `took`; at least [`INTERVAL`].
fn rest(took: Duration) -> Duration {
    (took * REST).max(INTERVAL)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use std::sync::Arc;

    use super::super::tests::ceilings;
    use super::*;
    use crate::process::folder::{FolderSize, Folders};
    use crate::process::usage::WatchedLimits;

    #[test]
    fn looks_take_a_tenth_of_the_time_at_most() {
        assert_eq!(rest(Duration::ZERO), INTERVAL);
        assert_eq!(rest(Duration::from_secs(2)), Duration::from_secs(18));
    }

    #[test]
    fn each_folder_has_its_turn() {
        let ceilings = ceilings(WatchedLimits::default(), [(i32::MAX, WatchedLimits::default()); 3]);
        let folders = Folders::new(None);
        let made: Vec<_> = (0..3).map(|_| Arc::new(folders.make(None).unwrap())).collect();
        for (charged, folder) in ceilings.0.charged.lock().values_mut().zip(&made) {
            let most = FolderSize { bytes: 1 << 30, files: 10 };
            charged.temp = Some((Arc::downgrade(folder), most));
        }
        let mut last = LastMeasured::new();
        measure_folders(&ceilings, &mut last, &CancellationToken::new());
        assert_eq!(last.len(), 3);
        // One that was not looked at yet goes first.
        let before = last.remove(&2).unwrap();
        measure_folders(&ceilings, &mut last, &CancellationToken::new());
        assert!(before < last[&2] && last[&2] < last[&1] && last[&2] < last[&3], "{last:?}");
    }
}
