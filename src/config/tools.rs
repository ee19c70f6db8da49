//! Reads `[servers.NAME.tools.TOOL]`: the settings of single tools.

use std::collections::BTreeMap;
use std::time::Duration;

use super::section::Section;

const MS: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The words of `restart.resend`.
pub(super) const RESENDS: [(&str, Resend); 3] =
    [("never", Resend::Never), ("read_only", Resend::ReadOnly), ("idempotent", Resend::Idempotent)];

/// Which calls are sent again when the child crashed in the middle of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resend {
    /// None.
    Never,
    /// Those of tools that say `readOnlyHint`.
    ReadOnly,
    /// Calls of tools that declare `readOnlyHint` or `idempotentHint` are sent again after a crash.
    Idempotent,
    /// All, whatever they say. For single tools only.
    Always,
}

/// What is particular to a tool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tool {
    /// From a call to its answer; progress starts it anew. `None`: the limit of all calls.
    pub timeout: Option<Duration>,
    /// Whether a call is sent again after a crash. `None`: as its annotations and `restart.resend` say.
    pub resend: Option<bool>,
}

/// Reads the tools of a server. Their names are the server's own, and not checked.
pub(super) fn read(sections: Vec<(String, Section<'_>)>) -> BTreeMap<String, Tool> {
    let tool = |(name, mut section): (String, Section<'_>)| {
        let tool = Tool { timeout: section.optional_duration("timeout", MS..=DAY), resend: section.flag("resend") };
        if section.is_present() && !section.has("timeout") && !section.has("resend") {
            section.reading.warning(&section.path, "says nothing; give it a timeout or resend, or remove it");
        }
        section.finish();
        (name, tool)
    };
    sections.into_iter().map(tool).collect()
}
