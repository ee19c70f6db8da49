//! Tasks (MCP 2025-11-25, "Tasks"): their progress, and for how long a child is kept for them.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{Call, DeadlineTimer, LeaseId, Number, Reported, Sharing, insert_bounded};
use crate::jsonrpc::{Envelope, RawId};
use crate::mcp::{TaskState, TaskStatus, method, task_state};

/// A task that is not over, or whose result its session may still fetch.
#[derive(Debug)]
pub(super) struct LiveTask {
    /// The number of the call that made the task.
    number: Number,
    pub(super) peer: LeaseId,
    pub(super) id: String,
    /// The client's progress token; `None` if the client gave none, or has left.
    pub(super) token: Option<RawId>,
    /// Whether the task has ended, and the session has not fetched the result.
    pub(super) is_over: bool,
    /// Whether the session has left.
    is_orphan: bool,
    /// When the child is no longer kept for the task, unless the child or the session names the task again. `None`: the
    /// child is not kept.
    until: Option<Instant>,
    /// The time-out of the call that made the task.
    timeout: Duration,
}

/// Tasks, by the number of the call that made each. Holds at most `capacity`: then the oldest of those that are over is
/// forgotten, or else the oldest of all. The progress of a forgotten task is no longer passed on, and the child is not
/// kept for the task.
#[derive(Debug)]
pub(super) struct LiveTasks {
    tasks: BTreeMap<u64, LiveTask>,
    capacity: usize,
}

impl LiveTasks {
    pub(super) fn new(capacity: usize) -> Self {
        Self { tasks: BTreeMap::new(), capacity }
    }

    fn insert(&mut self, task: LiveTask) {
        let age = |task: &LiveTask| (!task.is_over, task.number.order);
        insert_bounded(&mut self.tasks, self.capacity, (task.number.wire, task), age);
    }

    /// Whether the call with this number has made a task.
    pub(super) fn has(&self, number: u64) -> bool {
        self.tasks.contains_key(&number)
    }

    /// The task that a call has made, if the task is not known to be over.
    pub(super) fn working(&self, number: u64) -> Option<&LiveTask> {
        self.tasks.get(&number).filter(|task| !task.is_over)
    }

    /// The tasks that the child is kept for.
    pub(super) fn awaited(&self) -> impl Iterator<Item = &LiveTask> {
        self.tasks.values().filter(|task| task.until.is_some())
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The number of the call that made a task. Of two tasks with the same id, the one that was made first.
    pub(super) fn find(&self, id: &str) -> Option<u64> {
        let found = self.tasks.values().filter(|task| task.id == id).min_by_key(|task| task.number.order);
        found.map(|task| task.number.wire)
    }

    /// Notes what the answer to a call says about tasks: the state of the task that the call asked about, and a new
    /// task.
    pub(super) fn note_answer(
        &mut self,
        call: &Call,
        envelope: &Envelope<'_>,
        reported: Reported,
        (sharing, timer): (&mut Sharing, &mut DeadlineTimer),
        now: Instant,
    ) {
        if let Some(task) = &call.task {
            let status = match task_state(&envelope.members).filter(|state| state.id == *task) {
                // The result of a task is there when the task is over, and not before.
                _ if call.method == method::TASKS_RESULT => TaskStatus::Gone,
                // Asked for again and again, an unknown task would keep the child for ever.
                None if call.method == method::TASKS_GET && reported.knows_no_task => TaskStatus::Gone,
                Some(state) => state.status,
                None => TaskStatus::Working,
            };
            self.heard_of(task, status, (sharing, timer), now);
        }
        let Some(TaskState { id, status }) = reported.created else { return };
        sharing.tasks.insert(&id, call.peer);
        // A server that names the task of another session does not make the task this session's.
        if status == TaskStatus::Gone || sharing.tasks.get(&id) != Some(call.peer) {
            return;
        }
        let (number, peer, token, timeout) = (call.number, call.peer, call.progress_token.clone(), call.timeout());
        let (is_over, until) = (status == TaskStatus::Ended, now + timeout);
        self.insert(LiveTask { number, peer, id, token, is_over, is_orphan: false, until: Some(until), timeout });
        timer.no_later_than(until);
        if !is_over {
            sharing.abandon(number, peer, now, timeout);
        }
    }

    /// An abandoned call has made a task, which no session knows of. Returns whether the child is to be told to cancel
    /// the task: not if the call is no longer known, or the id is that of another task.
    pub(super) fn abandon(&mut self, number: u64, id: &str, sharing: &mut Sharing, now: Instant) -> bool {
        let Some((peer, timeout, number)) = sharing.abandoned.get(number) else { return false };
        let is_new = sharing.tasks.get(id).is_none() && self.find(id).is_none();
        if is_new {
            let (id, token, until) = (id.to_owned(), None, None);
            self.insert(LiveTask { number, peer, id, token, is_over: false, is_orphan: true, until, timeout });
        }
        sharing.abandon(number, peer, now, timeout);
        is_new
    }

    /// Notes the state of a task that the child has named.
    pub(super) fn heard_of(
        &mut self,
        id: &str,
        status: TaskStatus,
        (sharing, timer): (&mut Sharing, &mut DeadlineTimer),
        now: Instant,
    ) {
        let Some(number) = self.find(id) else { return };
        let Some(task) = self.tasks.get_mut(&number) else { return };
        task.is_over |= status != TaskStatus::Working;
        if task.is_over {
            sharing.abandoned.remove(number);
        } else {
            sharing.abandon(task.number, task.peer, now, task.timeout);
        }
        if status == TaskStatus::Gone || (task.is_over && task.is_orphan) {
            self.tasks.remove(&number);
        }
        self.keep(number, timer, now);
    }

    /// The child or the session has named the task of this call: the child is kept for the task for its time-out again.
    pub(super) fn keep(&mut self, number: u64, timer: &mut DeadlineTimer, now: Instant) {
        if let Some(task) = self.tasks.get_mut(&number).filter(|task| !task.is_orphan) {
            task.until = Some(now + task.timeout);
            timer.no_later_than(now + task.timeout);
        }
    }

    /// Ends the keeping of tasks that nobody has named for too long, and forgets those that are over. Returns when the
    /// next is due.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Instant> {
        self.tasks.retain(|_, task| {
            task.until = task.until.filter(|until| *until > now);
            // The child may still send word of a task that goes on.
            task.until.is_some() || !task.is_over
        });
        self.awaited().filter_map(|task| task.until).min()
    }

    /// A session has left. Its tasks stay until they are over, but their progress goes nowhere. Returns their ids.
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
