//! Watches what children put into their temporary folders. Invariants: a folder is looked at each second, but for no more than
//! a tenth of the time, so that one which takes long to count costs little; and no thread that serves does that.

use std::collections::HashMap;
use std::sync::Weak;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{Ceilings, Charged};
use crate::process::PrivateFolder;
use crate::process::folder::Amount;
use crate::process::guardian::Guardian;
use crate::process::watch::Excess;

/// How often folders are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How much longer than a look took, the next one waits at least.
const REST: u32 = 9;
/// How old the list of processes may be.
const FRESH: Duration = Duration::from_millis(500);

/// A folder that is looked at.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) folder: Weak<PrivateFolder>,
    pub(super) most: Amount,
}

/// When each is looked at again.
type Due = HashMap<u64, Instant>;

impl Ceilings {
    /// Looks, until it is stopped.
    pub async fn watch_folders(self, guardian: Guardian, stop: CancellationToken) {
        let mut due = Due::new();
        while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            let (ceilings, guardian, stop) = (self.clone(), guardian.clone(), stop.clone());
            let look = move || {
                ceilings.look_at_folders(&guardian, &mut due, &stop);
                due
            };
            due = tokio::task::spawn_blocking(look).await.unwrap_or_default();
        }
    }

    fn look_at_folders(&self, guardian: &Guardian, due: &mut Due, stop: &CancellationToken) {
        let folder = |(id, charged): (&u64, &Charged)| {
            let watched = charged.temp.as_ref().filter(|_| charged.excess.borrow().is_none())?;
            Some((*id, charged.pid, watched.folder.clone(), watched.most))
        };
        let folders: Vec<_> = self.0.charged.lock().iter().filter_map(folder).collect();
        due.retain(|id, _| folders.iter().any(|(other, ..)| other == id));
        let now = Instant::now();
        let is_due = |id: &u64| due.get(id).is_none_or(|due| *due <= now);
        let folders: Vec<_> = folders.into_iter().filter(|(id, ..)| is_due(id)).collect();
        let leaders: Vec<i32> = folders.iter().map(|(_, pid, ..)| *pid).collect();
        let mut processes: HashMap<i32, Vec<i32>> = HashMap::new();
        // Without the list what they have removed and still have open is not counted.
        if let Some(tree) = (!leaders.is_empty()).then(|| guardian.processes().read(FRESH).ok()).flatten() {
            for (pid, leader, _) in tree.below_each(&leaders) {
                processes.entry(leader).or_default().push(pid);
            }
        }
        for (id, pid, folder, most) in folders {
            if stop.is_cancelled() {
                return;
            }
            let begin = Instant::now();
            let processes = processes.get(&pid).map(Vec::as_slice).unwrap_or_default();
            let used = folder.upgrade().map(|folder| folder.usage(most, processes, || stop.is_cancelled()));
            match used {
                Some(Ok(Some(used))) if used.files > most.files => self.end(id, Excess::temp_files(most.files)),
                Some(Ok(Some(used))) if used.bytes > most.bytes => self.end(id, Excess::temp_size(most.bytes)),
                Some(Err(_)) => drop(self.0.failures.inc()),
                _ => {}
            }
            due.insert(id, Instant::now() + (begin.elapsed() * REST).max(LOOK / 2));
        }
    }
}
