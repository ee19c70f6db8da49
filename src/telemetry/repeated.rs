//! Limits log lines that others can cause without bound: the first lines of a period are logged, the others are
//! counted, and their number is logged when the period is over. Requests therefore cannot flood the log.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::Level;

/// The length of a period.
const PERIOD: Duration = Duration::from_secs(10);
/// The largest number of distinct causes at a time. Further causes share one counter.
const CAUSES: usize = 1024;

/// The cause of a log line: an event, and the reason or the server that the event is about. Both come from closed sets
/// and not from a peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cause {
    what: &'static str,
    about: Cow<'static, str>,
    level: Level,
}

/// The lines of one cause in the current period.
#[derive(Debug)]
struct Seen {
    begin: Instant,
    logged: u32,
    left_out: u64,
}

#[derive(Debug, Default)]
struct Causes(HashMap<Cause, Seen>);

static CAUSED: LazyLock<Mutex<Causes>> = LazyLock::new(Mutex::default);

impl Cause {
    /// The cause of a line at level `warn`: `what` happened, for the reason or to the server `about`.
    pub fn new(what: &'static str, about: impl Into<Cow<'static, str>>) -> Self {
        Self { what, about: about.into(), level: Level::WARN }
    }

    /// Like [`new`](Self::new), for lines at level `info`. Their number is logged at `info` too, so that a filter that
    /// hides the lines hides the number.
    pub fn info(what: &'static str, about: impl Into<Cow<'static, str>>) -> Self {
        Self { level: Level::INFO, ..Self::new(what, about) }
    }

    /// Whether to log a line of this cause: the first `most` of a period are logged. The others are counted and
    /// reported at the end of the period.
    #[must_use]
    pub fn is_news(self, most: u32) -> bool {
        CAUSED.lock().take(self, most, Instant::now())
    }
}

impl Causes {
    fn take(&mut self, cause: Cause, most: u32, now: Instant) -> bool {
        let cause = match self.0.len() < CAUSES || self.0.contains_key(&cause) {
            true => cause,
            false => Cause { level: cause.level, ..Cause::new("many things", "various") },
        };
        let seen = self.0.entry(cause).or_insert(Seen { begin: now, logged: 0, left_out: 0 });
        if seen.logged < most {
            seen.logged += 1;
            return true;
        }
        seen.left_out += 1;
        false
    }

    /// Ends the periods that are over, or all periods if `all` is set. A cause with omitted lines begins another
    /// period. Returns these causes with the number of omitted lines and the length of the period in seconds.
    fn turn(&mut self, now: Instant, all: bool) -> Vec<(Cause, u64, u64)> {
        let mut told = Vec::new();
        self.0.retain(|cause, seen| {
            let passed = now.duration_since(seen.begin);
            if passed < PERIOD && !all {
                return true;
            }
            if seen.left_out > 0 {
                told.push((cause.clone(), seen.left_out, passed.as_secs()));
            }
            // The line about the others was the first of the new period.
            let goes_on = seen.left_out > 0;
            *seen = Seen { begin: now, logged: 1, left_out: 0 };
            goes_on
        });
        told
    }

    /// The time until the next period is over.
    fn next(&self, now: Instant) -> Option<Duration> {
        let ends = self.0.values().map(|seen| seen.begin + PERIOD);
        ends.min().map(|end| end.saturating_duration_since(now).max(Duration::from_millis(10)))
    }
}

/// Logs the numbers of omitted lines of all periods, for the end of the process.
pub(super) fn tell_all() {
    let told = CAUSED.lock().turn(Instant::now(), true);
    log(told);
}

/// Logs the numbers of omitted lines of periods that are over. Returns the time until the next period is over.
pub(super) fn tell() -> Option<Duration> {
    let now = Instant::now();
    let (told, next) = {
        let mut causes = CAUSED.lock();
        (causes.turn(now, false), causes.next(now))
    };
    log(told);
    next
}

fn log(told: Vec<(Cause, u64, u64)>) {
    for (Cause { what, about, level }, times, seconds) in told {
        if level == Level::INFO {
            tracing::info!(%about, times, seconds, "again, and not logged each time: {what}");
        } else {
            tracing::warn!(%about, times, seconds, "again, and not logged each time: {what}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_news_and_the_others_are_counted_by_cause() {
        let (mut causes, start) = (Causes::default(), Instant::now());
        let take = |causes: &mut Causes, about: &'static str| causes.take(Cause::new("refused", about), 2, start);
        let news: Vec<bool> = (0..5).map(|_| take(&mut causes, "missing")).collect();
        assert_eq!(news, [true, true, false, false, false]);
        assert!(take(&mut causes, "expired"), "another reason is another cause");
        assert_eq!(causes.turn(start + PERIOD / 2, false), []);
        assert_eq!(causes.turn(start + PERIOD, false), [(Cause::new("refused", "missing"), 3, 10)]);
        assert_eq!(causes.0.len(), 1, "the reason of which nothing was left out is forgotten");
        assert_eq!(causes.turn(start + PERIOD * 2, false), [], "nothing more was left out");
        assert_eq!(causes.0.len(), 0);
        assert_eq!(causes.next(start), None);
        assert_eq!(
            (take(&mut causes, "late"), take(&mut causes, "late"), take(&mut causes, "late")),
            (true, true, false)
        );
        assert_eq!(
            causes.turn(start, true),
            [(Cause::new("refused", "late"), 1, 0)],
            "at the end, before the period's"
        );
    }

    #[test]
    fn the_table_is_bounded() {
        let (mut causes, now) = (Causes::default(), Instant::now());
        for number in 0..CAUSES * 2 {
            causes.take(Cause::new("refused", number.to_string()), 1, now);
            causes.take(Cause::info("opened", number.to_string()), 1, now);
        }
        assert_eq!(causes.0.len(), CAUSES + 2, "the others are one cause for each level");
        let mut told = causes.turn(now + PERIOD, false);
        told.sort_by_key(|(cause, ..)| cause.level);
        let others = CAUSES as u64 + CAUSES as u64 / 2 - 1;
        let all = [Cause::new("many things", "various"), Cause::info("many things", "various")];
        assert_eq!(told, all.map(|cause| (cause, others, 10)));
    }

    #[test]
    fn what_is_left_out_is_told_at_the_level_of_its_lines() {
        /// The levels of all events.
        #[derive(Clone, Default)]
        struct Levels(std::sync::Arc<Mutex<Vec<Level>>>);
        impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Levels {
            fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
                self.0.lock().push(*event.metadata().level());
            }
        }
        use tracing_subscriber::layer::SubscriberExt as _;
        let levels = Levels::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(levels.clone()), || {
            log(vec![(Cause::new("refused", "x"), 1, 10), (Cause::info("opened", "x"), 1, 10)]);
        });
        assert_eq!(*levels.0.lock(), [Level::WARN, Level::INFO]);
    }
}
