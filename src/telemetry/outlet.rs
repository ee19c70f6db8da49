//! A bounded queue of log lines and the thread that writes them. Queueing never blocks and never fails: a line for
//! which there is no room, or that cannot be written, is counted as lost.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use prometheus_client::metrics::counter::Counter;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// The largest number of queued bytes. The writing thread may hold as many again.
const BYTES: usize = 1 << 20;
/// The largest number of queued lines.
const LINES: usize = 16 * 1024;
/// The capacity of the buffer that is kept when the queue is empty, in bytes.
const KEPT: usize = 64 * 1024;
/// The longest wait for room in a full non-blocking descriptor before the next attempt to write.
const FULL: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// The origin of a line, which decides how much of the queue the line may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// A line of the gateway: the whole queue.
    Own,
    /// A line that others cause, such as a child: half of the queue, so that lines of the gateway find room.
    Others,
    /// A line of the writing thread about lost lines: always queued.
    Writer,
}

/// Additional duties of the writing thread.
pub(super) trait Duty: Send + 'static {
    /// Called when lines are written again after `lines` lines were lost.
    fn lost(&mut self, lines: u64);
    /// Called before each wait for a line. Returns the longest time that the wait may take, or `None` for no bound.
    fn idle(&mut self) -> Option<Duration>;
}

/// A queue of lines and its writing thread. Clones share one queue.
#[derive(Debug, Clone)]
pub(super) struct Outlet(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
    ended: Condvar,
    /// The number of lost lines.
    lost: Counter,
}

#[derive(Debug, Default)]
struct State {
    /// Complete lines, each with its line feed.
    waiting: Vec<u8>,
    lines: usize,
    /// The number of lost lines that have not been reported.
    lost: u64,
    is_closing: bool,
    has_ended: bool,
}

impl Outlet {
    /// Starts the thread that writes to `to`. `lost` counts lost lines.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub(super) fn start(to: impl AsFd + Send + 'static, lost: Counter, duty: impl Duty) -> io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), arrived: Condvar::new(), ended: Condvar::new(), lost });
        let writer = Writer { shared: Arc::clone(&shared), to, duty, batch: Vec::new(), is_torn: false };
        std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.run())?;
        Ok(Self(shared))
    }

    /// Queues a line, which must end with a line feed. Counts the line as lost if the queue is full or closing.
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

    /// Stops taking lines and waits until the queued lines are written, at most for `within`. Returns whether all lines
    /// are written.
    pub(super) fn finish(&self, within: Duration) -> bool {
        let deadline = std::time::Instant::now() + within;
        let mut state = self.0.state.lock();
        state.is_closing = true;
        self.0.arrived.notify_one();
        self.0.ended.wait_while_until(&mut state, |state| !state.has_ended, deadline);
        state.has_ended
    }
}

/// The state of the writing thread.
struct Writer<T, D> {
    shared: Arc<Shared>,
    to: T,
    duty: D,
    /// The bytes that are being written.
    batch: Vec<u8>,
    /// Whether the last line has been written only in part.
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

    /// Waits for lines, at most for `pause`, and takes all queued lines.
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

/// Writes all bytes, however long that takes. Returns the number of bytes written, which is smaller only if the
/// descriptor fails.
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

/// Writes a text to stderr from another thread and waits at most for `within`: for the last message of a process whose
/// stderr may have no reader.
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

    /// Records the numbers of lost lines.
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
