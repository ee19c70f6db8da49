//! Tells a wedged child from one that is busy, by `ping` ("Utilities / Ping" of every revision). Only a child that has
//! answered one before is judged, and only while it has nothing to do: many servers do one thing at a time, and answer no
//! ping meanwhile. What a call may take is the business of its time-out.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::ChildLimits;
use crate::jsonrpc::Envelope;

/// When a look comes so late, the gateway itself was held up, and perhaps the child with it (a container that was paused):
/// the time until then counts for nothing.
const HELD_UP: Duration = Duration::from_secs(5);
/// How often a child is looked at that has been asked, so that this shows.
const LOOK: Duration = Duration::from_secs(1);

/// The action that a health check asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HealthAction {
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

/// The state of the health check of one child.
#[derive(Debug)]
pub(super) struct Health {
    knows: Knows,
    /// The `ping` in flight: its id, and when it was sent.
    asked: Option<(String, Instant)>,
    /// When it last said anything.
    heard: Instant,
    /// When it was last known to have something to do.
    busy: Instant,
    /// When it should be looked at next.
    due: Option<Instant>,
    /// Whether the gateway is waiting for what it says. Otherwise its silence is not its own.
    is_listened_to: bool,
    /// A call ran out of time, and it has said nothing since that was made. That is no work any more.
    is_overdue: bool,
}

