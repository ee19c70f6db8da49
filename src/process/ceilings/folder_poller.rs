//! Watches what children put into their temporary folders. Invariants: folders are looked at each second, but all of them
//! together for no more than a tenth of the time, so that those which take long to count cost little; the one that has waited
//! longest is the next; and no thread that serves does that.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{Ceilings, Charged};
use crate::process::folder::Measurement;
use crate::process::usage::Excess;

/// How often folders are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How much longer than the looks took, the next ones wait at least.
const REST: u32 = 9;
/// How long no further folder is begun with, before such a rest.
const PASS: Duration = Duration::from_secs(1);
/// How old the list of processes may be.
const FRESH: Duration = Duration::from_millis(500);

/// When each was looked at.
type Looked = HashMap<u64, Instant>;

/// Looks, until it is stopped.
pub async fn watch_folders(ceilings: Ceilings, stop: CancellationToken) {
    let (mut looked, mut took) = (Looked::new(), Duration::ZERO);
    while stop.run_until_cancelled(tokio::time::sleep(rest(took))).await.is_some() {
        let (ceilings, stop) = (ceilings.clone(), stop.clone());
        let look = move || {
            let begin = Instant::now();
            look_at_folders(&ceilings, &mut looked, &stop);
            (looked, begin.elapsed())
        };
        (looked, took) = tokio::task::spawn_blocking(look).await.unwrap_or_default();
    }
}

/// Looks at one folder after another, for a while. The next time goes on with those that it did not come to.
fn look_at_folders(ceilings: &Ceilings, looked: &mut Looked, stop: &CancellationToken) {
    let folder = |(id, charged): (&u64, &Charged)| {
        let watched = charged.temp.as_ref().filter(|_| charged.excess.borrow().is_none())?;
        Some((*id, charged.pid, watched.folder.clone(), watched.most))
    };
    let mut folders: Vec<_> = ceilings.0.charged.lock().iter().filter_map(folder).collect();
    looked.retain(|id, _| folders.iter().any(|(other, ..)| other == id));
    // Those that were not looked at yet come first.
    folders.sort_by_key(|(id, ..)| looked.get(id).copied());
    let leaders: Vec<i32> = folders.iter().map(|(_, pid, ..)| *pid).collect();
    let mut processes: HashMap<i32, Vec<i32>> = HashMap::new();
    let begin = Instant::now();
    match (!leaders.is_empty()).then(|| ceilings.0.guardian.processes().read(FRESH)) {
        Some(Ok(tree)) => {
            for (pid, leader, _) in tree.descendants_by_leader(&leaders) {
                processes.entry(leader).or_default().push(pid);
            }
        }
        // What they have removed and still have open is not counted this time.
        Some(Err(_)) => drop(ceilings.0.failures.inc()),
        None => {}
    }
    for (id, pid, folder, most) in folders {
        if stop.is_cancelled() || begin.elapsed() >= PASS {
            return;
        }
        let processes = processes.get(&pid).map(Vec::as_slice).unwrap_or_default();
        let look = folder.upgrade().map(|folder| folder.usage(most, processes, || stop.is_cancelled()));
        match look {
            Some(Ok(Measurement::Found(used))) if used.files > most.files => {
                ceilings.end(id, Excess::temp_files(most.files))
            }
            Some(Ok(Measurement::Found(used))) if used.bytes > most.bytes => {
                ceilings.end(id, Excess::temp_size(most.bytes))
            }
            Some(Ok(Measurement::Hidden)) => ceilings.end(id, Excess::temp_hidden(most.files)),
            Some(Err(_)) => drop(ceilings.0.failures.inc()),
            _ => {}
        }
        looked.insert(id, Instant::now());
    }
}

/// How long the thread rests after it has looked for so long.
fn rest(took: Duration) -> Duration {
    (took * REST).max(LOOK)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use std::sync::Arc;

    use super::super::WatchedFolder;
    use super::super::tests::ceilings;
    use super::*;
    use crate::process::folder::{FolderSize, Folders};
    use crate::process::usage::WatchedLimits;

    #[test]
    fn looks_take_a_tenth_of_the_time_at_most() {
        assert_eq!(rest(Duration::ZERO), LOOK);
        assert_eq!(rest(Duration::from_secs(2)), Duration::from_secs(18));
    }

    #[test]
    fn each_folder_has_its_turn() {
        let ceilings = ceilings(WatchedLimits::default(), [(i32::MAX, WatchedLimits::default()); 3]);
        let folders = Folders::new(None);
        let made: Vec<_> = (0..3).map(|_| Arc::new(folders.make(None).unwrap())).collect();
        for (charged, folder) in ceilings.0.charged.lock().values_mut().zip(&made) {
            let most = FolderSize { bytes: 1 << 30, files: 10 };
            charged.temp = Some(WatchedFolder { folder: Arc::downgrade(folder), most });
        }
        let mut looked = Looked::new();
        look_at_folders(&ceilings, &mut looked, &CancellationToken::new());
        assert_eq!(looked.len(), 3);
        // One that was not looked at yet goes first.
        let before = looked.remove(&2).unwrap();
        look_at_folders(&ceilings, &mut looked, &CancellationToken::new());
        assert!(before < looked[&2] && looked[&2] < looked[&1] && looked[&2] < looked[&3], "{looked:?}");
    }
}
