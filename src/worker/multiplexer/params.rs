//! What the members of `params`, `result` and `error` say to routing. Everything else stays as the bytes it came in.

use std::borrow::Cow;

use super::LABEL;
use crate::jsonrpc::{Envelope, Fault, Malformed, Members, elements, member, text};

/// Elicitations that one error may ask for; beyond it they are nobody's.
const ELICITATIONS: usize = 64;

/// The text of a raw JSON string that names something, if it is not too long to be kept.
pub(super) fn label(raw: Option<&str>) -> Option<Cow<'_, str>> {
    // No character of it takes more than six to be written.
    let short = raw.filter(|raw| raw.len() <= 6 * LABEL + 2)?;
    text(short).filter(|text| text.len() <= LABEL)
}

/// The task that a message of the server says it belongs to (2025-11-25, "Tasks").
pub(super) fn related_task<'a>(envelope: &Envelope<'a>) -> Option<Cow<'a, str>> {
    label(envelope.members.related_task())
}

/// What is said of a task.
pub(super) struct TaskState {
    pub(super) id: String,
    pub(super) status: TaskStatus,
}

/// What can still become of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TaskStatus {
    /// It goes on.
    Working,
    /// It is over, and its result can be fetched.
    Ended,
    /// Nothing: it was cancelled, or its result has been fetched.
    Gone,
}

/// The task that a request is about, if it is of a method that is about one.
pub(super) fn task_asked_about(envelope: &Envelope<'_>) -> Option<String> {
    let method = envelope.method.as_deref().unwrap_or_default();
    let is_about_one = matches!(method, "tasks/get" | "tasks/result" | "tasks/cancel" | "tasks/update");
    is_about_one.then(|| label(envelope.members.task_id).map(Cow::into_owned)).flatten()
}

/// What an object says that is a task itself: the params of `notifications/tasks/status`, the results of `tasks/get` and
/// `tasks/cancel`. Nothing, where a member is there twice: which of them is meant, nobody can tell.
pub(super) fn task_state(object: &Members<'_>) -> Option<TaskState> {
    if is_twofold(object) {
        return None;
    }
    let status = match object.status {
        Some("\"completed\"" | "\"failed\"") => TaskStatus::Ended,
        Some("\"cancelled\"") => TaskStatus::Gone,
        _ => TaskStatus::Working,
    };
    Some(TaskState { id: label(object.task_id)?.into_owned(), status })
}

/// Whether an object has a member twice that routing reads.
pub(super) fn is_twofold(object: &Members<'_>) -> bool {
    matches!(object.fault, Some(Fault::Twice(_)))
}

/// Whether an error in answer to `tasks/get` says that there is no such task (2025-11-25, "Tasks", "Error Handling").
pub(super) fn knows_no_task(envelope: &Envelope<'_>) -> bool {
    envelope.error_code() == Some(-32602)
}

/// The task that a result announces.
pub(super) fn created_task(envelope: &Envelope<'_>) -> Option<TaskState> {
    let task = envelope.members.task.filter(|_| envelope.result.is_some() && !is_twofold(&envelope.members))?;
    task_state(&Members::of(task))
}

/// Takes each task of a list in a result of `tasks/list`, with its id where that can be read.
pub(super) fn each_task<'a>(
    list: &'a str,
    mut take: impl FnMut(Option<Cow<'a, str>>, &'a str),
) -> Result<(), Malformed> {
    for task in elements(list) {
        let task = task?;
        let members = Members::of(task);
        take(label(members.task_id).filter(|_| !is_twofold(&members)), task);
    }
    Ok(())
}

/// Takes the URL elicitations that an error asks for (2025-11-25, code -32042).
pub(super) fn each_elicitation(envelope: &Envelope<'_>, mut take: impl FnMut(&str)) {
    let list = || member(member(envelope.error?, "data")?, "elicitations");
    let Some(list) = Some(()).filter(|()| envelope.error_code() == Some(-32042)).and_then(|()| list()) else { return };
    for elicitation in elements(list).map_while(Result::ok).take(ELICITATIONS) {
        label(member(elicitation, "elicitationId")).into_iter().for_each(|id| take(&id));
    }
}
