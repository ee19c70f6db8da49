//! Requests whose effect outlives the call: the log level and subscriptions.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::LeaseId;
use crate::jsonrpc::{Envelope, Members, quoted, text};
use crate::mcp::{Level, label, method};
use crate::memory::Text;

/// A request whose effect outlives the call. Ordered as a new child is asked: the level first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::worker) enum Standing {
    /// Sets the log level of the session. A shared child is set to the most verbose level of all sessions.
    Level(Level),
    /// Subscribes the session to a URI. A shared child gets the first subscribe of all sessions only.
    Subscribe(Text),
    /// Unsubscribes the session from a URI. A shared child gets the last unsubscribe of all sessions only.
    Unsubscribe(Text),
}

/// A standing request that the child has not answered.
#[derive(Debug)]
pub(super) struct StandingInFlight {
    pub(super) peer: LeaseId,
    /// Whether the gateway made the request, and no client.
    pub(super) is_own: bool,
    pub(super) standing: Standing,
}

/// The level that a shared child was told last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub(super) level: Level,
    /// The number of the request.
    pub(super) by: u64,
    /// Whether the child has accepted the level.
    pub(super) is_done: bool,
}

impl Standing {
    /// Whether requests of this method have an effect that outlives the call.
    pub(in crate::worker) fn is_made_by(method: &str) -> bool {
        matches!(method, method::LOGGING_SET_LEVEL | method::RESOURCES_SUBSCRIBE | method::RESOURCES_UNSUBSCRIBE)
    }

    /// The standing request of a session that has the child alone. `None` for other methods, and where the level or the
    /// URI cannot be read: the child judges such a request.
    pub(super) fn of(method: &str, params: &Members<'_>, uri: Option<Text>) -> Option<Self> {
        match method {
            method::LOGGING_SET_LEVEL => Level::parse(&label(params.level)?).map(Self::Level),
            method::RESOURCES_SUBSCRIBE => uri.map(Self::Subscribe),
            method::RESOURCES_UNSUBSCRIBE => uri.map(Self::Unsubscribe),
            _ => None,
        }
    }

    /// The method of the request.
    pub(in crate::worker) fn method(&self) -> &'static str {
        match self {
            Self::Level(_) => method::LOGGING_SET_LEVEL,
            Self::Subscribe(_) => method::RESOURCES_SUBSCRIBE,
            Self::Unsubscribe(_) => method::RESOURCES_UNSUBSCRIBE,
        }
    }

    /// Removes from `owed` what a client's request makes out of date: the level for a new level, and the subscription
    /// to a URI for a subscribe to it or an unsubscribe from it.
    pub(in crate::worker) fn overrule(owed: &mut BTreeSet<Self>, envelope: &Envelope<'_>) {
        match envelope.method.as_deref() {
            Some(method::LOGGING_SET_LEVEL) => owed.retain(|owed| !owed.is_level()),
            Some(method::RESOURCES_SUBSCRIBE | method::RESOURCES_UNSUBSCRIBE) if !owed.is_empty() => {
                if let Some(uri) = envelope.members.uri.and_then(text) {
                    owed.retain(|owed| !matches!(owed, Self::Subscribe(owed) if **owed == *uri));
                }
            }
            _ => {}
        }
    }

    /// Whether the request sets the log level.
    pub(in crate::worker) fn is_level(&self) -> bool {
        matches!(self, Self::Level(_))
    }

    /// Whether the request subscribes.
    pub(in crate::worker) fn is_subscription(&self) -> bool {
        matches!(self, Self::Subscribe(_))
    }

    /// The request, for a child in the place of another. The method is also the id.
    pub(in crate::worker) fn request(&self) -> Bytes {
        let (method, params) = (self.method(), self.params());
        format!(r#"{{"id":"{method}","jsonrpc":"2.0","method":"{method}","params":{params}}}"#).into()
    }

    /// The params of the request, as JSON.
    pub(in crate::worker) fn params(&self) -> String {
        match self {
            Self::Level(level) => format!(r#"{{"level":"{}"}}"#, level.as_str()),
            Self::Subscribe(uri) | Self::Unsubscribe(uri) => format!(r#"{{"uri":{}}}"#, quoted(uri)),
        }
    }
}
