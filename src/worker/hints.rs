//! The hints of a child's tools that decide whether a call may be sent again. Learnt from every answer to `tools/list`,
//! forgotten when the list changes, and never taken over from another child.

use std::collections::HashMap;

use serde::Deserialize;

use crate::config::Resend;
use crate::jsonrpc::{elements, member, text};

/// The most tools of one child whose hints are known.
const TOOLS: usize = 4096;
/// The longest name of a tool whose hints are known, in bytes.
const NAME: usize = 256;

/// The hints of one tool (2025-03-26 and later, "Tool annotations"). A missing hint is false.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Hint {
    read_only_hint: bool,
    idempotent_hint: bool,
}

/// The hints of a child's tools.
#[derive(Debug, Default)]
pub(super) struct Hints(HashMap<String, Hint>);

impl Hints {
    /// Notes the hints in one page of the list, the raw JSON of a result. The first page replaces all hints.
    pub(super) fn note(&mut self, result: &str, is_first_page: bool) {
        if is_first_page {
            self.0.clear();
        }
        let tools = member(result, "tools").into_iter().flat_map(elements).map_while(Result::ok);
        for tool in tools {
            let name = member(tool, "name").filter(|name| name.len() <= 6 * NAME).and_then(text);
            let Some(name) = name.filter(|name| name.len() <= NAME && self.0.len() < TOOLS) else { continue };
            let said = member(tool, "annotations").and_then(|said| serde_json::from_str::<Hint>(said).ok());
            self.0.insert(name.into_owned(), said.unwrap_or_default());
        }
    }

    /// Forgets all hints, as the list has changed.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether a call of a tool may be sent again under this setting. `None` if that depends on hints that are not
    /// known.
    pub(super) fn allow(&self, resend: Resend, tool: &str) -> Option<bool> {
        let hint = || self.0.get(tool);
        match resend {
            Resend::Never => Some(false),
            Resend::Always => Some(true),
            Resend::ReadOnly => hint().map(|hint| hint.read_only_hint),
            Resend::Idempotent => hint().map(|hint| hint.read_only_hint || hint.idempotent_hint),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{"tools":[
        {"name":"look","annotations":{"readOnlyHint":true}},
        {"name":"set","annotations":{"readOnlyHint":false,"idempotentHint":true,"title":"Set"}},
        {"name":"add"},{"name":"odd","annotations":"yes"},{"name":"none","annotations":null}]}"#;

    #[test]
    fn a_tool_says_what_may_be_done_with_it_and_silence_is_no() {
        let mut hints = Hints::default();
        assert_eq!(hints.allow(Resend::ReadOnly, "look"), None);
        hints.note(LIST, true);
        for (tool, read_only, idempotent) in [
            ("look", true, true),
            ("set", false, true),
            ("add", false, false),
            ("odd", false, false),
            ("none", false, false),
        ] {
            assert_eq!(hints.allow(Resend::ReadOnly, tool), Some(read_only), "{tool}");
            assert_eq!(hints.allow(Resend::Idempotent, tool), Some(idempotent), "{tool}");
            assert_eq!(hints.allow(Resend::Never, tool), Some(false));
            assert_eq!(hints.allow(Resend::Always, tool), Some(true));
        }
        assert_eq!(hints.allow(Resend::Idempotent, "unheard of"), None);
    }

    #[test]
    fn pages_add_up_and_a_new_list_forgets_the_old_one() {
        let mut hints = Hints::default();
        hints.note(LIST, true);
        hints.note(r#"{"tools":[{"name":"more","annotations":{"readOnlyHint":true}}]}"#, false);
        assert_eq!(hints.allow(Resend::ReadOnly, "look"), Some(true));
        assert_eq!(hints.allow(Resend::ReadOnly, "more"), Some(true));
        hints.note(r#"{"tools":[{"name":"more"}]}"#, true);
        assert_eq!(hints.allow(Resend::ReadOnly, "look"), None);
        assert_eq!(hints.allow(Resend::ReadOnly, "more"), Some(false));
        hints.note("[]", true);
        assert_eq!(hints.allow(Resend::ReadOnly, "more"), None, "what cannot be read says nothing");
    }

    #[test]
    fn a_list_without_end_is_remembered_in_part() {
        let mut hints = Hints::default();
        let tools: Vec<String> = (0..TOOLS + 5).map(|number| format!(r#"{{"name":"{number}"}}"#)).collect();
        hints.note(&format!(r#"{{"tools":[{}]}}"#, tools.join(",")), true);
        assert_eq!(hints.0.len(), TOOLS);
    }
}
