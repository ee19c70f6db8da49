//! What a session and its child have agreed on: the data that a child in the place of another is brought to.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::calls::{LeaseId, Multiplexer};
use crate::jsonrpc::{Envelope, text};
use crate::mcp::method;

/// What a session and its child have agreed on. A child that has refused something has not agreed.
#[derive(Debug, Clone, Default)]
pub struct Negotiated {
    /// Whether the child has heard `notifications/initialized`.
    pub(super) initialized: bool,
    pub(super) granted: Agreed,
}

/// What a session has of a child, or is to have.
#[derive(Debug, Clone, Default)]
pub(super) struct Agreed {
    /// The log level.
    pub(super) level: Option<&'static str>,
    /// The URIs that are subscribed to.
    pub(super) subscriptions: BTreeSet<String>,
}

/// One thing that a child is asked again.
#[derive(Debug)]
pub(super) enum StandingRequest {
    Level(&'static str),
    Subscription(String),
}

impl StandingRequest {
    pub(super) fn method(&self) -> &'static str {
        match self {
            Self::Level(_) => method::LOGGING_SET_LEVEL,
            Self::Subscription(_) => method::RESOURCES_SUBSCRIBE,
        }
    }

    pub(super) fn request(&self) -> Bytes {
        let method = self.method();
        let (name, value) = match self {
            Self::Level(level) => ("level", *level),
            Self::Subscription(uri) => ("uri", uri.as_str()),
        };
        let value = serde_json::to_string(value).unwrap_or_default();
        format!(r#"{{"id":"{method}","jsonrpc":"2.0","method":"{method}","params":{{"{name}":{value}}}}}"#).into()
    }
}

impl Negotiated {
    /// What a session has of a child so far.
    pub(super) fn of(multiplexer: &Multiplexer, peer: LeaseId, initialized: bool) -> Self {
        let (level, subscriptions) = multiplexer.granted(peer);
        Self { initialized, granted: Agreed { level, subscriptions } }
    }

    /// Whether the client waits to hear of resources.
    pub fn has_subscriptions(&self) -> bool {
        !self.granted.subscriptions.is_empty()
    }

    /// What another child has to be asked, in this order.
    pub(super) fn standing_requests(&self) -> impl Iterator<Item = StandingRequest> {
        let uris = self.granted.subscriptions.iter().cloned().map(StandingRequest::Subscription);
        self.granted.level.into_iter().map(StandingRequest::Level).chain(uris)
    }

    /// The requests for it.
    #[cfg(test)]
    pub(super) fn requests(&self) -> impl Iterator<Item = Bytes> {
        self.standing_requests().map(|request| request.request())
    }
}

impl Agreed {
    pub(super) fn holds(&self, wish: &StandingRequest) -> bool {
        match wish {
            StandingRequest::Level(level) => self.level == Some(*level),
            StandingRequest::Subscription(uri) => self.subscriptions.contains(uri),
        }
    }

    pub(super) fn remove(&mut self, wish: &StandingRequest) {
        match wish {
            StandingRequest::Level(_) => self.level = None,
            StandingRequest::Subscription(uri) => drop(self.subscriptions.remove(uri)),
        }
    }

    /// The client has said something of it itself: that holds, and not what it had before.
    pub(super) fn overrule(&mut self, envelope: &Envelope<'_>) {
        match envelope.method.as_deref() {
            Some(method::LOGGING_SET_LEVEL) => self.level = None,
            Some(method::RESOURCES_SUBSCRIBE | method::RESOURCES_UNSUBSCRIBE) if !self.subscriptions.is_empty() => {
                if let Some(uri) = envelope.members.uri.and_then(text) {
                    self.subscriptions.remove(&*uri);
                }
            }
            _ => {}
        }
    }
}
