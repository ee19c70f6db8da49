//! How a child is opened: what a client's `initialize` asks for, and whether two of them ask for the same.

use std::borrow::Cow;

use bytes::Bytes;

use crate::jsonrpc::{all_members, canonical, is_like, parse, quoted, text, without};
use crate::mcp::Initialize;

/// What a child has been opened for: the protocol version and the client's capabilities. Sessions share a child, or
/// take a spare one, only where these are the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(String);

/// Capabilities of a client that a shared child does not hear of: its roots are nobody else's business, and tasks that
/// it keeps for the server are looked up later, when nobody can tell whose they are.
const NOT_SHARED: [&str; 2] = ["roots", "tasks"];

/// Every word that the specification has for capabilities of a client (2025-11-25, "Lifecycle"), but for `experimental`,
/// which may hold anything.
const COMMON: [&str; 15] = [
    "cancel",
    "context",
    "create",
    "createMessage",
    "elicitation",
    "form",
    "list",
    "listChanged",
    "requests",
    "roots",
    "sampling",
    "tasks",
    "tools",
    "url",
    "applyDefaults",
];

/// A client's `initialize`.
#[derive(Debug, Clone)]
pub struct Opening {
    /// The request, as the child is to hear it.
    pub message: Bytes,
    /// What it asks for.
    pub fingerprint: Fingerprint,
}

/// How deep the capabilities are nested that a spare is opened for.
const DEPTH: usize = 8;

impl Opening {
    /// Reads a client's `initialize`. Where the child will be the client's own, it hears the very words.
    pub fn of_client(message: &Bytes) -> Self {
        Self { message: message.clone(), fingerprint: fingerprint(&Initialize::read(message), false) }
    }

    /// The `initialize` of the gateway itself, for a child that several will share: the version and capabilities of this
    /// client, and nothing else that it says.
    pub fn of_gateway(message: &Bytes, is_shared: bool) -> Self {
        let asked = Initialize::read(message);
        let params = format!(
            r#"{{"protocolVersion":{},"capabilities":{},"clientInfo":{{"name":"sluice","title":"Sluice gateway","version":{}}}}}"#,
            asked.version,
            told(&asked, is_shared),
            quoted(env!("CARGO_PKG_VERSION")),
        );
        let message = format!(r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{params}}}"#);
        Self { message: message.into(), fingerprint: fingerprint(&asked, is_shared) }
    }

    /// The same for a child that is started in advance, for whoever comes next and asks for the same. `None` if this client
    /// says more than what is in everybody's mouth: that is not for others to be started with.
    pub fn of_spare(message: &Bytes, is_shared: bool) -> Option<Self> {
        let asked = Initialize::read(message);
        let is_version =
            |text: &str| text.len() <= 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        let has_version = text(asked.version).is_some_and(|version| is_version(&version));
        (has_version && is_common(&told(&asked, is_shared), DEPTH)).then(|| Self::of_gateway(message, is_shared))
    }

    /// Whether another client says the same: whatever a child has been told by one, it could have been told by the other.
    /// What a request carries beside its words (`_meta`) is of that request only.
    pub fn is_like(&self, other: &Self) -> bool {
        let words = |opening: &Self| {
            let params = parse(&opening.message).ok().and_then(|envelope| envelope.params);
            canonical(&without(params.unwrap_or_default(), |name| name == "_meta")).into_owned()
        };
        self.message == other.message || (self.fingerprint == other.fingerprint && words(self) == words(other))
    }
}

/// The capabilities that a child is told of.
fn told<'a>(asked: &Initialize<'a>, is_shared: bool) -> Cow<'a, str> {
    if is_shared && asked.capabilities.starts_with('{') {
        // A server may know the name in another spelling.
        let is_left_out = |name: &str| NOT_SHARED.iter().any(|left_out| is_like(name, left_out));
        return Cow::Owned(without(asked.capabilities, is_left_out));
    }
    Cow::Borrowed(asked.capabilities)
}

/// What a child is opened for that is told of these capabilities.
fn fingerprint(asked: &Initialize<'_>, is_shared: bool) -> Fingerprint {
    Fingerprint(format!("[{},{}]", canonical(asked.version), canonical(&told(asked, is_shared))))
}

/// Whether capabilities are made of words that all clients have.
fn is_common(raw: &str, depth: usize) -> bool {
    match (raw, depth.checked_sub(1)) {
        ("true" | "false", _) => true,
        (object, Some(depth)) if object.starts_with('{') => {
            all_members(object, |name, value| COMMON.contains(&name) && is_common(value, depth))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
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
    fn what_one_client_says_of_itself_is_told_to_nobody_elses_child() {
        let with_meta: Bytes = r#"{"jsonrpc":"2.0","id":7,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{"sampling":{}},"clientInfo":{"name":"secret"},"_meta":{"token":"secret"},"secret":1}}"#.into();
        for opening in [Some(Opening::of_gateway(&with_meta, true)), Opening::of_spare(&with_meta, false)] {
            let text = String::from_utf8_lossy(&opening.unwrap().message).into_owned();
            assert!(text.contains("sampling") && !text.contains("secret"), "{text}");
        }
        let spare = |c: &str, v: &str| Opening::of_spare(&initialize(c, v, "a"), false);
        let full = r#"{"roots":{"listChanged":true},"sampling":{"tools":{}},"elicitation":{"form":{},"url":{}},"tasks":{"list":{},"requests":{"sampling":{"createMessage":{}}}}}"#;
        let own = Opening::of_client(&initialize(full, "2025-11-25", "b")).fingerprint;
        assert_eq!(spare(full, "2025-11-25").map(|opening| opening.fingerprint), Some(own));
        for (capabilities, version) in [
            (r#"{"experimental":{"x-token":"secret"}}"#, "2025-06-18"),
            (r#"{"sampling":{"secret":true}}"#, "2025-06-18"),
            (r#"{"sampling":"secret"}"#, "2025-06-18"),
            ("{}", "secret"),
        ] {
            assert!(spare(capabilities, version).is_none(), "{capabilities} {version}");
        }
    }
}
