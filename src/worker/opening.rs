//! The `initialize` for a child, and whether two of them ask for the same.

use std::borrow::Cow;

use bytes::Bytes;

use crate::jsonrpc::{canonical, is_like, parse, quoted, text, without};
use crate::mcp::{Initialize, common_capabilities, revision, specified_capabilities};

/// What of a client's `initialize` counts for its child, in a canonical form: the protocol version and the capabilities
/// that the child is told. Sessions share a child, or take a spare, only if their keys are equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CompatibilityKey(String);

/// Client capabilities that are left out for a shared child: roots are private to a client, and later requests about
/// tasks that a client keeps could not be attributed.
const NOT_SHARED: [&str; 2] = ["roots", "tasks"];

/// The sessions that a child is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// One session.
    Session,
    /// The sessions of one principal.
    Principal,
    /// The sessions of several principals, or tenants. The child is told what the specification names, and no words of
    /// a client's own: they would speak for the others, and each other word would be another child.
    Several,
}

/// The `initialize` for a child.
#[derive(Debug, Clone)]
pub struct Opening {
    /// The request for the child.
    pub message: Bytes,
    /// The key that sharing sessions must have in common.
    pub key: CompatibilityKey,
}

impl Opening {
    /// The `initialize` for an exclusive child: the client's message, unchanged.
    pub fn of_client(message: &Bytes) -> Self {
        Self { message: message.clone(), key: key(&Initialize::read(message), Audience::Session) }
    }

    /// The `initialize` of the gateway itself, with the version and the capabilities of this client that count for such
    /// an audience, and nothing else of its message.
    pub fn of_gateway(message: &Bytes, audience: Audience) -> Self {
        let asked = Initialize::read(message);
        let params = format!(
            r#"{{"protocolVersion":{},"capabilities":{},"clientInfo":{{"name":"sluice","title":"Sluice gateway","version":{}}}}}"#,
            version(&asked, audience),
            told(&asked, audience),
            quoted(env!("CARGO_PKG_VERSION")),
        );
        let message = format!(r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{params}}}"#);
        Self { message: message.into(), key: key(&asked, audience) }
    }

    /// The `initialize` of the gateway for a spare, for the next client with the same key. `None` if the version or a
    /// capability of this client is not of the specification: that could be private to the client.
    pub fn of_spare(message: &Bytes, audience: Audience) -> Option<Self> {
        let asked = Initialize::read(message);
        let is_version =
            |text: &str| text.len() <= 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        let has_version = text(&version(&asked, audience)).is_some_and(|version| is_version(&version));
        let told = told(&asked, audience);
        let is_specified = has_version && *canonical(&told) == specified_capabilities(&told);
        is_specified.then(|| Self::of_gateway(message, audience))
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

/// The raw version that a child is asked for. Several principals have no version in common that the gateway does not
/// know: it asks for the latest then, as a server answers with a version of its own.
fn version<'a>(asked: &Initialize<'a>, audience: Audience) -> Cow<'a, str> {
    let is_spoken = || text(asked.version).is_some_and(|version| revision::SPOKEN.contains(&&*version));
    match audience {
        Audience::Several if !is_spoken() => Cow::Owned(quoted(revision::LATEST)),
        _ => Cow::Borrowed(asked.version),
    }
}

/// The capabilities that a child is told: for the sessions of one principal all but [`NOT_SHARED`].
fn told<'a>(asked: &Initialize<'a>, audience: Audience) -> Cow<'a, str> {
    match audience {
        Audience::Several => Cow::Owned(common_capabilities(asked.capabilities)),
        Audience::Principal if asked.capabilities.starts_with('{') => {
            // A server may know the name in another spelling.
            let is_left_out = |name: &str| NOT_SHARED.iter().any(|left_out| is_like(name, left_out));
            Cow::Owned(without(asked.capabilities, is_left_out))
        }
        Audience::Session | Audience::Principal => Cow::Borrowed(asked.capabilities),
    }
}

/// The key of an `initialize`.
fn key(asked: &Initialize<'_>, audience: Audience) -> CompatibilityKey {
    let (version, told) = (version(asked, audience), told(asked, audience));
    CompatibilityKey(format!("[{},{}]", canonical(&version), canonical(&told)))
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
        let of = |c: &str, v: &str, n: &str| Opening::of_gateway(&initialize(c, v, n), Audience::Principal).key;
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
        let opening = |audience| {
            Opening::of_gateway(&initialize(r#"{"roots":{},"tasks":{},"sampling":{}}"#, "1", "secret-client"), audience)
        };
        for audience in [Audience::Principal, Audience::Several] {
            let text = String::from_utf8_lossy(&opening(audience).message).into_owned();
            assert!(!text.contains("secret-client") && !text.contains("roots") && !text.contains("tasks"), "{text}");
            assert!(text.contains("sampling"), "{text}");
        }
    }

    #[test]
    fn what_is_no_word_of_the_specification_makes_no_other_child_of_several_and_is_not_told_it() {
        let of = |capabilities: &str, version: &str| {
            Opening::of_gateway(&initialize(capabilities, version, "a"), Audience::Several)
        };
        let plain = of(r#"{"sampling":{}}"#, revision::LATEST);
        for (capabilities, version) in [
            (r#"{"sampling":{},"experimental":{"x":"secret"}}"#, revision::LATEST),
            (r#"{"experimental":{"y":1},"sampling":{"secret":true}}"#, revision::LATEST),
            (r#"{ "sampling": {}, "roots": {"listChanged": true}, "Sampling": {"tools": {}} }"#, revision::LATEST),
            (r#"{"sampling":{}}"#, "secret"),
            (r#"{"sampling":{}}"#, "2099-01-01"),
        ] {
            let other = of(capabilities, version);
            assert_eq!((&other.key, &other.message), (&plain.key, &plain.message), "{capabilities} {version}");
        }
        assert_ne!(of(r#"{"sampling":{"tools":{}}}"#, revision::LATEST).key, plain.key);
        assert_ne!(of(r#"{"sampling":{}}"#, "2025-06-18").key, plain.key);
    }

    #[test]
    fn what_one_client_says_of_itself_is_told_to_nobody_elses_child() {
        let with_meta: Bytes = r#"{"jsonrpc":"2.0","id":7,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{"sampling":{}},"clientInfo":{"name":"secret"},"_meta":{"token":"secret"},"secret":1}}"#.into();
        for opening in [
            Some(Opening::of_gateway(&with_meta, Audience::Principal)),
            Opening::of_spare(&with_meta, Audience::Session),
        ] {
            let text = String::from_utf8_lossy(&opening.unwrap().message).into_owned();
            assert!(text.contains("sampling") && !text.contains("secret"), "{text}");
        }
        let spare = |c: &str, v: &str| Opening::of_spare(&initialize(c, v, "a"), Audience::Session);
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