impl Health {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            knows: Knows::Unknown,
            asked: None,
            heard: now,
            busy: now,
            due: None,
            is_listened_to: false,
            is_overdue: false,
        }
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

    /// Whether the gateway waits for what the child says. Otherwise it has something of it still to pass on.
    pub(super) fn is_listened_to(&self) -> bool {
        self.is_listened_to
    }

    /// The child has answered something: perhaps the `ping`.
    pub(super) fn answered(&mut self, envelope: &Envelope<'_>) {
        if self.asked.as_ref().is_none_or(|(id, _)| envelope.id != Some(id)) {
            return;
        }
        self.asked = None;
        self.knows = if envelope.error_code() == Some(-32601) { Knows::NoPing } else { Knows::Ping };
    }

    /// A call that was made at `started` has run out of time, and none that is older is in flight.
    pub(super) fn overdue(&mut self, started: Instant) {
        self.is_overdue = self.is_listened_to && self.heard < started;
    }

    /// Something that it may have been working for was taken from it, or answered to it.
    pub(super) fn worked(&mut self, now: Instant) {
        self.busy = now;
    }

    /// A `ping` with this number has been sent.
    pub(super) fn asked(&mut self, number: u64, now: Instant) {
        self.asked = Some((number.to_string(), now));
    }

    /// Looks at it: what is to be done, and when to look again. `is_idle`: nothing is in flight, either way.
    pub(super) fn check(
        &mut self,
        is_idle: bool,
        limits: &ChildLimits,
        now: Instant,
    ) -> (HealthAction, Option<Instant>) {
        let Some(interval) = limits.ping_interval else { return (HealthAction::Nothing, None) };
        if !self.is_listened_to {
            self.heard = now;
        }
        let was_held_up = self.due.is_some_and(|due| now.saturating_duration_since(due) > HELD_UP);
        if was_held_up || (!is_idle && !self.is_overdue) {
            self.busy = now;
        }
        let since = self.heard.max(self.busy);
        let (beat, due) = match (&self.asked, self.knows) {
            (_, Knows::NoPing) => (HealthAction::Nothing, None),
            (None, Knows::Unknown | Knows::Ping) => {
                let due = if self.is_overdue { now } else { since + interval };
                match due <= now {
                    true => (HealthAction::Ask, Some(now + LOOK.min(limits.ping_timeout).min(interval))),
                    false => (HealthAction::Nothing, Some(due)),
                }
            }
            (Some(_), Knows::Unknown) => (HealthAction::Nothing, Some(now + interval)),
            (Some((_, at)), Knows::Ping) => {
                let end = since.max(*at) + limits.ping_timeout;
                (if end <= now { HealthAction::Wedged } else { HealthAction::Nothing }, Some(end.min(now + LOOK)))
            }
        };
        self.due = due;
        (beat, due)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::jsonrpc::parse;

    const SECOND: Duration = Duration::from_secs(1);

    /// A child that is looked at when it should be, or at other times as well.
    struct Child {
        health: Health,
        limits: ChildLimits,
        now: Instant,
        looks: usize,
    }

    impl Child {
        fn new() -> Self {
            let (ping_interval, ping_timeout) = (Some(10 * SECOND), 5 * SECOND);
            let now = Instant::now();
            let mut health = Health::new(now);
            health.listen(now);
            let limits = ChildLimits { ping_interval, ping_timeout, ..ChildLimits::default() };
            Self { health, limits, now, looks: 0 }
        }

        /// Looks when it is time to, for so long: after how long there was something to do.
        fn look(&mut self, seconds: u32, is_idle: bool) -> Option<(Duration, HealthAction)> {
            let begin = self.now;
            loop {
                self.looks += 1;
                let (beat, next) = self.health.check(is_idle, &self.limits, self.now);
                if beat == HealthAction::Ask {
                    self.health.asked(7, self.now);
                }
                if beat != HealthAction::Nothing {
                    return Some((self.now - begin, beat));
                }
                let end = begin + seconds * SECOND;
                self.now = next.filter(|next| *next < end).unwrap_or(end);
                if self.now == end {
                    return None;
                }
            }
        }

        fn say(&mut self, message: &str) {
            self.health.heard(self.now);
            let envelope = parse(message.as_bytes()).unwrap();
            self.health.answered(&envelope);
            self.health.listen(self.now);
        }

        /// It has been asked, has answered, and is asked again.
        fn asked_twice() -> Self {
            let mut child = Self::new();
            assert_eq!(child.look(100, true), Some((10 * SECOND, HealthAction::Ask)));
            child.say(PONG);
            assert_eq!(child.look(100, true), Some((10 * SECOND, HealthAction::Ask)));
            child
        }
    }

    const PONG: &str = r#"{"jsonrpc":"2.0","id":7,"result":{}}"#;
    const OTHER: &str = r#"{"jsonrpc":"2.0","id":8,"result":{}}"#;
    const NO_PING: &str = r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32601,"message":"no"}}"#;

    #[test]
    fn who_has_answered_once_and_is_silent_then_is_wedged() {
        let mut child = Child::asked_twice();
        assert_eq!(child.look(100, true), Some((5 * SECOND, HealthAction::Wedged)));
        assert!(child.looks < 15, "looked at {} times", child.looks);
    }

    #[test]
    fn who_has_never_answered_is_asked_once() {
        let mut silent = Child::new();
        assert_eq!(silent.look(100, true), Some((10 * SECOND, HealthAction::Ask)));
        assert_eq!(silent.look(1000, true), None);
        let mut ignorant = Child::new();
        ignorant.look(100, true);
        ignorant.say(NO_PING);
        assert_eq!(ignorant.look(1000, true), None);
        assert!(ignorant.looks < 5, "looked at {} times", ignorant.looks);
    }

    #[test]
    fn whatever_it_says_is_life() {
        let mut child = Child::asked_twice();
        for _ in 0..10 {
            assert_eq!(child.look(4, true), None);
            child.say(OTHER);
        }
        assert_eq!(child.look(100, true), Some((5 * SECOND, HealthAction::Wedged)));
    }

    #[test]
    fn work_is_no_silence_until_it_has_come_to_nothing() {
        let mut child = Child::asked_twice();
        assert_eq!(child.look(1000, false), None, "the ping is in flight, but so is a call");
        child.health.worked(child.now);
        child.health.overdue(child.now);
        assert_eq!(child.look(100, false), Some((5 * SECOND, HealthAction::Wedged)));
        let mut busy = Child::new();
        busy.look(100, true);
        busy.say(PONG);
        assert_eq!(busy.look(1000, false), None);
        busy.health.overdue(busy.now);
        assert_eq!(busy.look(100, false), Some((Duration::ZERO, HealthAction::Ask)));
        busy.say(OTHER);
        assert_eq!(busy.look(1000, false), None, "it has said something: it works");
    }

    #[test]
    fn silence_begins_when_the_last_call_is_taken_from_it_and_not_when_somebody_looks() {
        let mut child = Child::new();
        assert_eq!(child.look(13, false), None);
        // The call is cancelled.
        child.health.worked(child.now);
        assert_eq!(child.look(100, true), Some((10 * SECOND, HealthAction::Ask)));
    }

    #[test]
    fn silence_while_nobody_listens_or_looks_is_not_the_childs() {
        let mut child = Child::asked_twice();
        child.health.heard(child.now);
        assert_eq!(child.look(1000, true), None, "what it said last is still being passed on");
        child.health.listen(child.now);
        assert_eq!(child.look(2, true), None);
        child.now += 1000 * SECOND;
        assert_eq!(child.look(100, true), Some((5 * SECOND, HealthAction::Wedged)), "the gateway was held up");
    }
}
