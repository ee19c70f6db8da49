//! Lines on their way out of the process: a bounded queue, and a thread of its own that writes. Whoever has a line to say
//! never waits for whoever reads it, and never fails: a line that finds no room, or cannot be written, is counted.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use prometheus_client::metrics::counter::Counter;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Most bytes that wait. As many again may be with the thread that writes.
const BYTES: usize = 1 << 20;
/// Most lines that wait.
const LINES: usize = 16 * 1024;
/// Room that is kept when nothing waits any more, in bytes.
const KEPT: usize = 64 * 1024;
/// How long a descriptor that takes nothing (it is non-blocking, and full) is waited for before it is tried again.
const FULL: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Whose line it is: how much of the queue it may fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// The gateway's own.
    Own,
    /// Somebody else's, such as a child's: half, so that the gateway's own still find room.
    Others,
    /// Of the thread that writes, about lines that were lost: always.
    Writer,
}

/// What to do besides writing.
pub(super) trait Duty: Send + 'static {
    /// Lines were written again after so many were lost.
    fn lost(&mut self, lines: u64);
    /// Called before each wait for a line. Returns how long that may take, if there will be something else to do.
    fn idle(&mut self) -> Option<Duration>;
}

/// A queue of lines with the thread that writes them. Cheap to clone: all clones are one.
#[derive(Debug, Clone)]
pub(super) struct Outlet(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
    ended: Condvar,
    /// Lines that nobody will read.
    lost: Counter,
}

#[derive(Debug, Default)]
struct State {
    /// Whole lines, each with its line feed.
    waiting: Vec<u8>,
    lines: usize,
    /// Lines lost that have not been reported.
    lost: u64,
    is_closing: bool,
    has_ended: bool,
}

impl Outlet {
    /// Starts the thread that writes to `to`. Lines that are lost are counted in `lost`.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub(super) fn start(to: impl AsFd + Send + 'static, lost: Counter, duty: impl Duty) -> io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), arrived: Condvar::new(), ended: Condvar::new(), lost });
        let writer = Writer { shared: Arc::clone(&shared), to, duty, batch: Vec::new(), is_torn: false };
        std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.run())?;
        Ok(Self(shared))
    }

    /// Queues a line, which ends with a line feed, or counts it as lost: where there is no room, and where the end has come, as
    /// nobody may be there to write it.
    pub(super) fn push(&self, line: &[u8], share: Share) {
        let part = match share {
            Share::Own => 1,
            Share::Others => 2,
            // One line for each batch at most.
            Share::Writer => 0,
        };
        let mut state = self.0.state.lock();
        // What is said of lost lines is from the thread that writes: it is still there.
        let is_open = !state.is_closing || (share == Share::Writer && !state.has_ended);
        let fits = is_open
            && state.waiting.len() + line.len() <= BYTES.checked_div(part).unwrap_or(usize::MAX)
            && state.lines < LINES.checked_div(part).unwrap_or(usize::MAX);
        if fits {
            state.waiting.extend_from_slice(line);
            state.lines += 1;
            drop(state);
            self.0.arrived.notify_one();
        } else {
            state.lost += 1;
            drop(state);
            self.0.lost.inc();
        }
    }

    /// Takes no more than what is there, and waits until it is written, or for `within`. Returns whether it is.
    pub(super) fn finish(&self, within: Duration) -> bool {
        let deadline = std::time::Instant::now() + within;
        let mut state = self.0.state.lock();
        state.is_closing = true;
        self.0.arrived.notify_one();
        while !state.has_ended {
            if self.0.ended.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        state.has_ended
    }
}

/// The thread.
struct Writer<T, D> {
    shared: Arc<Shared>,
    to: T,
    duty: D,
    /// What is being written.
    batch: Vec<u8>,
    /// Whether a line has been written in part only.
    is_torn: bool,
}

impl<T: AsFd, D: Duty> Writer<T, D> {
    fn run(mut self) {
        loop {
            let pause = self.duty.idle();
            match self.next(pause) {
                Next::Batch { lost } => self.put(lost),
                Next::Nothing => {}
                Next::End => return,
            }
        }
    }

    /// Takes what waits, when there is something.
    fn next(&mut self, pause: Option<Duration>) -> Next {
        let mut state = self.shared.state.lock();
        if state.waiting.is_empty() {
            if state.is_closing {
                state.has_ended = true;
                self.shared.ended.notify_all();
                return Next::End;
            }
            match pause {
                Some(pause) => drop(self.shared.arrived.wait_for(&mut state, pause)),
                None => self.shared.arrived.wait(&mut state),
            }
        }
        if state.waiting.is_empty() {
            return Next::Nothing;
        }
        std::mem::swap(&mut state.waiting, &mut self.batch);
        state.lines = 0;
        Next::Batch { lost: std::mem::take(&mut state.lost) }
    }

    fn put(&mut self, lost: u64) {
        if self.is_torn {
            self.batch.insert(0, b'\n');
        }
        let written = write(self.to.as_fd(), &self.batch);
        let rest = self.batch.get(written..).unwrap_or_default();
        if rest.is_empty() {
            self.is_torn = false;
            if lost > 0 {
                self.duty.lost(lost);
            }
        } else {
            if written > 0 {
                self.is_torn = self.batch.get(written - 1) != Some(&b'\n');
            }
            let unwritten = memchr::memchr_iter(b'\n', rest).count() as u64;
            self.shared.lost.inc_by(unwritten);
            self.shared.state.lock().lost += lost + unwritten;
        }
        self.batch.clear();
        if self.batch.capacity() > KEPT {
            self.batch = Vec::new();
        }
    }
}

