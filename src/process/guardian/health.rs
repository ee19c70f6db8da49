//! Health checks of the guardian: the gateway sends bytes over a socket, and a thread of the guardian returns them.
//! Invariants: this thread reads no `/proc`, starts no process and touches no disk, so a busy guardian still answers;
//! and it stops answering when the main thread has made no progress for a minute.

use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Time without progress of the main thread after which the guardian counts as hung.
const HUNG: Duration = Duration::from_secs(60);

/// The time of the main thread's last progress.
#[derive(Debug)]
pub(super) struct MainThreadProgress(Mutex<Instant>);

impl MainThreadProgress {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    /// Notes that the main thread makes progress now.
    pub(super) fn note(&self) {
        *self.0.lock() = Instant::now();
    }

    fn is_hung(&self) -> bool {
        self.0.lock().elapsed() > HUNG
    }
}

/// Starts a thread that returns each byte from `socket` until the gateway closes its end. It stays silent while the
/// main thread is hung.
///
/// # Errors
/// No thread can be started.
pub(super) fn answer(socket: OwnedFd, progress: Arc<MainThreadProgress>) -> io::Result<()> {
    let mut socket = UnixStream::from(socket);
    let answer = move || {
        let mut byte = [0];
        while socket.read_exact(&mut byte).is_ok() {
            if !progress.is_hung() && socket.write_all(&byte).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("sluice-health".to_owned()).spawn(answer).map(drop)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn who_hangs_does_not_answer() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let begin = Instant::now().checked_sub(HUNG * 2).unwrap();
        let progress = Arc::new(MainThreadProgress(Mutex::new(begin)));
        answer(theirs.into(), Arc::clone(&progress)).unwrap();
        ours.write_all(b"1").unwrap();
        // Bytes are answered in their order: the first was not, if the second is the first to come.
        let mut byte = [0];
        ours.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        assert!(ours.read_exact(&mut byte).is_err());
        progress.note();
        ours.write_all(b"2").unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        ours.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"2");
    }
}
