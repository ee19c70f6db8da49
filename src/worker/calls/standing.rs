//! Requests whose effect outlives the call: a log level and subscriptions, and what a session has of them.

use crate::jsonrpc::Members;
use crate::mcp::{Level, label, method};

/// A request whose effect outlives the call.
#[derive(Debug)]
pub(super) enum Standing {
    /// A log level for its session. On a shared child: what that is told is the loudest.
    Level(Level),
    /// A URI that its session is not subscribed to. On a shared child: that nobody is.
    Subscribe(String),
    /// A URI that its session is to be subscribed to no more. On a shared child: that nobody else is.
    Unsubscribe(String),
}

/// The state of one lease: the log level, and what the session waits for.
#[derive(Debug, Default)]
pub(super) struct LeaseState {
    /// The log level of the session, once the child has accepted one.
    pub(super) level: Option<Level>,
    /// The position of the request that set the level. An older request that is answered later does not change the level.
    pub(super) by: u64,
    /// Whether the session has another child, and keeps this one for what is in flight.
    pub(super) is_leaving: bool,
    /// Whether the state has been handed over to another child. Then this child grants the session nothing more.
    pub(super) is_handed_over: bool,
    /// The number of answers that the session waits for.
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

impl Standing {
    /// Whether requests of this method have an effect that outlives the call.
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
