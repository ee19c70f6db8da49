//! The few members of `params` and `result` that routing needs. Everything else stays as the bytes it came in.

use serde::Deserialize;
use serde_json::value::RawValue;

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
        params.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }
}

/// The text of a raw JSON string.
pub(super) fn text(raw: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(raw?.get()).ok()
}

/// Whether a text holds a word: spares the parsing of what has nothing to find.
pub(super) fn mentions(text: &str, word: &str) -> bool {
    memchr::memmem::find(text.as_bytes(), word.as_bytes()).is_some()
}

/// The raw `params._meta.progressToken`, if there is one that may be a token.
pub(super) fn progress_token<'a>(params: Option<&'a str>) -> Option<&'a str> {
    let params = params.filter(|text| mentions(text, "progressToken"))?;
    let meta: Meta<'a> = serde_json::from_str(Params::read(Some(params)).meta?.get()).ok()?;
    meta.progress_token.map(RawValue::get)
}

/// The task that a message of the server says it belongs to (2025-11-25, "Tasks").
pub(super) fn related_task(params: Option<&str>) -> Option<String> {
    let params = params.filter(|text| mentions(text, "related-task"))?;
    let meta: Meta<'_> = serde_json::from_str(Params::read(Some(params)).meta?.get()).ok()?;
    text(Params::read(Some(meta.related_task?.get())).task_id)
}

/// The task that a result announces.
pub(super) fn created_task(result: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Created<'a> {
        #[serde(borrow)]
        task: &'a RawValue,
    }
    let created: Created<'_> =
        Some(result).filter(|text| mentions(text, "taskId")).and_then(|t| serde_json::from_str(t).ok())?;
    text(Params::read(Some(created.task.get())).task_id)
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
