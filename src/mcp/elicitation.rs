//! Elicitations by URL: an error of a server that asks the client to open some (MCP 2025-11-25).

use super::label::label;
use crate::jsonrpc::{Envelope, elements, member};

/// The largest number of elicitations that are read from one error.
const MOST: usize = 64;

/// The code of an error that asks for elicitations.
const ELICITATION_REQUIRED: i64 = -32042;

/// Calls `take` with the id of each of the first [`MOST`] elicitations that an error asks for. An id that is no string
/// of at most 1 KiB is left out. An error with another code asks for none.
pub fn each_elicitation(envelope: &Envelope<'_>, mut take: impl FnMut(&str)) {
    let list = || member(member(envelope.error?, "data")?, "elicitations");
    let is_asking = envelope.error_code() == Some(ELICITATION_REQUIRED);
    let Some(list) = is_asking.then(list).flatten() else { return };
    for elicitation in elements(list).map_while(Result::ok).take(MOST) {
        label(member(elicitation, "elicitationId")).into_iter().for_each(|id| take(&id));
    }
}
