//! The MCP handshake of a link, kept in order to replay the client's `initialize` to each later child.

use std::sync::Arc;

use bytes::Bytes;

use crate::jsonrpc::{RawId, member, parse};
use crate::stream::Exchange;
use crate::worker::Negotiated;

/// The largest accepted `initialize` request, in bytes. The request is kept for the life of the link.
pub(super) const MAX_INITIALIZE: usize = 256 * 1024;

/// The progress of the handshake.
#[derive(Debug, Default)]
pub(super) enum Handshake {
    /// The client has not sent `initialize`, or the last `initialize` failed.
    #[default]
    None,
    /// The client's `initialize` is in flight; whoever takes this out of the state delivers the answer.
    Initializing(Unanswered),
    /// `initialize` succeeded.
    Done(Box<Done>),
}

/// An `initialize` request without an answer so far.
#[derive(Debug)]
pub(super) struct Unanswered {
    /// The client's id of the request.
    pub(super) id: RawId,
    /// The exchange that receives the answer.
    pub(super) exchange: Arc<Exchange>,
}

/// A successful handshake, with everything that a replay to another child needs.
#[derive(Debug)]
pub(super) struct Done {
    /// The client's `initialize` request, byte for byte.
    pub(super) initialize: Bytes,
    /// The negotiated protocol version.
    pub(super) version: String,
    /// The lists (`tools`, `prompts`, `resources`) whose changes the server announces.
    pub(super) lists: Vec<&'static str>,
    /// The log level and subscriptions granted by earlier children. Those of the current child are with its lease.
    pub(super) negotiated: Negotiated,
}

impl Handshake {
    /// The successful handshake, if there is one.
    pub(super) fn done(&self) -> Option<&Done> {
        if let Self::Done(done) = self { Some(done) } else { None }
    }

    /// Whether a child that is started now would have no use: no `initialize` is in flight or has succeeded.
    pub(super) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Takes the unanswered `initialize` out, which leaves [`Handshake::None`]; `None` and unchanged in any other
    /// state.
    pub(super) fn take_unanswered(&mut self) -> Option<Unanswered> {
        match std::mem::take(self) {
            Self::Initializing(unanswered) => return Some(unanswered),
            other => *self = other,
        }
        None
    }
}

/// The lists whose changes an answer to `initialize` declares with `listChanged`. `None` if the answer has no
/// capabilities.
pub(super) fn announced_lists(answer: &[u8]) -> Option<Vec<&'static str>> {
    let capabilities = parse(answer).ok()?.members.capabilities?;
    let setting = |list: &str| member(member(capabilities, list)?, "listChanged");
    let is_announced = |list: &&str| setting(list) == Some("true");
    Some(["tools", "prompts", "resources"].into_iter().filter(is_announced).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_those_whose_changes_are_declared() {
        let of = |capabilities: &str| {
            let text = format!(
                r#"{{"jsonrpc":"2.0","id":1,"result":{{"protocolVersion":"x","capabilities":{capabilities}}}}}"#
            );
            announced_lists(text.as_bytes()).unwrap_or_default()
        };
        assert_eq!(
            of(
                r#"{"tools":{"listChanged":true},"prompts":{"listChanged":true},"resources":{"subscribe":true,"listChanged":true}}"#
            ),
            ["tools", "prompts", "resources"]
        );
        assert_eq!(
            of(r#"{"tools":{"listChanged":false},"prompts":{},"resources":{"listChanged":true}}"#),
            ["resources"]
        );
        assert_eq!(of(r#"{"tools":{"listChanged":"yes"},"prompts":null,"resources":7}"#), [""; 0]);
        for nothing in ["{}", "null", "7", r#"{"logging":{"listChanged":true}}"#] {
            assert!(of(nothing).is_empty(), "{nothing}");
        }
    }
}
