//! Slows down the reading of a child that says much of which nothing comes: lines that are no message, answers that nobody
//! waits for, notifications that nobody gets, more on stderr than is logged. A pipe that is not read fills, and then the child
//! waits. What comes to somebody costs nothing, and gives credit for as much that does not.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// What may be wasted a second, in bytes.
const RATE: usize = 8 * 1024 * 1024;
/// What may be wasted at once.
const BURST: usize = 4 * RATE;
/// No debt is larger: it is over in so many seconds.
const DEBT: usize = 4 * RATE;
/// What a message costs besides its bytes: 2,048 a second, 8,192 at once.
const MESSAGE: usize = 4 * 1024;
/// A pause is not shorter: who is slowed down wakes the gateway so many times a second.
const STEP: Duration = Duration::from_millis(50);

/// A bucket of what may be wasted.
#[derive(Debug)]
pub struct Brake {
    credit: usize,
    debt: usize,
    /// Up to when it has got what a child may waste a second.
    filled: Instant,
    gone: CancellationToken,
}

impl Brake {
    /// A full bucket, for a child that is `gone` one day: from then on there is nothing to slow down.
    pub fn new(gone: CancellationToken) -> Self {
        Self { credit: BURST, debt: 0, filled: Instant::now(), gone }
    }

    /// Nothing came of a message of so many bytes.
    pub fn waste_message(&mut self, bytes: usize) {
        self.waste(bytes.saturating_add(MESSAGE));
    }

    /// Nothing came of so many bytes.
    pub fn waste(&mut self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        // First: a full bucket takes no more, so that a child that was quiet for long may not waste twice as much at once.
        self.pass();
        let left = self.credit.saturating_sub(bytes);
        self.debt = DEBT.min(self.debt + bytes.saturating_sub(self.credit));
        self.credit = left;
    }

    /// A message of so many bytes came to somebody.
    pub fn earn(&mut self, bytes: usize) {
        self.refill(bytes.saturating_add(MESSAGE));
    }

    /// Waits until there is something left to waste. Others get their turn in between anyway, however much comes at once.
    pub async fn pause(&mut self) {
        tokio::task::coop::consume_budget().await;
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

    /// Adds what the time since the last look is worth.
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
