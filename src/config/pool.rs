//! Reads `[servers.NAME.pool]` and `[servers.NAME.restart]`: the number of children of a server, and the consequences
//! of crashes.

use std::fmt::Display;
use std::time::Duration;

use super::section::Section;
use super::server::{Isolation, Pool, PoolMode, Restart};
use super::tools::{RESENDS, Resend};

const MS: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
const MODES: [(&str, PoolMode); 3] =
    [("static", PoolMode::Static), ("dynamic", PoolMode::Dynamic), ("ondemand", PoolMode::Ondemand)];

impl Default for Pool {
    fn default() -> Self {
        Self {
            mode: PoolMode::Ondemand,
            max_children: 1000,
            min_spare: 1,
            max_spare: 3,
            replicas: 1,
            idle_timeout: Duration::from_secs(60),
            queue_timeout: Duration::from_secs(30),
            max_requests: None,
            max_age: None,
            max_rss: None,
        }
    }
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            backoff_min: Duration::from_millis(200),
            backoff_max: Duration::from_secs(30),
            max_crashes: 5,
            window: Duration::from_secs(60),
            open: Duration::from_secs(30),
            resend: Resend::Never,
        }
    }
}

/// Reads `pool`. Values that contradict each other are problems; only with `isolation` = `shared` may `replicas` be
/// more than 1.
pub(super) fn read(s: &mut Section<'_>, isolation: Isolation) -> Pool {
    let default = Pool::default();
    let before = s.reading.problems();
    let pool = Pool {
        mode: s.choice("mode", default.mode, &MODES),
        max_children: s.count("max_children", default.max_children, 1..=100_000),
        min_spare: s.count("min_spare", default.min_spare, 0..=10_000),
        max_spare: s.count("max_spare", default.max_spare, 0..=10_000),
        replicas: s.count("replicas", default.replicas, 1..=1_000),
        idle_timeout: s.duration("idle_timeout", default.idle_timeout, MS..=DAY),
        queue_timeout: s.duration("queue_timeout", default.queue_timeout, Duration::ZERO..=DAY),
        max_requests: s.optional_count("max_requests", 1..=usize::MAX),
        max_age: s.optional_duration("max_age", MS..=DAY * 365),
        max_rss: s.optional_bytes("max_rss", 1 << 20..=usize::MAX),
    };
    if s.reading.problems() == before {
        contradictions(s, &pool, isolation);
    }
    pool
}

/// Adds the problem that one value is more than another allows. The problem is about the first key if the configuration
/// has that key, otherwise about the second.
fn too_much(s: &Section<'_>, (key, value): (&str, &dyn Display), (most_key, most): (&str, &dyn Display)) {
    let by_default = if s.has(most_key) { "" } else { " by default" };
    let (key, text) = match s.has(key) {
        true => (key, format!("{value} is more than {most_key} ({most}{by_default}); lower it, or raise {most_key}")),
        false => (most_key, format!("{most} is less than {key} ({value} by default); raise it, or lower {key}")),
    };
    s.problem(key, text);
}

/// Adds problems for values of `pool` that contradict each other or `isolation`.
fn contradictions(s: &Section<'_>, pool: &Pool, isolation: Isolation) {
    let not_over = |key: &str, value: usize, most_key: &str, most: usize| {
        if value > most {
            too_much(s, (key, &value), (most_key, &most));
        }
    };
    match pool.mode {
        PoolMode::Dynamic => {
            not_over("min_spare", pool.min_spare, "max_spare", pool.max_spare);
            not_over("min_spare", pool.min_spare, "max_children", pool.max_children);
            if s.has("max_spare") && pool.min_spare <= pool.max_children {
                not_over("max_spare", pool.max_spare, "max_children", pool.max_children);
            }
        }
        PoolMode::Static | PoolMode::Ondemand => {
            for key in ["min_spare", "max_spare"].into_iter().filter(|key| s.has(key)) {
                s.problem(key, "only mode = \"dynamic\" keeps spares within bounds; remove it, or change the mode");
            }
        }
    }
    if pool.mode == PoolMode::Static && !s.has("max_children") {
        let text = format!(
            "starts as many as max_children at once, which is {} by default; set max_children",
            pool.max_children
        );
        s.problem("mode", text);
    }
    not_over("replicas", pool.replicas, "max_children", pool.max_children);
    if pool.replicas > 1 && isolation != Isolation::Shared {
        s.problem(
            "replicas",
            "only isolation = \"shared\" spreads sessions over children; remove it, or change the isolation",
        );
    }
}

/// Reads `restart`. `backoff_min` above `backoff_max` is a problem.
pub(super) fn read_restart(s: &mut Section<'_>) -> Restart {
    let default = Restart::default();
    let before = s.reading.problems();
    let restart = Restart {
        backoff_min: s.duration("backoff_min", default.backoff_min, MS..=DAY),
        backoff_max: s.duration("backoff_max", default.backoff_max, MS..=DAY),
        max_crashes: s.count("max_crashes", default.max_crashes, 1..=1_000),
        window: s.duration("window", default.window, MS..=DAY),
        open: s.duration("open", default.open, MS..=DAY),
        resend: s.choice("resend", default.resend, &RESENDS),
    };
    if restart.backoff_min > restart.backoff_max && s.reading.problems() == before {
        let (min, max) = (format!("{:?}", restart.backoff_min), format!("{:?}", restart.backoff_max));
        too_much(s, ("backoff_min", &min), ("backoff_max", &max));
    }
    restart
}
