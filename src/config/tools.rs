//! Reads `[servers.NAME.tools.TOOL]`: the settings of single tools.

use std::collections::BTreeMap;
use std::time::Duration;

use super::section::Section;

const MS: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The words of `restart.resend`.
pub(super) const RESENDS: [(&str, Resend); 3] =
    [("never", Resend::Never), ("read_only", Resend::ReadOnly), ("idempotent", Resend::Idempotent)];

/// Which calls are sent to the next child if a child crashes during them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resend {
    /// None.
    Never,
    /// Calls of tools that declare `readOnlyHint`.
    ReadOnly,
    /// Calls of tools that declare `readOnlyHint` or `idempotentHint`.
    Idempotent,
    /// All calls, whatever the tool declares. Only `resend = true` of a single tool sets this.
    Always,
}

/// The settings of a tool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tool {
    /// The longest time from a call to its answer; progress starts the time anew. `None`: as `limits.call_timeout`
    /// says.
    pub timeout: Option<Duration>,
    /// Whether a call is sent again after a crash. `None`: as `restart.resend` says.
    pub resend: Option<bool>,
}

/// Reads the tools of a server. Their names are the server's, and are not checked.
pub(super) fn read(server: &mut Section<'_>) -> BTreeMap<String, Tool> {
    let tools = server.tables("tools", |name, s| {
        let tool = Tool { timeout: s.optional_duration("timeout", MS..=DAY), resend: s.flag("resend") };
        if s.is_present() && !s.has("timeout") && !s.has("resend") {
            s.reading.warning(&s.path, "says nothing; give it a timeout or resend, or remove it");
        }
        (name.to_owned(), tool)
    });
    tools.into_iter().collect()
}
