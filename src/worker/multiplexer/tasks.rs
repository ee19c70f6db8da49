//! Tasks (2025-11-25, "Tasks"): whose they are, and the progress tokens that live as long as they do.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::params::{TaskState, created_task, listed_tasks, task_state};
use super::{Call, Multiplexer, PeerId};
use crate::jsonrpc::{Code, Envelope, RawId, Splice, error_response, splice};

/// A task that is not known to be over.
#[derive(Debug)]
pub(super) struct LiveTask {
    pub(super) peer: PeerId,
    pub(super) id: String,
    /// What its progress is called by its client, if that is there and wants to know.
    pub(super) token: Option<RawId>,
    pub(super) timeout: Duration,
}

/// Tasks that are not known to be over, by the number of the call that made each. Bounded: of the oldest no progress is
/// passed on any more.
#[derive(Debug)]
pub(super) struct LiveTasks {
    tasks: BTreeMap<u64, LiveTask>,
    capacity: usize,
}

impl LiveTasks {
    pub(super) fn new(capacity: usize) -> Self {
        Self { tasks: BTreeMap::new(), capacity }
    }

    fn insert(&mut self, number: u64, task: LiveTask) {
        self.tasks.insert(number, task);
        if self.tasks.len() > self.capacity {
            self.tasks.pop_first();
        }
    }

    pub(super) fn get(&self, number: u64) -> Option<&LiveTask> {
        self.tasks.get(&number)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    fn find(&self, id: &str) -> Option<u64> {
        self.tasks.iter().find(|(_, task)| task.id == id).map(|(number, _)| *number)
    }

    /// A session has left its tasks behind, which stay until they are over: nobody hears of their progress. Which they are.
    pub(super) fn orphan(&mut self, peer: PeerId) -> Vec<String> {
        let left = self.tasks.values_mut().filter(|task| task.peer == peer);
        left.map(|task| {
            task.token = None;
            task.id.clone()
        })
        .collect()
    }
}

impl Multiplexer {
    /// Takes note of what an answer says about tasks.
    pub(super) fn note_tasks(&mut self, number: u64, call: &Call, envelope: &Envelope<'_>, now: Instant) {
        if let Some(task) = &call.task {
            // The result of a task is there when it is over, and not before.
            let state = envelope.result.and_then(task_state).filter(|state| state.id == *task);
            let is_over = call.method == "tasks/result" || state.is_some_and(|state| state.is_over);
            self.task_heard_of(task, is_over, now);
        }
        if let Some(TaskState { id, is_over }) = envelope.result.and_then(created_task) {
            self.tasks.insert(id.clone(), call.peer);
            // A server that names the task of another does not make it this session's.
            if !is_over && self.tasks.get(&id) == Some(call.peer) {
                let (peer, token, timeout) = (call.peer, call.progress_token.clone(), call.timeout);
                self.live_tasks.insert(number, LiveTask { peer, id, token, timeout });
                self.linger(number, peer, now, timeout);
            }
        }
    }

    /// The child has spoken of a task: it is over, or goes on.
    pub(super) fn task_heard_of(&mut self, id: &str, is_over: bool, now: Instant) {
        let Some(number) = self.live_tasks.find(id) else { return };
        if is_over {
            self.live_tasks.tasks.remove(&number);
            self.lingering.remove(number);
        } else if let Some(task) = self.live_tasks.get(number) {
            self.linger(number, task.peer, now, task.timeout);
        }
    }

    /// The answer to `tasks/list`, without the tasks of others.
    pub(super) fn only_own_tasks(&self, message: &Bytes, envelope: &Envelope<'_>, call: &Call) -> Bytes {
        let Some((old, result)) = envelope.id.zip(envelope.result) else { return message.clone() };
        let Ok((list, tasks)) = listed_tasks(result) else {
            let text = "the list of tasks cannot be read, and may hold those of others";
            return error_response(Some(&call.original), Code::Internal, text);
        };
        let own = tasks.into_iter().filter(|(id, _)| id.as_ref().and_then(|id| self.tasks.get(id)) == Some(call.peer));
        let own = format!("[{}]", own.map(|(_, task)| task).collect::<Vec<_>>().join(","));
        let mut replacements = vec![Splice { old, new: call.original.as_str() }];
        replacements.extend(list.map(|list| Splice { old: list, new: &own }));
        splice(message, &mut replacements).freeze()
    }
}
