//! Tasks (MCP 2025-11-25, "Tasks"): which messages are about a task, and what they say of it.

use std::borrow::Cow;

use super::label::label;
use super::method::{TASKS_CANCEL, TASKS_GET, TASKS_RESULT, TASKS_UPDATE};
use crate::jsonrpc::{Envelope, Malformed, Members, elements};

/// The state of a task as a message reports it.
#[derive(Debug)]
pub struct TaskState {
    /// The id of the task.
    pub id: String,
    /// The status.
    pub status: TaskStatus,
}

impl TaskState {
    /// Whether the task goes on.
    pub fn is_working(&self) -> bool {
        self.status == TaskStatus::Working
    }
}

/// The status of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskStatus {
    /// The task is running, or waits for input.
    Working,
    /// The task has ended, and its result can be fetched.
    Ended,
    /// The task was cancelled, or its result has been fetched. Nothing more can be asked of it.
    Gone,
}

/// Whether the params of a method must name a task.
pub fn is_about_task(method: &str) -> bool {
    matches!(method, TASKS_GET | TASKS_RESULT | TASKS_CANCEL | TASKS_UPDATE)
}

/// The id of the task that a request is about. `None` for a method that is not about a single task, or without a
/// readable id.
pub fn task_asked_about(envelope: &Envelope<'_>) -> Option<String> {
    let is_about_one = is_about_task(envelope.method.as_deref().unwrap_or_default());
    is_about_one.then(|| label(envelope.members.task_id).map(Cow::into_owned)).flatten()
}

/// The id of the task that a message of a server says it belongs to.
pub fn related_task<'a>(envelope: &Envelope<'a>) -> Option<Cow<'a, str>> {
    label(envelope.members.related_task())
}

/// Reads an object that is a task: the params of `notifications/tasks/status`, the results of `tasks/get` and
/// `tasks/cancel`. An absent or unknown status counts as working. `None` if the object has no readable id, or a member
/// twice.
pub fn task_state(object: &Members<'_>) -> Option<TaskState> {
    if object.has_twin() {
        return None;
    }
    let status = match object.status {
        Some("\"completed\"" | "\"failed\"") => TaskStatus::Ended,
        Some("\"cancelled\"") => TaskStatus::Gone,
        _ => TaskStatus::Working,
    };
    Some(TaskState { id: label(object.task_id)?.into_owned(), status })
}

/// Whether an error in answer to `tasks/get` says that there is no such task ("Error Handling").
pub fn knows_no_task(envelope: &Envelope<'_>) -> bool {
    envelope.error_code() == Some(-32602)
}

/// The task that the result of a request announces. `None` for an error, for a result without a task, and if a member
/// appears twice.
pub fn created_task(envelope: &Envelope<'_>) -> Option<TaskState> {
    let task = envelope.members.task.filter(|_| envelope.result.is_some() && !envelope.members.has_twin())?;
    task_state(&Members::of(task))
}

/// Calls `take` for each task in the list of a `tasks/list` result: with the task's id, if it is readable and no member
/// appears twice, and with the task as raw JSON.
///
/// # Errors
/// The list is not JSON. Tasks before the fault have been taken.
pub fn each_task<'a>(list: &'a str, mut take: impl FnMut(Option<Cow<'a, str>>, &'a str)) -> Result<(), Malformed> {
    for task in elements(list) {
        let task = task?;
        let members = Members::of(task);
        take(label(members.task_id).filter(|_| !members.has_twin()), task);
    }
    Ok(())
}
