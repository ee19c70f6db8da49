//! The rows of the table: who attacks how, and what that did to the other tenant.

use std::io;
use std::time::Duration;

use crate::arguments::Arguments;
use crate::attacker::Attacker;
use crate::gateway::{Gateway, Setup};
use crate::victim::{Victim, Window};

/// The most that the median p99 beside an attack may be of the one alone, where it is also [`DIFFERENCE`] longer.
pub(crate) const RATIO: f64 = 3.0;
/// The ratio that is aimed at, and that has to be held where the hostile tenant has a limit of processors.
pub(crate) const AIM: f64 = 1.5;
/// The difference in time that nobody notices. A debug build takes up to ten times as long for everything.
pub(crate) const DIFFERENCE: Duration = Duration::from_millis(if cfg!(debug_assertions) { 50 } else { 5 });
/// The same for a new session, whose processes have to be started on the processors that the attack leaves.
pub(crate) const NEW_SESSION_DIFFERENCE: Duration = Duration::from_millis(250);
/// The time that the gateway has for what an attack has left to do, before the next window alone.
const SETTLE: Duration = Duration::from_secs(5);
/// The calls before the first window on each of the two sessions: what is done once, is done then.
const WARM_UP: usize = 20;

/// A row.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// The attacks, each by a process of its own (`attacks.rs`).
    attacks: &'static [&'static str],
    /// The server that the victim uses.
    server: &'static str,
    setup: Setup,
}

const PLAIN: Setup = Setup { unread_log: false, small_disk: false };
const UNREAD_LOG: Setup = Setup { unread_log: true, small_disk: false };
const SMALL_DISK: Setup = Setup { unread_log: false, small_disk: true };

const fn row(name: &'static str, attacks: &'static [&'static str]) -> Row {
    Row { name, attacks, server: "echo", setup: PLAIN }
}

/// All rows.
pub(crate) const ROWS: [Row; 25] = [
    row("nothing", &[]),
    row("floods on stdout", &["stdout"]),
    row("floods on stderr", &["stderr"]),
    row("notifications of children", &["notifications-of-children"]),
    row("notifications of clients", &["notifications-of-clients"]),
    row("deep folders, many files", &["folders"]),
    row("parked messages, cancels", &["parked"]),
    row("big bodies", &["big-bodies"]),
    row("slow bodies", &["slow-bodies"]),
    row("big headers", &["big-headers"]),
    row("slow headers", &["slow-headers"]),
    row("streams that nobody reads", &["unread-streams"]),
    row("idle connections, HTTP/1", &["idle-1"]),
    row("idle connections, HTTP/2", &["idle-2"]),
    row("HTTP/2 PING, SETTINGS", &["http2-control"]),
    row("HTTP/2 empty DATA", &["http2-data"]),
    row("HTTP/2 rapid reset", &["http2-reset"]),
    row("HTTP/2 CONTINUATION", &["http2-continuation"]),
    row("hanging starts", &["hanging-starts"]),
    row("crash loops", &["crashes"]),
    Row { server: "shared", ..row("variants of initialize", &["variants"]) },
    Row { server: "few", ..row("sessions never ended", &["never-ended"]) },
    Row { setup: UNREAD_LOG, ..row("a log that nobody reads", &["stderr", "strangers"]) },
    Row { setup: SMALL_DISK, ..row("a full disk", &["full-disk"]) },
    Row {
        setup: UNREAD_LOG,
        ..row(
            "all together",
            &[
                "stdout",
                "stderr",
                "notifications-of-clients",
                "folders",
                "parked",
                "big-bodies",
                "slow-bodies",
                "big-headers",
                "slow-headers",
                "unread-streams",
                "http2-reset",
                "hanging-starts",
                "crashes",
            ],
        )
    },
];

/// What a row has shown.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Medians of the windows.
    pub(crate) alone: Window,
    pub(crate) beside: Window,
    /// Why it was not measured.
    pub(crate) skipped: Option<String>,
}

impl Row {
    /// Measures it: a window alone, one beside the attack, and so on, with a window alone at the end.
    pub(crate) fn measure(&self, arguments: &Arguments) -> Outcome {
        let gateway = match Gateway::start(arguments, self.setup) {
            Ok(gateway) => gateway,
            Err(error) if self.setup.small_disk => return Outcome::skip(&format!("no disk to fill: {error}")),
            Err(error) => return Outcome::failed(error.to_string()),
        };
        match self.windows(arguments, &gateway) {
            Ok((alone, mut beside)) => {
                if let Some(last) = beside.last_mut() {
                    last.errors.extend(gateway.stop().err());
                }
                Outcome { alone: summary(alone), beside: summary(beside), skipped: None }
            }
            Err(error) => Outcome::failed(format!("{error}: {}", gateway.last_lines())),
        }
    }

    fn windows(&self, arguments: &Arguments, gateway: &Gateway) -> io::Result<(Vec<Window>, Vec<Window>)> {
        let mut victim = Victim::open(gateway.address, self.server)?;
        victim.window(WARM_UP);
        let mut alone = vec![victim.window(arguments.calls)];
        let mut beside = Vec::new();
        for _ in 0..arguments.windows {
            let attacks = self.attacks.iter().map(|name| Attacker::start(name, gateway.address, arguments));
            let attackers = attacks.collect::<io::Result<Vec<_>>>()?;
            beside.push(victim.window(arguments.calls));
            attackers.into_iter().for_each(Attacker::stop);
            if beside.iter().any(|window| !window.errors.is_empty()) {
                // It has failed.
                break;
            }
            gateway.wait_for_quiet(SETTLE);
            alone.push(victim.window(arguments.calls));
        }
        Ok((alone, beside))
    }
}

/// The medians of windows, and all errors.
fn summary(windows: Vec<Window>) -> Window {
    let median = |time: fn(&Window) -> Duration| {
        let mut times: Vec<Duration> = windows.iter().map(time).collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    };
    let (p99, new_session) = (median(|window| window.p99), median(|window| window.new_session));
    Window { p99, new_session, errors: windows.into_iter().flat_map(|window| window.errors).collect() }
}

impl Outcome {
    fn skip(reason: &str) -> Self {
        Self { skipped: Some(reason.to_owned()), ..Self::default() }
    }

    fn failed(error: String) -> Self {
        Self { beside: Window { errors: vec![error], ..Window::default() }, ..Self::default() }
    }

    /// Whether the victim had an error.
    pub(crate) fn has_errors(&self) -> bool {
        !self.alone.errors.is_empty() || !self.beside.errors.is_empty()
    }

    /// How many times as long calls take beside the attack.
    pub(crate) fn ratio(&self) -> f64 {
        ratio(self.alone.p99, self.beside.p99)
    }

    /// Whether the victim was slowed down beyond a limit.
    pub(crate) fn is_slow(&self, arguments: &Arguments) -> bool {
        let limit = if arguments.cgroups.is_some() { AIM } else { RATIO };
        exceeds(self.alone.p99, self.beside.p99, limit, DIFFERENCE)
            || exceeds(self.alone.new_session, self.beside.new_session, RATIO, NEW_SESSION_DIFFERENCE)
    }
}

fn ratio(alone: Duration, beside: Duration) -> f64 {
    beside.as_secs_f64() / alone.as_secs_f64().max(1e-9)
}

fn exceeds(alone: Duration, beside: Duration, limit: f64, difference: Duration) -> bool {
    ratio(alone, beside) > limit && beside.saturating_sub(alone) > difference
}
