//! Slows down the reading of a child that writes much useless output: invalid lines, answers to unknown calls,
//! notifications without a receiver, stderr beyond what is logged. While the gateway does not read, the pipe fills up
//! and the child waits. Useful messages cost nothing and earn credit for as much useless output.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Useless output that is read without delay, in bytes per second.
const RATE: usize = 8 * 1024 * 1024;
/// Most credit that can be saved up, in bytes.
const BURST: usize = 4 * RATE;
/// Most debt, in bytes. Debt is paid off at [`RATE`], so within 4 seconds.
const DEBT: usize = 4 * RATE;
/// Cost of a useless message besides its length, in bytes. Allows 2,048 messages per second and 8,192 at once.
const MESSAGE: usize = 4 * 1024;
/// Shortest pause. Bounds how often a slowed child wakes the gateway.
const STEP: Duration = Duration::from_millis(50);

/// The number of messages that one task handles before it lets other tasks run, where much waits to be read.
const TURN: u32 = 16;

/// A token bucket for useless output of one child.
#[derive(Debug)]
pub struct Brake {
    credit: usize,
    debt: usize,
    /// The time up to which credit for elapsed time was added.
    filled: Instant,
    gone: CancellationToken,
    /// The number of pauses since the beginning of the turn.
    pauses: u32,
}

impl Brake {
    /// Starts with full credit. Once `gone` is cancelled, because the child has ended, pauses end at once.
    pub fn new(gone: CancellationToken) -> Self {
        Self { credit: BURST, debt: 0, filled: Instant::now(), gone, pauses: 0 }
    }

    /// Charges a useless message of `bytes` bytes.
    pub fn waste_message(&mut self, bytes: usize) {
        self.waste(bytes.saturating_add(MESSAGE));
    }

    /// Charges `bytes` bytes of useless output that is no message.
    pub fn waste(&mut self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        // First: a full bucket takes no more, so that a child that was quiet for long may not waste twice as much at
        // once.
        self.pass();
        let left = self.credit.saturating_sub(bytes);
        self.debt = DEBT.min(self.debt + bytes.saturating_sub(self.credit));
        self.credit = left;
    }

    /// Adds credit for a useful message of `bytes` bytes.
    pub fn earn(&mut self, bytes: usize) {
        self.refill(bytes.saturating_add(MESSAGE));
    }

    /// Waits for a read of the child's output. If the read was not ready at once, other tasks could run meanwhile, and a
    /// turn begins.
    pub async fn wait_for<F: Future>(&mut self, read: F) -> F::Output {
        let mut read = pin!(read);
        poll_fn(|context| {
            let polled = read.as_mut().poll(context);
            if polled.is_pending() {
                self.pauses = 0;
            }
            polled
        })
        .await
    }

    /// Waits until there is credit, at most until the child is gone. Every [`TURN`] pauses, lets all other tasks that can
    /// run, run first, whatever the credit is.
    pub async fn pause(&mut self) {
        self.pauses += 1;
        if self.pauses >= TURN {
            self.pauses = 0;
            tokio::task::yield_now().await;
        }
        while self.credit == 0 {
            self.pass();
            if self.credit > 0 {
                return;
            }
            let pause = Duration::from_micros((self.debt as u64).saturating_mul(1_000_000) / RATE as u64);
            tokio::select! {
                () = sleep(pause.max(STEP)) => {}
                () = self.gone.cancelled() => return,
            }
        }
    }

    /// Adds credit for the time since the last call.
    fn pass(&mut self) {
        let now = Instant::now();
        let passed = now.saturating_duration_since(self.filled).as_nanos();
        self.filled = now;
        self.refill(usize::try_from(passed.saturating_mul(RATE as u128) / 1_000_000_000).unwrap_or(BURST + DEBT));
    }

    fn refill(&mut self, bytes: usize) {
        let left = bytes.saturating_sub(self.debt);
        self.debt = self.debt.saturating_sub(bytes);
        self.credit = BURST.min(self.credit.saturating_add(left));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_much_is_wasted_at_once_and_so_much_a_second() {
        let mut brake = Brake::new(CancellationToken::new());
        let mut messages = [0_u32; 4];
        let begin = Instant::now();
        while let Some(second) = messages.get_mut(usize::try_from(begin.elapsed().as_secs()).unwrap_or(usize::MAX)) {
            *second += 1;
            brake.waste_message(0);
            brake.pause().await;
        }
        let [first, later @ ..] = messages;
        assert!((8_192..=8_192 + 2_300).contains(&first), "{messages:?}");
        assert!(later.iter().all(|second| (1_800..=2_300).contains(second)), "{messages:?}");
    }

    #[tokio::test]
    async fn others_run_after_so_many_messages_however_few_come_with_each_read() {
        let mut brake = Brake::new(CancellationToken::new());
        let other = tokio::spawn(async {});
        let mut messages = 0;
        while !other.is_finished() {
            assert!(messages < 2 * TURN, "the other task waits");
            brake.wait_for(std::future::ready(())).await;
            for _ in 0..TURN - 1 {
                brake.pause().await;
                messages += 1;
            }
        }
        brake.pauses = TURN - 1;
        brake.wait_for(tokio::task::yield_now()).await;
        assert_eq!(brake.pauses, 0, "the others have run meanwhile");
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_quiet_for_long_may_waste_no_more_at_once() {
        for wasted_before in [0, BURST / 2] {
            let mut brake = Brake::new(CancellationToken::new());
            brake.waste(wasted_before);
            tokio::time::advance(Duration::from_secs(60)).await;
            let (mut messages, begin) = (0_u32, Instant::now());
            while begin.elapsed() == Duration::ZERO {
                messages += 1;
                brake.waste_message(0);
                brake.pause().await;
            }
            assert_eq!(messages, 8_192, "{wasted_before}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_as_much_to_somebody_is_never_slowed_down() {
        let mut brake = Brake::new(CancellationToken::new());
        let begin = Instant::now();
        for _ in 0..100_000 {
            brake.waste_message(1000);
            brake.pause().await;
            brake.earn(1000);
        }
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn one_large_message_is_over_soon_and_a_child_that_is_gone_is_not_waited_for() {
        let gone = CancellationToken::new();
        let mut brake = Brake::new(gone.clone());
        brake.waste_message(1 << 30);
        let begin = Instant::now();
        brake.pause().await;
        assert!(begin.elapsed() <= Duration::from_secs(5), "{:?}", begin.elapsed());
        brake.waste_message(1 << 30);
        gone.cancel();
        let begin = Instant::now();
        brake.pause().await;
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }
}
