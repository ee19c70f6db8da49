//! The few members of `params` and `result` that routing needs. Everything else stays as the bytes it came in.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::LABEL;

/// Members of `params`, raw.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct Params<'a> {
    #[serde(borrow, default, rename = "_meta")]
    pub(super) meta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) progress_token: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) request_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) uri: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) level: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) task_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) elicitation_id: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Meta<'a> {
    #[serde(borrow, default)]
    progress_token: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "io.modelcontextprotocol/related-task")]
    related_task: Option<&'a RawValue>,
}

impl<'a> Params<'a> {
    /// Params that are no object of this shape have none of these members: the child may judge them.
    pub(super) fn read(params: Option<&'a str>) -> Self {
        params.and_then(|text| members(text).ok()).unwrap_or_default()
    }
}

/// An object has a member twice: which of them the child takes, nobody can tell.
#[derive(Debug)]
pub(super) struct Ambiguous;

/// The members of an object. Anything else has none.
fn members<'a, T: Deserialize<'a> + Default>(text: &'a str) -> Result<T, Ambiguous> {
    if !text.starts_with('{') {
        return Ok(T::default());
    }
    serde_json::from_str(text).map_err(|_| Ambiguous)
}

/// The text of a raw JSON string.
pub(super) fn text(raw: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(raw?.get()).ok()
}

/// The text of a raw JSON string that names something, if it is not too long to be kept.
pub(super) fn label(raw: Option<&RawValue>) -> Option<String> {
    text(raw).filter(|text| text.len() <= LABEL)
}

/// Whether a text holds a word: spares the parsing of what has nothing to find.
pub(super) fn mentions(text: &str, word: &str) -> bool {
    memchr::memmem::find(text.as_bytes(), word.as_bytes()).is_some()
}

/// The raw `params._meta.progressToken`, if there is one.
pub(super) fn progress_token(params: Option<&str>) -> Result<Option<&str>, Ambiguous> {
    // An escape may hide the word, and a token that is not seen would be taken for one of the gateway's numbers.
    let may_have = |text: &&str| mentions(text, "progressToken") || mentions(text, "\\u");
    let Some(params) = params.filter(may_have) else { return Ok(None) };
    let Some(meta) = members::<Params<'_>>(params)?.meta else { return Ok(None) };
    Ok(members::<Meta<'_>>(meta.get())?.progress_token.map(RawValue::get))
}

/// The task that a message of the server says it belongs to (2025-11-25, "Tasks").
pub(super) fn related_task(params: Option<&str>) -> Option<String> {
    let params = params.filter(|text| mentions(text, "related-task"))?;
    let meta: Meta<'_> = members(Params::read(Some(params)).meta?.get()).ok()?;
    text(Params::read(Some(meta.related_task?.get())).task_id)
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
pub(super) fn task_asked_about(method: &str, params: Option<&str>) -> Option<String> {
    let is_about_one = matches!(method, "tasks/get" | "tasks/result" | "tasks/cancel" | "tasks/update");
    is_about_one.then(|| label(Params::read(params).task_id)).flatten()
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Task<'a> {
    #[serde(borrow, default)]
    task: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tasks: Option<&'a RawValue>,
    #[serde(borrow, default)]
    task_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    status: Option<&'a RawValue>,
}

/// What an object says that is a task itself: the params of `notifications/tasks/status`, the results of `tasks/get` and
/// `tasks/cancel`.
pub(super) fn task_state(object: &str) -> Option<TaskState> {
    let task: Task<'_> = members(object).ok()?;
    let status = match text(task.status).as_deref() {
        Some("completed" | "failed") => TaskStatus::Ended,
        Some("cancelled") => TaskStatus::Gone,
        _ => TaskStatus::Working,
    };
    Some(TaskState { id: label(task.task_id)?, status })
}

/// Whether an error in answer to `tasks/get` says that there is no such task (2025-11-25, "Tasks", "Error Handling").
pub(super) fn knows_no_task(message: &[u8]) -> bool {
    let message: serde_json::Value = serde_json::from_slice(message).unwrap_or_default();
    message.pointer("/error/code").and_then(serde_json::Value::as_i64) == Some(-32602)
}

/// The task that a result announces.
pub(super) fn created_task(result: &str) -> Option<TaskState> {
    let result = Some(result).filter(|text| mentions(text, "taskId"))?;
    task_state(members::<Task<'_>>(result).ok()?.task?.get())
}

/// The list in a result of `tasks/list`, and each task in it with its id.
#[expect(clippy::type_complexity, reason = "a list and what is in it")]
pub(super) fn listed_tasks(result: &str) -> Result<(Option<&str>, Vec<(Option<String>, &str)>), Ambiguous> {
    let Some(list) = members::<Task<'_>>(result)?.tasks else { return Ok((None, Vec::new())) };
    let tasks: Vec<&RawValue> = serde_json::from_str(list.get()).map_err(|_| Ambiguous)?;
    let with_id = |task: &'_ RawValue| members::<Task<'_>>(task.get()).ok().and_then(|members| text(members.task_id));
    Ok((Some(list.get()), tasks.into_iter().map(|task| (with_id(task), task.get())).collect()))
}

/// The URL elicitations that an error asks for (2025-11-25, code -32042).
pub(super) fn asked_elicitations(message: &[u8]) -> Vec<String> {
    if memchr::memmem::find(message, b"-32042").is_none() {
        return Vec::new();
    }
    let message: serde_json::Value = serde_json::from_slice(message).unwrap_or_default();
    let list = message.pointer("/error/data/elicitations").and_then(|list| list.as_array());
    let id = |entry: &serde_json::Value| entry.get("elicitationId")?.as_str().map(str::to_owned);
    list.into_iter().flatten().filter_map(id).collect()
}
