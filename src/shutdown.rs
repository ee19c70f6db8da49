//! Turns signals into the two requests of a shutdown: the first signal starts the drain, the second one ends the drain.
//! All other signals that would end the process are caught too, except SIGKILL and those for faults of the program.

use std::io;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The two requests to a running gateway. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Accept nothing new, let calls in flight finish, then stop.
    pub drain: CancellationToken,
    /// Stop now.
    pub kill: CancellationToken,
}

/// The meaning of SIGHUP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hangup {
    /// The terminal has gone: drain. For a command in the foreground of a terminal.
    Drain,
    /// Nothing. For a service.
    GoOn,
}

/// The effect of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Drain,
    /// A drain that a second SIGHUP does not end: both the system and a shell report the end of one terminal.
    Hangup,
    Kill,
    /// Nothing at all. The gateway's own writes to pipes without a reader cause the signal.
    Silent,
    /// A log line with this reason or advice.
    Nothing(&'static str),
}

const SIGHUP: i32 = libc::SIGHUP;

/// The caught signals: all that would end the process, except SIGKILL and those for faults of the program.
const CAUGHT: [(i32, &str, Effect); 15] = [
    (libc::SIGTERM, "SIGTERM", Effect::Drain),
    (libc::SIGINT, "SIGINT", Effect::Drain),
    (libc::SIGQUIT, "SIGQUIT", Effect::Kill),
    (SIGHUP, "SIGHUP", Effect::Nothing("the configuration is not read again: restart the gateway to change it")),
    (libc::SIGPWR, "SIGPWR", Effect::Drain),
    // The time that the system gives the process is nearly up.
    (libc::SIGXCPU, "SIGXCPU", Effect::Drain),
    (libc::SIGUSR1, "SIGUSR1", Effect::Nothing("logs go to stderr: there is no file to open again")),
    (libc::SIGUSR2, "SIGUSR2", Effect::Nothing("it has no meaning here")),
    // Caught, so that a write to a file that may not grow fails, and does not end the process.
    (libc::SIGXFSZ, "SIGXFSZ", Effect::Nothing("a file may not grow any more: raise the limit on file sizes")),
    (libc::SIGPIPE, "SIGPIPE", Effect::Silent),
    (libc::SIGALRM, "SIGALRM", Effect::Nothing("it has no meaning here")),
    (libc::SIGVTALRM, "SIGVTALRM", Effect::Nothing("it has no meaning here")),
    (libc::SIGPROF, "SIGPROF", Effect::Nothing("it has no meaning here")),
    (libc::SIGIO, "SIGIO", Effect::Nothing("it has no meaning here")),
    (libc::SIGSTKFLT, "SIGSTKFLT", Effect::Nothing("it has no meaning here")),
];

