//! The tasks of a child that their sessions may come back for, or that are not known to be over.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::lease_id::LeaseId;
use super::numbers::Number;
use crate::jsonrpc::RawId;
use crate::mcp::TaskStatus;

/// A task that its session may come back for, or that is not known to be over.
#[derive(Debug)]
pub(super) struct LiveTask {
    /// The number of the call that made it.
    pub(super) number: Number,
    pub(super) peer: LeaseId,
    pub(super) id: String,
    /// What its progress is called by its client, if that is there and wants to know.
    pub(super) token: Option<RawId>,
    /// Whether only its result is left, which has not been fetched.
    pub(super) is_over: bool,
    /// Whether its session has left.
    pub(super) is_orphan: bool,
    /// Until when its session is believed to come back for it, unless one of the two speaks of it again.
    pub(super) until: Option<Instant>,
    pub(super) timeout: Duration,
}

impl LiveTask {
    pub(super) fn renew(&mut self, now: Instant) {
        self.until = (!self.is_orphan).then(|| now + self.timeout);
    }
}

/// Tasks, by the number of the call that made each. Bounded: the oldest is forgotten, of those that are over if there are any.
/// No progress of it is passed on any more, and the child does not stay for it.
#[derive(Debug)]
pub(super) struct LiveTasks {
    pub(super) tasks: BTreeMap<u64, LiveTask>,
    capacity: usize,
}

impl LiveTasks {
    pub(super) fn new(capacity: usize) -> Self {
        Self { tasks: BTreeMap::new(), capacity }
    }

    pub(super) fn insert(&mut self, task: LiveTask) {
        self.tasks.insert(task.number.wire, task);
        if self.tasks.len() > self.capacity {
            let oldest = self.tasks.values().min_by_key(|task| (!task.is_over, task.number.order));
            if let Some(oldest) = oldest.map(|task| task.number.wire) {
                self.tasks.remove(&oldest);
            }
        }
    }

    /// Whether a task was made by the call with this number.
    pub(super) fn has(&self, number: u64) -> bool {
        self.tasks.contains_key(&number)
    }

    /// The task that a call has made, if it is not known to be over.
    pub(super) fn working(&self, number: u64) -> Option<&LiveTask> {
        self.tasks.get(&number).filter(|task| !task.is_over)
    }

    /// Those that their sessions may come back for.
    pub(super) fn awaited(&self) -> impl Iterator<Item = &LiveTask> {
        self.tasks.values().filter(|task| task.until.is_some())
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    pub(super) fn find(&self, id: &str) -> Option<u64> {
        // A child that names two tasks alike means the one that was made first.
        let found = self.tasks.values().filter(|task| task.id == id).min_by_key(|task| task.number.order);
        found.map(|task| task.number.wire)
    }

    /// The child has spoken of a task: that, if it goes on.
    pub(super) fn heard_of(&mut self, number: u64, status: TaskStatus) -> Option<&LiveTask> {
        let task = self.tasks.get_mut(&number)?;
        task.is_over |= status != TaskStatus::Working;
        if status == TaskStatus::Gone || (task.is_over && task.is_orphan) {
            self.tasks.remove(&number);
            return None;
        }
        self.working(number)
    }

    /// Nobody is believed to come back for what has not been spoken of for too long. When the next is due.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Instant> {
        self.tasks.retain(|_, task| {
            task.until = task.until.filter(|until| *until > now);
            // One that goes on may still be heard of.
            task.until.is_some() || !task.is_over
        });
        self.awaited().filter_map(|task| task.until).min()
    }

    /// A session has left its tasks behind, which stay until they are over: nobody hears of their progress. Which they are.
    pub(super) fn orphan(&mut self, peer: LeaseId) -> Vec<String> {
        self.tasks.retain(|_, task| task.peer != peer || !task.is_over);
        let left = self.tasks.values_mut().filter(|task| task.peer == peer);
        left.map(|task| {
            (task.token, task.until, task.is_orphan) = (None, None, true);
            task.id.clone()
        })
        .collect()
    }
}
