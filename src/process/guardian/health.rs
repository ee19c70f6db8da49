//! How the gateway knows that the guardian is there: it asks, over a socket for this alone, and a thread of the guardian's
//! answers. Invariant: that thread neither reads `/proc` nor starts a process nor touches a disk, so a guardian with much to do
//! is not taken for one that hangs; and one whose main thread has come to nothing for a minute answers no more.

use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long the main thread may be at one thing.
const HUNG: Duration = Duration::from_secs(60);

/// When the main thread was last seen at its work.
#[derive(Debug)]
pub(super) struct MainThreadProgress {
    begin: Instant,
    /// In milliseconds since then.
    last: AtomicU64,
}

impl MainThreadProgress {
    pub(super) fn new() -> Self {
        Self { begin: Instant::now(), last: AtomicU64::new(0) }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The main thread goes on.
    pub(super) fn goes_on(&self) {
        self.last.store(self.now(), Ordering::Relaxed);
    }

    fn is_hung(&self) -> bool {
        u128::from(self.now().saturating_sub(self.last.load(Ordering::Relaxed))) > HUNG.as_millis()
    }
}

/// Both ends: the gateway's, and the guardian's.
pub(super) fn pair() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((ours, theirs.into()))
}

/// Answers each byte with the same, until the gateway is gone.
///
/// # Errors
/// There can be no thread.
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
    std::thread::Builder::new().name("sluice-beat".to_owned()).spawn(answer).map(drop)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn who_hangs_does_not_answer() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let begin = Instant::now().checked_sub(HUNG * 2).unwrap();
        let progress = Arc::new(MainThreadProgress { begin, last: AtomicU64::new(0) });
        answer(theirs.into(), Arc::clone(&progress)).unwrap();
        ours.write_all(b"1").unwrap();
        // Bytes are answered in their order: the first was not, if the second is the first to come.
        let mut byte = [0];
        ours.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        assert!(ours.read_exact(&mut byte).is_err());
        progress.goes_on();
        ours.write_all(b"2").unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        ours.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"2");
    }
}
