//! `tools/call`.

use std::borrow::Cow;

use super::method::TOOLS_CALL;
use crate::jsonrpc::{Envelope, text};

/// The name of the tool that a message calls. `None` for messages of other methods, and for a name that is no string.
pub fn called_tool<'a>(envelope: &Envelope<'a>) -> Option<Cow<'a, str>> {
    let is_call = envelope.method.as_deref() == Some(TOOLS_CALL);
    text(envelope.members.name.filter(|_| is_call)?)
}
