//! How a child is opened: what a client's `initialize` asks for, and whether two of them ask for the same.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::jsonrpc::parse;

/// What a child has been opened for: the protocol version and the client's capabilities. Sessions share a child, or
/// take a spare one, only where these are the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(String);

/// Capabilities of a client that a shared child does not hear of: its roots are nobody else's business, and tasks that
/// it keeps for the server are looked up later, when nobody can tell whose they are.
const NOT_SHARED: [&str; 2] = ["roots", "tasks"];

/// A client's `initialize`.
#[derive(Debug, Clone)]
pub struct Opening {
    /// The request, as the child is to hear it.
    pub message: Bytes,
    /// What it asks for.
    pub fingerprint: Fingerprint,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InitializeResult {
    protocol_version: String,
}

impl Opening {
    /// Reads a client's `initialize`. Where the child will be the client's own, it hears the very words.
    pub fn of_client(message: &Bytes) -> Self {
        Self { message: message.clone(), fingerprint: Fingerprint::of(&params(message), false) }
    }

    /// The `initialize` of the gateway itself, for a child that several will share or that is started in advance: the
    /// version and capabilities of this client, but not its name, nor what is not to be shared.
    pub fn of_gateway(message: &Bytes, is_shared: bool) -> Self {
        let theirs = params(message);
        let fingerprint = Fingerprint::of(&theirs, is_shared);
        // Nothing else of it: whatever the client has put beside these, the next one must not find there.
        let mut params = Map::new();
        let version = theirs.get("protocolVersion").cloned();
        params.extend(version.map(|version| ("protocolVersion".to_owned(), version)));
        params.insert("capabilities".to_owned(), capabilities(&theirs, is_shared));
        let info = json!({ "name": "sluice", "title": "Sluice gateway", "version": env!("CARGO_PKG_VERSION") });
        params.insert("clientInfo".to_owned(), info);
        let message = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params }).to_string();
        Self { message: message.into(), fingerprint }
    }
}

impl Fingerprint {
    fn of(params: &Value, is_shared: bool) -> Self {
        // serde_json keeps object keys sorted, so equal capabilities have equal texts.
        Self(json!([params.get("protocolVersion"), capabilities(params, is_shared)]).to_string())
    }
}

/// The capabilities that a child hears of.
fn capabilities(params: &Value, is_shared: bool) -> Value {
    let mut capabilities = params.get("capabilities").cloned().unwrap_or_default();
    if is_shared && let Some(object) = capabilities.as_object_mut() {
        NOT_SHARED.iter().for_each(|capability| drop(object.remove(*capability)));
    }
    capabilities
}

fn params(message: &[u8]) -> Value {
    let params =
        parse(message).ok().and_then(|envelope| envelope.params.and_then(|text| serde_json::from_str(text).ok()));
    params.unwrap_or_default()
}

/// The `protocolVersion` in the answer to `initialize`; `None` if it is an error or has none.
pub fn protocol_version(answer: &[u8]) -> Option<String> {
    let result: InitializeResult = serde_json::from_str(parse(answer).ok()?.result?).ok()?;
    Some(result.protocol_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn initialize(capabilities: &str, version: &str, name: &str) -> Bytes {
        format!(
            r#"{{"jsonrpc":"2.0","id":7,"method":"initialize","params":{{"protocolVersion":"{version}","capabilities":{capabilities},"clientInfo":{{"name":"{name}","version":"1"}}}}}}"#
        )
        .into()
    }

    #[test]
    fn the_same_wishes_have_the_same_fingerprint() {
        let of = |c: &str, v: &str, n: &str| Opening::of_gateway(&initialize(c, v, n), true).fingerprint;
        assert_eq!(
            of(r#"{"sampling":{},"elicitation":{}}"#, "1", "a"),
            of(r#"{"elicitation":{},"sampling":{}}"#, "1", "b")
        );
        assert_eq!(of(r#"{"roots":{"listChanged":true}}"#, "1", "a"), of("{}", "1", "a"));
        assert_ne!(of(r#"{"sampling":{}}"#, "1", "a"), of("{}", "1", "a"));
        assert_ne!(of("{}", "1", "a"), of("{}", "2", "a"));
        let own = |c: &str| Opening::of_client(&initialize(c, "1", "a")).fingerprint;
        assert_ne!(own(r#"{"roots":{}}"#), own("{}"));
    }

    #[test]
    fn a_shared_child_hears_of_no_client_no_roots_and_no_tasks() {
        let opening =
            Opening::of_gateway(&initialize(r#"{"roots":{},"tasks":{},"sampling":{}}"#, "1", "secret-client"), true);
        let text = String::from_utf8_lossy(&opening.message).into_owned();
        assert!(!text.contains("secret-client") && !text.contains("roots") && !text.contains("tasks"), "{text}");
        assert!(text.contains("sampling"), "{text}");
    }

    #[test]
    fn a_child_that_several_will_share_hears_version_and_capabilities_and_nothing_else_of_a_client() {
        let params = r#"{"protocolVersion":"1","capabilities":{},"clientInfo":{},"_meta":{"x":"secret"},"y":"secret"}"#;
        let message = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"initialize","params":{params}}}"#).into();
        for is_shared in [true, false] {
            let text = String::from_utf8_lossy(&Opening::of_gateway(&message, is_shared).message).into_owned();
            assert!(!text.contains("secret") && text.contains(r#""protocolVersion":"1""#), "{text}");
        }
    }
}
