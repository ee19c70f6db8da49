//! Requests whose effect outlives the call: a log level and subscriptions, and what a session has of them.

use crate::jsonrpc::Members;
use crate::mcp::{Level, label, method};

/// What a call asks for that lasts.
#[derive(Debug)]
pub(super) enum Wish {
    /// A log level for its session. On a shared child: what that is told is the loudest.
    Level(Level),
    /// A URI that its session is not subscribed to. On a shared child: that nobody is.
    Subscribe(String),
    /// A URI that its session is to be subscribed to no more. On a shared child: that nobody else is.
    Unsubscribe(String),
}

/// What a session has of the child.
#[derive(Debug, Default)]
pub(super) struct Peering {
    /// Its log level, once the child has taken it.
    pub(super) level: Option<Level>,
    /// The how-manyth request was for it: what is older and answered later does not change it.
    pub(super) by: u64,
    /// It has another child, and stays for what is in flight on this one only.
    pub(super) is_leaving: bool,
    /// Another child is asked for all that it has: it gets no more of this one.
    pub(super) is_handed_over: bool,
    /// Answers that it waits for.
    pub(super) in_flight: usize,
}

/// The level that a shared child was told last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub(super) level: Level,
    /// The number of the request.
    pub(super) by: u64,
    /// Whether the child has taken it.
    pub(super) is_done: bool,
}

impl Wish {
    /// Whether a method asks for something that lasts.
    pub(super) fn is_made_by(method: &str) -> bool {
        matches!(method, method::LOGGING_SET_LEVEL | method::RESOURCES_SUBSCRIBE | method::RESOURCES_UNSUBSCRIBE)
    }

    /// What a request asks for, on a child that is one session's own: the child judges it, and what cannot be read or is
    /// too much to be kept is not.
    pub(super) fn of(method: &str, params: &Members<'_>, uri: Option<String>) -> Option<Self> {
        match method {
            method::LOGGING_SET_LEVEL => Level::parse(&label(params.level)?).map(Self::Level),
            method::RESOURCES_SUBSCRIBE => uri.map(Self::Subscribe),
            method::RESOURCES_UNSUBSCRIBE => uri.map(Self::Unsubscribe),
            _ => None,
        }
    }
}
