//! From serving to stopped, in phases: a signal starts the drain, a second one hurries it. No signal ends the gateway as the
//! system would, at once and in the middle of everything, but those that nobody can catch and those of a broken program.

use std::io;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The two requests that can be made of a running gateway. Cheap to clone; shared by all parts.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Take nothing new, let calls in flight finish, then stop.
    pub drain: CancellationToken,
    /// Stop now.
    pub kill: CancellationToken,
}

/// What SIGHUP means: the terminal is gone, or somebody expects the configuration to be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hangup {
    /// A command in the foreground of a terminal ends with the terminal, in order.
    Drain,
    /// A service goes on.
    GoOn,
}

/// What a signal does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Drain,
    /// A drain, which another such signal does not hurry: the end of one terminal is told by the system and by a shell.
    Hangup,
    Kill,
    /// It is logged, with what to do in its place.
    Nothing(&'static str),
}

const SIGHUP: i32 = libc::SIGHUP;

/// Every signal that would end a process or dump its core, and that is not from the program's own faults.
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
    (libc::SIGPIPE, "SIGPIPE", Effect::Nothing("it has no meaning here")),
    (libc::SIGALRM, "SIGALRM", Effect::Nothing("it has no meaning here")),
    (libc::SIGVTALRM, "SIGVTALRM", Effect::Nothing("it has no meaning here")),
    (libc::SIGPROF, "SIGPROF", Effect::Nothing("it has no meaning here")),
    (libc::SIGIO, "SIGIO", Effect::Nothing("it has no meaning here")),
    (libc::SIGSTKFLT, "SIGSTKFLT", Effect::Nothing("it has no meaning here")),
];

/// The signals that are caught.
#[derive(Debug)]
pub struct Signals(Vec<(Signal, &'static str, Effect)>);

/// The numbers of the signals that a gateway catches, the real-time signals not included.
pub fn caught() -> impl Iterator<Item = i32> {
    CAUGHT.into_iter().map(|(number, ..)| number)
}

impl Signals {
    /// Takes over from the system's default. A SIGHUP that whoever started the process has set to be ignored (`nohup`) stays
    /// ignored.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
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

    /// Turns the first signal into a drain and the second into a kill. SIGQUIT is both at once; SIGHUP is never the second.
    pub async fn watch(mut self, shutdown: Shutdown) {
        loop {
            match self.next().await {
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
        /// Those of a broken program, those that stop and continue, those without effect, and the two that nobody catches.
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
        let watch = tokio::spawn(signals.watch(shutdown.clone()));
        assert!(rustix::process::kill_process(me, rustix::process::Signal::USR2).is_ok());
        assert!(rustix::process::kill_process(me, rustix::process::Signal::QUIT).is_ok());
        shutdown.kill.cancelled().await;
        assert!(shutdown.drain.is_cancelled());
        assert!(watch.await.is_ok());
    }
}
