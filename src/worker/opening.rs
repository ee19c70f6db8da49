//! The `initialize` for a child, and whether two of them ask for the same.

use std::borrow::Cow;

use bytes::Bytes;

use crate::jsonrpc::{all_members, canonical, is_like, parse, quoted, text, without};
use crate::mcp::Initialize;

/// The protocol version and the client's capabilities of an `initialize`, in a canonical form. Sessions share a child,
/// or take a spare, only if their keys are equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CompatibilityKey(String);

/// Client capabilities that are left out for a shared child: roots are private to a client, and later requests about
/// tasks that a client keeps could not be attributed.
const NOT_SHARED: [&str; 2] = ["roots", "tasks"];

/// The member names of client capabilities in the specification (2025-11-25, "Lifecycle"), without `experimental`,
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

/// The `initialize` for a child.
#[derive(Debug, Clone)]
pub struct Opening {
    /// The request for the child.
    pub message: Bytes,
    /// The key that sharing sessions must have in common.
    pub key: CompatibilityKey,
}

/// The deepest nesting of capabilities that a spare is opened for.
const DEPTH: usize = 8;

impl Opening {
    /// The `initialize` for an exclusive child: the client's message, unchanged.
    pub fn of_client(message: &Bytes) -> Self {
        Self { message: message.clone(), key: key(&Initialize::read(message), false) }
    }

    /// The `initialize` of the gateway itself, with the version and the capabilities of this client, and nothing else
    /// of its message. `is_shared`: the capabilities are those for a shared child.
    pub fn of_gateway(message: &Bytes, is_shared: bool) -> Self {
        let asked = Initialize::read(message);
        let params = format!(
            r#"{{"protocolVersion":{},"capabilities":{},"clientInfo":{{"name":"sluice","title":"Sluice gateway","version":{}}}}}"#,
            asked.version,
            told(&asked, is_shared),
            quoted(env!("CARGO_PKG_VERSION")),
        );
        let message = format!(r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{params}}}"#);
        Self { message: message.into(), key: key(&asked, is_shared) }
    }

    /// The `initialize` of the gateway for a spare, for the next client with the same key. `None` if the version or a
    /// capability of this client is not of the specification: that could be private to the client.
    pub fn of_spare(message: &Bytes, is_shared: bool) -> Option<Self> {
        let asked = Initialize::read(message);
        let is_version =
            |text: &str| text.len() <= 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        let has_version = text(asked.version).is_some_and(|version| is_version(&version));
        (has_version && is_common(&told(&asked, is_shared), DEPTH)).then(|| Self::of_gateway(message, is_shared))
    }

    /// Whether two messages have the same params, `_meta` left out: a child that was opened with one could have been
    /// opened with the other.
    pub fn is_like(&self, other: &Self) -> bool {
        let words = |opening: &Self| {
            let params = parse(&opening.message).ok().and_then(|envelope| envelope.params);
            canonical(&without(params.unwrap_or_default(), |name| name == "_meta")).into_owned()
        };
        self.message == other.message || (self.key == other.key && words(self) == words(other))
    }
}

/// The capabilities for a child, without [`NOT_SHARED`] for a shared one.
fn told<'a>(asked: &Initialize<'a>, is_shared: bool) -> Cow<'a, str> {
    if is_shared && asked.capabilities.starts_with('{') {
        // A server may know the name in another spelling.
        let is_left_out = |name: &str| NOT_SHARED.iter().any(|left_out| is_like(name, left_out));
        return Cow::Owned(without(asked.capabilities, is_left_out));
    }
    Cow::Borrowed(asked.capabilities)
}

/// The key of an `initialize`.
fn key(asked: &Initialize<'_>, is_shared: bool) -> CompatibilityKey {
    CompatibilityKey(format!("[{},{}]", canonical(asked.version), canonical(&told(asked, is_shared))))
}

/// Whether capabilities consist of names in [`COMMON`], booleans and objects, nested at most `depth` deep.
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
    fn the_same_capabilities_have_the_same_key() {
        let of = |c: &str, v: &str, n: &str| Opening::of_gateway(&initialize(c, v, n), true).key;
        assert_eq!(
            of(r#"{"sampling":{},"elicitation":{}}"#, "1", "a"),
            of(r#"{"elicitation":{},"sampling":{}}"#, "1", "b")
        );
        assert_eq!(of(r#"{"roots":{"listChanged":true}}"#, "1", "a"), of("{}", "1", "a"));
        assert_ne!(of(r#"{"sampling":{}}"#, "1", "a"), of("{}", "1", "a"));
        assert_ne!(of("{}", "1", "a"), of("{}", "2", "a"));
        let own = |c: &str| Opening::of_client(&initialize(c, "1", "a")).key;
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
        let own = Opening::of_client(&initialize(full, "2025-11-25", "b")).key;
        assert_eq!(spare(full, "2025-11-25").map(|opening| opening.key), Some(own));
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
