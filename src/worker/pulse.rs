//! Tells a wedged child from one that is busy, by `ping` ("Utilities / Ping" of every revision). Only a child that has
//! answered one before is judged, and only while it has nothing to do: many servers do one thing at a time, and answer no
//! ping meanwhile. What a call may take is the business of its time-out.

use serde_json::Value;
use tokio::time::Instant;

use crate::config::ChildLimits;
use crate::jsonrpc::Envelope;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beat {
    Nothing,
    /// Send a `ping`.
    Ask,
    /// End the child.
    Wedged,
}

/// Whether a child answers a `ping`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Knows {
    /// It has not answered one yet.
    Unknown,
    /// It has answered one.
    Ping,
    /// It has said that there is no such method.
    NoPing,
}

/// What is known of a child's life.
#[derive(Debug)]
pub(super) struct Pulse {
    knows: Knows,
    /// The `ping` in flight: its id, and when it was sent.
    asked: Option<(String, Instant)>,
    /// When it last said anything.
    heard: Instant,
    /// When it was last seen with something to do.
    busy: Instant,
    /// Whether the gateway is waiting for what it says. Otherwise its silence is not its own.
    is_listened_to: bool,
    /// A call ran out of time, and it has said nothing since that was made. That is no work any more.
    is_overdue: bool,
}

impl Pulse {
    pub(super) fn new(now: Instant) -> Self {
        Self { knows: Knows::Unknown, asked: None, heard: now, busy: now, is_listened_to: false, is_overdue: false }
    }

    /// From now on, what the child says is heard.
    pub(super) fn listen(&mut self, now: Instant) {
        self.is_listened_to = true;
        self.heard = now;
    }

    /// The child has said something, which is now passed on.
    pub(super) fn heard(&mut self, now: Instant) {
        self.is_listened_to = false;
        self.heard = now;
        self.is_overdue = false;
    }

    /// The child has answered something: perhaps the `ping`.
    pub(super) fn answered(&mut self, message: &[u8], envelope: &Envelope<'_>) {
        if self.asked.as_ref().is_none_or(|(id, _)| envelope.id != Some(id)) {
            return;
        }
        self.asked = None;
        let code = || serde_json::from_slice::<Value>(message).ok()?.pointer("/error/code")?.as_i64();
        self.knows = if envelope.is_error && code() == Some(-32601) { Knows::NoPing } else { Knows::Ping };
    }

    /// A call that was made at `started` has run out of time, and none that is older is in flight.
    pub(super) fn overdue(&mut self, started: Instant) {
        self.is_overdue = self.is_listened_to && self.heard < started;
    }

    /// A `ping` with this number has been sent.
    pub(super) fn asked(&mut self, number: u64, now: Instant) {
        self.asked = Some((number.to_string(), now));
    }

    /// Looks at it. `is_idle`: nothing is in flight, either way.
    pub(super) fn beat(&mut self, is_idle: bool, limits: &ChildLimits, now: Instant) -> Beat {
        let Some(interval) = limits.ping_interval else { return Beat::Nothing };
        if !self.is_listened_to {
            self.heard = now;
        }
        if !is_idle && !self.is_overdue {
            self.busy = now;
        }
        let since = self.heard.max(self.busy);
        match (&self.asked, self.knows) {
            (None, Knows::Unknown | Knows::Ping) if self.is_overdue || now - since >= interval => Beat::Ask,
            (Some((_, at)), Knows::Ping) if now - since.max(*at) >= limits.ping_timeout => Beat::Wedged,
            _ => Beat::Nothing,
        }
    }
}
