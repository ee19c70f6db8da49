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
use crate::process::tree::{Seen, Tree};

/// How often the record is brought up to date.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is looked whether a child has started more while limits of its processes were set.
const MAX_LIMIT_LOOKS: usize = 8;

/// What is to be done. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Survey(Arc<Shared>);

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

impl Survey {
    /// Starts the thread.
    ///
    /// # Errors
    /// There can be none.
    pub(super) fn start() -> io::Result<Self> {
        let survey = Self::default();
        let shared = Arc::clone(&survey.0);
        std::thread::Builder::new().name("sluice-survey".to_owned()).spawn(move || shared.run())?;
        Ok(survey)
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
                let _ = record.as_mut().map(Record::update);
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
fn limit(leader: Pid, limits: &ProcessLimits) {
    let own = rustix::process::getpid();
    let mut done = BTreeSet::new();
    let mut known: Option<Seen> = None;
    for look in 0..MAX_LIMIT_LOOKS {
        let Ok(tree) = Tree::read() else { return };
        // The leader may have ended meanwhile, and another have its id.
        let Some(found) = tree.child_of(own, leader) else { return };
        if *known.get_or_insert(found) != found {
            return;
        }
        if look == 0 && found.runs() {
            limits.impose(leader);
        }
        let new: Vec<Seen> = tree.below(leader).into_iter().filter(|seen| done.insert(*seen)).collect();
        if new.is_empty() && look > 0 {
            return;
        }
        for seen in new.into_iter().filter(|seen| seen.runs()) {
            Pid::from_raw(seen.pid).inspect(|pid| limits.impose(*pid));
        }
    }
}
