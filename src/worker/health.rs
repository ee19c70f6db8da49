//! Tells a wedged child from a busy one, by `ping` ("Utilities / Ping" of every revision). Only a child that has
//! answered a ping before is judged, and only while nothing is in flight: many servers do one thing at a time, and
//! answer no ping meanwhile. Calls have their own time-outs.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::ChildLimits;
use crate::jsonrpc::Envelope;

/// If a check comes later than planned by more than this, the gateway itself was held up (a paused container), perhaps
/// with the child: the time until then does not count as silence.
const HELD_UP: Duration = Duration::from_secs(5);
/// The longest time between checks while a `ping` is in flight, so that a hold-up shows.
const LOOK: Duration = Duration::from_secs(1);

/// The result of a health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HealthAction {
    Nothing,
    /// Send a `ping`.
    Ask,
    /// End the child.
    Wedged,
}

/// What is known of the child's answers to `ping`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Knows {
    /// The child has not answered a `ping` yet.
    Unknown,
    /// The child has answered a `ping`.
    Ping,
    /// The child has answered that there is no such method. No further `ping` is sent.
    NoPing,
}

/// The state of the health check of one child.
#[derive(Debug)]
pub(super) struct Health {
    knows: Knows,
    /// The id of the `ping` in flight, and when the `ping` was sent.
    asked: Option<(String, Instant)>,
    /// When the child last wrote to stdout.
    heard: Instant,
    /// When something was last in flight.
    busy: Instant,
    /// When the next check is planned.
    due: Option<Instant>,
    /// Whether the reader waits for output. While the reader delivers instead, the child's silence does not count.
    is_listened_to: bool,
    /// Whether the oldest call timed out, and the child has written nothing since that call was made. Then the child
    /// counts as idle though calls are in flight.
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

    /// Notes that the reader waits for output from now on.
    pub(super) fn listen(&mut self, now: Instant) {
        self.is_listened_to = true;
        self.heard = now;
    }

    /// Notes that the child has written, and that the reader delivers from now on.
    pub(super) fn heard(&mut self, now: Instant) {
        self.is_listened_to = false;
        self.heard = now;
        self.is_overdue = false;
    }

    /// Whether the reader waits for output: all output so far is delivered.
    pub(super) fn is_listened_to(&self) -> bool {
        self.is_listened_to
    }

    /// Notes an answer of the child, if the answer is to the `ping` in flight.
    pub(super) fn answered(&mut self, envelope: &Envelope<'_>) {
        if self.asked.as_ref().is_none_or(|(id, _)| envelope.id != Some(id)) {
            return;
        }
        self.asked = None;
        self.knows = if envelope.error_code() == Some(-32601) { Knows::NoPing } else { Knows::Ping };
    }

    /// Notes that the oldest call, made at `started`, has timed out. Counts only if the child has written nothing
    /// since.
    pub(super) fn overdue(&mut self, started: Instant) {
        self.is_overdue = self.is_listened_to && self.heard < started;
    }

    /// Notes that the child may have been working until now: a call was cancelled, or a request of the child was
    /// answered.
    pub(super) fn worked(&mut self, now: Instant) {
        self.busy = now;
    }

    /// Notes that a `ping` with this number is sent.
    pub(super) fn asked(&mut self, number: u64, now: Instant) {
        self.asked = Some((number.to_string(), now));
    }

    /// Decides what to do now, and when to check again; `None`: no more checks. `is_idle`: nothing is in flight, either
    /// way. Without `limits.ping_interval` there are no checks.
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
        let (action, due) = match (&self.asked, self.knows) {
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
        (action, due)
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
                let (action, next) = self.health.check(is_idle, &self.limits, self.now);
                if action == HealthAction::Ask {
                    self.health.asked(7, self.now);
                }
                if action != HealthAction::Nothing {
                    return Some((self.now - begin, action));
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
