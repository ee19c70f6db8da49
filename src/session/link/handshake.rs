//! What the client and its child have agreed on: kept, so that a child that takes its place hears the same.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::jsonrpc::parse;
use crate::worker::Terms;

/// The largest `initialize`, in bytes: it is kept as long as the session.
pub(in crate::session) const INITIALIZE: usize = 256 * 1024;

/// Where the handshake of a session stands.
#[derive(Debug, Clone, Default)]
pub(in crate::session) enum Handshake {
    /// The client has not sent `initialize`.
    #[default]
    None,
    /// `initialize` is in flight.
    Initializing,
    /// `initialize` was answered.
    Done(Box<Done>),
}

/// A handshake that can be replayed.
#[derive(Debug, Clone)]
pub(in crate::session) struct Done {
    /// The client's `initialize` request, as it came.
    pub(in crate::session) initialize: Bytes,
    /// What was negotiated.
    pub(in crate::session) version: String,
    /// The lists that the server has said it tells the changes of.
    pub(in crate::session) lists: Vec<&'static str>,
    /// What else was agreed on with the children before the one that is there.
    pub(in crate::session) terms: Terms,
}

impl Done {
    /// The client's `initialize` was answered.
    pub(in crate::session) fn new(initialize: Bytes, version: String, answer: &[u8]) -> Self {
        Self { initialize, version, lists: lists(answer).unwrap_or_default(), terms: Terms::default() }
    }
}

/// The lists whose changes an answer to `initialize` declares (`listChanged`).
fn lists(answer: &[u8]) -> Option<Vec<&'static str>> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        capabilities: Capabilities<'a>,
    }
    #[derive(Deserialize)]
    struct Capabilities<'a> {
        #[serde(borrow, default)]
        tools: Option<&'a RawValue>,
        #[serde(borrow, default)]
        prompts: Option<&'a RawValue>,
        #[serde(borrow, default)]
        resources: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Capability {
        list_changed: bool,
    }
    let Answer { capabilities } = serde_json::from_str(parse(answer).ok()?.result?).ok()?;
    let Capabilities { tools, prompts, resources } = capabilities;
    let is_declared = |raw: &RawValue| serde_json::from_str(raw.get()).is_ok_and(|said: Capability| said.list_changed);
    let declared = [("tools", tools), ("prompts", prompts), ("resources", resources)];
    Some(declared.into_iter().filter(|(_, raw)| raw.is_some_and(is_declared)).map(|(list, _)| list).collect())
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
            lists(text.as_bytes()).unwrap_or_default()
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