enum Next {
    Batch { lost: u64 },
    Nothing,
    End,
}

/// Writes, for as long as it takes. Returns how much was written when the descriptor takes no more for good.
fn write(to: BorrowedFd<'_>, bytes: &[u8]) -> usize {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match rustix::io::write(to, rest) {
            Ok(0) => break,
            Ok(more) => written += more,
            Err(Errno::INTR) => {}
            // Somebody else has made it non-blocking. That it is full may have an end.
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(&to, PollFlags::OUT)], Some(&FULL));
            }
            Err(_) => break,
        }
    }
    written
}

/// Writes a text to stderr, by a thread of its own, and waits for `within` at most: for the last words of a process whose
/// stderr nobody may be reading.
pub fn say(text: String, within: Duration) {
    let (done, is_done) = std::sync::mpsc::sync_channel(1);
    let write = move || {
        write(rustix::stdio::stderr().as_fd(), text.as_bytes());
        let _ = done.send(());
    };
    if std::thread::Builder::new().name("say".to_owned()).spawn(write).is_ok() {
        let _ = is_done.recv_timeout(within);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::io::Read as _;
    use std::os::fd::OwnedFd;

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    /// Notes what was lost.
    #[derive(Clone, Default)]
    struct Notes(Arc<Mutex<Vec<u64>>>);

    impl Duty for Notes {
        fn lost(&mut self, lines: u64) {
            self.0.lock().push(lines);
        }
        fn idle(&mut self) -> Option<Duration> {
            None
        }
    }

    const SOON: Duration = Duration::from_millis(100);
    const LATE: Duration = Duration::from_secs(20);

    fn outlet(to: OwnedFd) -> (Outlet, Counter, Notes) {
        let (lost, notes) = (Counter::default(), Notes::default());
        (Outlet::start(to, lost.clone(), notes.clone()).unwrap(), lost, notes)
    }

    fn read(from: OwnedFd) -> String {
        let mut text = String::new();
        std::fs::File::from(from).read_to_string(&mut text).unwrap();
        text
    }

    /// Pushes a line of 1 KiB that holds a number.
    fn push(outlet: &Outlet, number: usize, share: Share) {
        outlet.push(format!("{number:1023}\n").as_bytes(), share);
    }

    #[test]
    fn lines_come_whole_and_in_order() {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (outlet, lost, _) = outlet(theirs);
        let reader = std::thread::spawn(move || read(ours));
        for number in 0..500 {
            push(&outlet, number, Share::Own);
        }
        assert!(outlet.finish(LATE));
        let numbers: Vec<usize> = reader.join().unwrap().lines().map(|line| line.trim().parse().unwrap()).collect();
        assert_eq!(numbers, (0..500).collect::<Vec<_>>());
        assert_eq!(lost.get(), 0);
    }

    #[test]
    fn a_pipe_that_nobody_reads_holds_nobody_up_and_what_is_lost_is_counted() {
        for flags in [PipeFlags::CLOEXEC, PipeFlags::CLOEXEC | PipeFlags::NONBLOCK] {
            let (ours, theirs) = pipe_with(flags).unwrap();
            let (outlet, lost, notes) = outlet(theirs);
            for number in 0..5000 {
                push(&outlet, number, Share::Own);
            }
            assert!(lost.get() > 2000, "{} lines are lost", lost.get());
            assert!(!outlet.finish(SOON), "the pipe is full");
            // Now somebody reads.
            rustix::fs::fcntl_setfl(&ours, rustix::fs::OFlags::empty()).unwrap();
            let reader = std::thread::spawn(move || read(ours));
            assert!(outlet.finish(LATE));
            drop(outlet);
            let lines: Vec<_> = reader.join().unwrap().lines().map(str::to_owned).collect();
            assert!(lines.iter().all(|line| line.len() == 1023), "all are whole");
            assert_eq!(lines.len() as u64 + lost.get(), 5000);
            assert_eq!(notes.0.lock().iter().sum::<u64>(), lost.get(), "all are reported");
        }
    }

    #[test]
    fn what_takes_nothing_ends_nothing() {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let (closed, theirs) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        drop(closed);
        for to in [full.into(), theirs] {
            let (outlet, lost, notes) = outlet(to);
            for number in 0..100 {
                push(&outlet, number, Share::Own);
            }
            assert!(outlet.finish(LATE));
            assert_eq!(lost.get(), 100);
            assert_eq!(*notes.0.lock(), [0_u64; 0]);
        }
    }

    #[test]
    fn a_line_after_the_end_is_counted_and_delays_it_no_further() {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (outlet, lost, _) = outlet(theirs);
        push(&outlet, 0, Share::Own);
        assert!(outlet.finish(LATE));
        for share in [Share::Own, Share::Others, Share::Writer] {
            push(&outlet, 1, share);
        }
        assert_eq!(lost.get(), 3);
        drop(outlet);
        assert_eq!(read(ours).lines().count(), 1);
    }

    #[test]
    fn others_leave_room_for_the_gateways_own() {
        let (_ours, theirs) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (outlet, lost, _) = outlet(theirs);
        for number in 0..5000 {
            push(&outlet, number, Share::Others);
        }
        let before = lost.get();
        assert!(before > 2000);
        push(&outlet, 0, Share::Own);
        assert_eq!(lost.get(), before);
    }
}