/// The handlers of the caught signals, each with the name and the effect of its signal.
#[derive(Debug)]
pub struct Signals(Vec<(Signal, &'static str, Effect)>);

/// The numbers of the signals that a gateway catches, the real-time signals not included.
pub fn caught() -> impl Iterator<Item = i32> {
    CAUGHT.into_iter().map(|(number, ..)| number)
}

impl Signals {
    /// Installs the handlers, also for real-time signals. A SIGHUP that was ignored at the start of the process
    /// (`nohup`) stays ignored.
    ///
    /// # Errors
    /// A handler cannot be installed.
    pub fn new(hangup: Hangup) -> io::Result<Self> {
        let mut signals = Vec::with_capacity(CAUGHT.len());
        for (number, name, effect) in CAUGHT {
            if number == SIGHUP && is_ignored(number) {
                continue;
            }
            let effect = if (number, hangup) == (SIGHUP, Hangup::Drain) { Effect::Hangup } else { effect };
            signals.push((signal(SignalKind::from_raw(number))?, name, effect));
        }
        // Without a name: those that are for programs among themselves. Tools such as valgrind keep some to themselves.
        for number in libc::SIGRTMIN()..=libc::SIGRTMAX() {
            let effect = Effect::Nothing("it has no meaning here");
            if let Ok(signal) = signal(SignalKind::from_raw(number)) {
                signals.push((signal, "a real-time signal", effect));
            }
        }
        Ok(Self(signals))
    }

    /// Waits for the next signal. Returns its name and its effect.
    async fn next(&mut self) -> (&'static str, Effect) {
        std::future::poll_fn(|context| {
            for (signal, name, effect) in &mut self.0 {
                if signal.poll_recv(context).is_ready() {
                    return Poll::Ready((*name, *effect));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Starts the drain at the first signal, and the kill at the second. SIGQUIT does both at once; a SIGHUP never
    /// kills. Returns after the kill.
    pub async fn watch(mut self, shutdown: Shutdown) {
        loop {
            match self.next().await {
                (_, Effect::Silent) => {}
                (signal, Effect::Nothing(why)) => tracing::warn!(signal, "not acted on: {why}"),
                (signal, Effect::Drain | Effect::Hangup) if !shutdown.drain.is_cancelled() => {
                    tracing::info!(signal, "draining: SIGINT, SIGTERM or SIGQUIT now stops at once");
                    shutdown.drain.cancel();
                }
                (signal, Effect::Hangup) => tracing::info!(signal, "the drain goes on"),
                (signal, Effect::Drain | Effect::Kill) => {
                    tracing::warn!(signal, "stopping at once");
                    shutdown.drain.cancel();
                    return shutdown.kill.cancel();
                }
            }
        }
    }
}

/// Whether the process was started with a signal ignored.
fn is_ignored(number: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    u32::try_from(number - 1).is_ok_and(|bit| mask.checked_shr(bit).unwrap_or_default() & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_that_would_end_the_process_is_caught() {
        /// Those of a broken program, those that stop and continue, those without effect, and the two that nobody
        /// catches.
        const LEFT: [i32; 16] = [
            libc::SIGILL,
            libc::SIGTRAP,
            libc::SIGABRT,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGSEGV,
            libc::SIGSYS,
            libc::SIGTSTP,
            libc::SIGTTIN,
            libc::SIGTTOU,
            libc::SIGCONT,
            libc::SIGCHLD,
            libc::SIGURG,
            libc::SIGWINCH,
            libc::SIGKILL,
            libc::SIGSTOP,
        ];
        for number in 1..32 {
            let is_caught = CAUGHT.iter().any(|(caught, ..)| *caught == number);
            assert_ne!(is_caught, LEFT.contains(&number), "signal {number}");
        }
    }

    #[tokio::test]
    async fn a_terminal_that_is_gone_drains_a_command_in_its_foreground() {
        let shutdown = Shutdown::default();
        let signals = Signals::new(Hangup::Drain).unwrap_or_else(|error| unreachable!("{error}"));
        tokio::spawn(signals.watch(shutdown.clone()));
        assert!(rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP).is_ok());
        shutdown.drain.cancelled().await;
        assert!(!shutdown.kill.is_cancelled());
    }

    #[tokio::test]
    async fn a_signal_without_a_meaning_changes_nothing_and_one_to_quit_is_both() {
        let shutdown = Shutdown::default();
        let mut signals = Signals::new(Hangup::GoOn).unwrap_or_else(|error| unreachable!("{error}"));
        let me = rustix::process::getpid();
        for (signal, name) in [(rustix::process::Signal::HUP, "SIGHUP"), (rustix::process::Signal::USR1, "SIGUSR1")] {
            assert!(rustix::process::kill_process(me, signal).is_ok());
            let (seen, effect) = signals.next().await;
            assert!(seen == name && matches!(effect, Effect::Nothing(_)), "{seen}: {effect:?}");
        }
        let (reader, mut writer) = std::io::pipe().unwrap_or_else(|error| unreachable!("{error}"));
        drop(reader);
        assert!(io::Write::write(&mut writer, b"x").is_err());
        assert_eq!(signals.next().await, ("SIGPIPE", Effect::Silent));
        let watch = tokio::spawn(signals.watch(shutdown.clone()));
        assert!(rustix::process::kill_process(me, rustix::process::Signal::USR2).is_ok());
        assert!(rustix::process::kill_process(me, rustix::process::Signal::QUIT).is_ok());
        shutdown.kill.cancelled().await;
        assert!(shutdown.drain.is_cancelled());
        assert!(watch.await.is_ok());
    }
}
