//! What the guardian does that takes a look at all processes of the machine, or a disk: the record for a later gateway, and
//! limits for processes that run already. It has a thread of its own, for which nothing else waits.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::process::Pid;

use super::record::Record;
use crate::process::limits::ProcessLimits;
use crate::process::proc::{ProcReader, ProcessKey};

/// How often the record is brought up to date.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is looked whether a child has started more while limits of its processes were set.
const MAX_LIMIT_LOOKS: usize = 8;

/// What is to be done. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct ScanThread(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    tasks: Mutex<Tasks>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Tasks {
    record: Option<Record>,
    /// At most one for each child.
    limits: VecDeque<(Pid, ProcessLimits)>,
    is_over: bool,
}

impl ScanThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// There can be none.
    pub(super) fn start() -> io::Result<Self> {
        let scan_thread = Self::default();
        let shared = Arc::clone(&scan_thread.0);
        std::thread::Builder::new().name("sluice-scan_thread".to_owned()).spawn(move || shared.run())?;
        Ok(scan_thread)
    }

    /// Has a record kept.
    pub(super) fn keep(&self, record: Record) {
        self.0.tasks.lock().record = Some(record);
        self.0.changed.notify_one();
    }

    /// Ends the thread, which gives the record to the next gateway.
    pub(super) fn end(&self) {
        self.0.tasks.lock().is_over = true;
        self.0.changed.notify_one();
    }

    /// Sets limits of a child and of what is below it.
    pub(super) fn limit(&self, leader: Pid, limits: ProcessLimits) {
        self.0.tasks.lock().limits.push_back((leader, limits));
        self.0.changed.notify_one();
    }
}

impl Shared {
    fn run(&self) {
        let (processes, mut record): (_, Option<Record>) = (ProcReader::default(), None);
        let mut next = Instant::now();
        loop {
            let (new, limits) = {
                let mut tasks = self.tasks.lock();
                while tasks.record.is_none() && tasks.limits.is_empty() && !tasks.is_over && Instant::now() < next {
                    self.changed.wait_until(&mut tasks, next);
                }
                if tasks.is_over {
                    return;
                }
                (tasks.record.take(), std::mem::take(&mut tasks.limits))
            };
            for (leader, limits) in limits {
                limit(leader, &limits, &processes);
            }
            if new.is_some() || Instant::now() >= next {
                record = new.or(record);
                // A disk that is full must end no child: the record gets old, and the next time tries again.
                let _ = record.as_mut().map(|record| record.update(&*processes.read(Duration::ZERO)?));
                next = Instant::now() + LOOK;
            }
        }
    }
}

/// Sets limits of the leader and of what is below it. What a process starts after that has them too; so it is done when a
/// look finds nothing that an earlier one has not.
///
/// A process may end, and another get its id, between the look and the call: that takes all ids going round within
/// microseconds, and is the only way to limit what runs already.
fn limit(leader: Pid, limits: &ProcessLimits, processes: &ProcReader) {
    let own = rustix::process::getpid();
    let mut done = BTreeSet::new();
    let mut known: Option<ProcessKey> = None;
    for look in 0..MAX_LIMIT_LOOKS {
        let Ok(tree) = processes.read(Duration::ZERO) else { return };
        // The leader may have ended meanwhile, and another have its id.
        let Some(found) = tree.find_child(own, leader) else { return };
        if *known.get_or_insert(found) != found {
            return;
        }
        if look == 0 && found.runs() {
            limits.impose(leader);
        }
        let new: Vec<ProcessKey> = tree.descendants_of(leader).into_iter().filter(|seen| done.insert(*seen)).collect();
        if new.is_empty() && look > 0 {
            return;
        }
        for seen in new.into_iter().filter(|seen| seen.runs()) {
            Pid::from_raw(seen.pid).inspect(|pid| limits.impose(*pid));
        }
    }
}
