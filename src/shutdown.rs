//! From serving to stopped, in phases: a signal starts the drain, a second one hurries it.

use std::io;

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

/// SIGTERM and SIGINT.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes over both signals from the system's default.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Turns the first signal into a drain and the second into a kill.
    pub async fn watch(mut self, shutdown: Shutdown) {
        let signal = self.next().await;
        tracing::info!(signal, "draining: a second signal stops at once");
        shutdown.drain.cancel();
        let signal = self.next().await;
        tracing::warn!(signal, "stopping at once");
        shutdown.kill.cancel();
    }
}
