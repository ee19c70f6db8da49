//! The guardian's thread for slow work, which reads all processes of the machine or writes to a disk: it keeps the
//! record for a later gateway, and sets limits for running processes. No other thread waits for it.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::process::Pid;

use super::record::Record;
use crate::process::limits::ProcessLimits;
use crate::process::proc::{ProcessKey, ProcessTree};

/// Time between two updates of the record.
const UPDATE: Duration = Duration::from_secs(1);
/// Most readings of the process tree for one child whose limits are set, while it starts further processes.
const MAX_READINGS: usize = 8;

/// A handle of the thread. Clones share it.
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
    /// Children to set limits for; at most one entry for each.
    limits: VecDeque<(Pid, ProcessLimits)>,
    is_over: bool,
}

impl ScanThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn start() -> io::Result<Self> {
        let scan_thread = Self::default();
        let shared = Arc::clone(&scan_thread.0);
        std::thread::Builder::new().name("sluice-scan".to_owned()).spawn(move || shared.run())?;
        Ok(scan_thread)
    }

    /// Has the thread keep `record` up to date.
    pub(super) fn keep(&self, record: Record) {
        self.0.tasks.lock().record = Some(record);
        self.0.changed.notify_one();
    }

    /// Ends the thread, which unlocks the record for the next gateway.
    pub(super) fn end(&self) {
        self.0.tasks.lock().is_over = true;
        self.0.changed.notify_one();
    }

    /// Has the thread set `limits` for the child `leader` and its descendants.
    pub(super) fn limit(&self, leader: Pid, limits: ProcessLimits) {
        self.0.tasks.lock().limits.push_back((leader, limits));
        self.0.changed.notify_one();
    }
}

impl Shared {
    fn run(&self) {
        let mut record: Option<Record> = None;
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
                limit(leader, &limits);
            }
            if new.is_some() || Instant::now() >= next {
                record = new.or(record);
                // A disk that is full must end no child: the record gets old, and the next time tries again.
                let _ = record.as_mut().map(|record| record.update(&ProcessTree::read()?));
                next = Instant::now() + UPDATE;
            }
        }
    }
}

/// Sets limits for `leader` and its descendants. A process inherits the limits of its parent, so this is repeated until
/// a reading finds no new descendant, at most [`MAX_READINGS`] times.
///
/// Another process could get the id of an ended descendant between reading and setting. That would take all process ids
/// to be used up within microseconds; the system offers no other way to limit running processes.
fn limit(leader: Pid, limits: &ProcessLimits) {
    let own = rustix::process::getpid();
    let mut done = BTreeSet::new();
    let mut known: Option<ProcessKey> = None;
    for reading in 0..MAX_READINGS {
        let Ok(tree) = ProcessTree::read() else { return };
        // The leader may have ended meanwhile, and another have its id.
        let Some(found) = tree.find_child(own, leader) else { return };
        if *known.get_or_insert(found) != found {
            return;
        }
        if reading == 0 && found.runs() {
            limits.impose(leader);
        }
        let new: Vec<ProcessKey> = tree.descendants_of(leader).into_iter().filter(|seen| done.insert(*seen)).collect();
        if new.is_empty() && reading > 0 {
            return;
        }
        for seen in new.into_iter().filter(|seen| seen.runs()) {
            Pid::from_raw(seen.pid).inspect(|pid| limits.impose(*pid));
        }
    }
}
