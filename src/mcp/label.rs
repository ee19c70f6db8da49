//! Ids, tokens and names that are kept for as long as something is in flight, and are bounded for that reason.

use std::borrow::Cow;

use crate::jsonrpc::text;

/// The longest id, progress token or name of a task that the gateway keeps, in bytes.
pub const LONGEST_LABEL: usize = 1024;

/// The text of a raw JSON string that names something. `None` if `raw` is absent, is no string, or has a text longer
/// than [`LONGEST_LABEL`].
pub fn label(raw: Option<&str>) -> Option<Cow<'_, str>> {
    // JSON writes no byte of a text with more than six.
    let short = raw.filter(|raw| raw.len() <= 6 * LONGEST_LABEL + 2)?;
    text(short).filter(|text| text.len() <= LONGEST_LABEL)
}
