//! Tasks (MCP 2025-11-25, "Tasks"): their owners, their progress, and for how long a child is kept for them.

use bytes::Bytes;
use tokio::time::Instant;

use super::call::Call;
use super::lease_id::LeaseId;
use super::live_tasks::LiveTask;
use super::reported::Reported;
use super::table::Multiplexer;
use crate::jsonrpc::{Envelope, quoted};
use crate::mcp::{TaskState, TaskStatus, method, task_asked_about, task_state};

impl Multiplexer {
    /// Takes note of what an answer says about tasks.
    pub(super) fn note_tasks(&mut self, call: &Call, envelope: &Envelope<'_>, reported: Reported, now: Instant) {
        if let Some(task) = &call.task {
            let status = match task_state(&envelope.members).filter(|state| state.id == *task) {
                // The result of a task is there when it is over, and not before.
                _ if call.method == method::TASKS_RESULT => TaskStatus::Gone,
                // Asked again and again, it would keep the child for ever.
                None if call.method == method::TASKS_GET && reported.knows_no_task => TaskStatus::Gone,
                Some(state) => state.status,
                None => TaskStatus::Working,
            };
            self.task_heard_of(task, status, now);
        }
        if let Some(TaskState { id, status }) = reported.created {
            self.tasks.insert(&id, call.peer);
            // A server that names the task of another does not make it this session's.
            if status != TaskStatus::Gone && self.tasks.get(&id) == Some(call.peer) {
                let (peer, token, timeout) = (call.peer, call.progress_token.clone(), call.timeout);
                let is_over = status == TaskStatus::Ended;
                let until = Some(now + timeout);
                let number = call.number;
                self.live_tasks.insert(LiveTask { number, peer, id, token, is_over, is_orphan: false, until, timeout });
                self.timer.no_later_than(now + timeout);
                if !is_over {
                    self.note_abandoned(number, peer, now, timeout);
                }
            }
        }
    }

    /// A call that was given up has become a task, which nobody knows of and will ask for: the child still works for whoever
    /// made the call, and is told to stop.
    pub(super) fn abandon_task(&mut self, number: u64, id: String, now: Instant) -> Option<Bytes> {
        let (peer, timeout, number) = self.abandoned.of(number)?;
        let is_new = self.tasks.get(&id).is_none() && self.live_tasks.find(&id).is_none();
        if is_new {
            let (id, token, until) = (id.clone(), None, None);
            let task = LiveTask { number, peer, id, token, is_over: false, is_orphan: true, until, timeout };
            self.live_tasks.insert(task);
        }
        self.note_abandoned(number, peer, now, timeout);
        is_new.then(|| self.cancellation_of_task(&id))
    }

    /// What the child hears of a task that nobody can ask for any more.
    pub(super) fn cancellation_of_task(&mut self, id: &str) -> Bytes {
        self.own_request(method::TASKS_CANCEL, &format!(r#"{{"taskId":{}}}"#, quoted(id))).1
    }

    /// The child has spoken of a task: it is over, or goes on.
    pub(super) fn task_heard_of(&mut self, id: &str, status: TaskStatus, now: Instant) {
        let Some(number) = self.live_tasks.find(id) else { return };
        match self.live_tasks.heard_of(number, status).map(|task| (task.number, task.peer, task.timeout)) {
            Some((number, peer, timeout)) => self.note_abandoned(number, peer, now, timeout),
            None => self.abandoned.remove(number),
        }
        self.keep_task(number, now);
    }

    /// The child or its session has spoken of the task that the call with this number has made: the child stays for it.
    pub(super) fn keep_task(&mut self, number: u64, now: Instant) {
        let Some(task) = self.live_tasks.tasks.get_mut(&number) else { return };
        task.renew(now);
        task.until.into_iter().for_each(|until| self.timer.no_later_than(until));
    }

    /// Whether the child works on a task that somebody waits for.
    pub(in crate::worker) fn works_on_task(&self) -> bool {
        self.live_tasks.awaited().any(|task| !task.is_over)
    }

    /// Whether a request is about a task of a session that is on the child for that, or for something else: then a child that
    /// takes no new calls takes it all the same.
    pub(in crate::worker) fn is_about_task_here(&self, peer: LeaseId, envelope: &Envelope<'_>) -> bool {
        let task = task_asked_about(envelope);
        // Who has nothing in flight may be about to be let go.
        task.is_some_and(|task| self.tasks.get(&task) == Some(peer)) && !self.is_idle_for(peer)
    }

    /// Whether a task is a session's.
    pub(in crate::worker) fn owns_task(&self, peer: LeaseId, task: &str) -> bool {
        self.tasks.get(task) == Some(peer)
    }
}
