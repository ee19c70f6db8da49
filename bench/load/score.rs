//! What came back: counts and latencies, and how they are printed.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::arguments::Arguments;

/// Counts and latencies of one client, or of all.
#[derive(Debug, Default)]
pub(crate) struct Score {
    /// Calls whose first answer was their own, asked and answered while measuring.
    correct: u64,
    /// Calls whose first answer was not their own.
    pub(crate) wrong: u64,
    /// Answers under an id that the client was not waiting for: somebody else's, or a second one.
    pub(crate) stray: u64,
    /// Calls refused, by HTTP, by JSON-RPC or by the tool, and connections lost.
    pub(crate) errors: u64,
    /// Calls never answered.
    pub(crate) missing: u64,
    seconds: f64,
    micros: Vec<u32>,
}

impl Score {
    /// A right answer, `micros` after its call was sent.
    pub(crate) fn right(&mut self, latency: Duration) {
        self.correct += 1;
        self.micros.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    /// Adds another client's.
    pub(crate) fn add(&mut self, other: Self) {
        self.correct += other.correct;
        self.wrong += other.wrong;
        self.stray += other.stray;
        self.errors += other.errors;
        self.missing += other.missing;
        self.micros.extend(other.micros);
    }

    /// Fixes the time over which the right answers came.
    pub(crate) fn close(&mut self, arguments: &Arguments, begin: Instant) {
        self.seconds = if arguments.requests.is_some() { begin.elapsed().as_secs_f64() } else { arguments.seconds };
        self.micros.sort_unstable();
    }

    fn per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a count of calls is far below 2^52")]
        let correct = self.correct as f64;
        correct / self.seconds
    }

    fn percentile(&self, of_thousand: usize) -> u32 {
        let last = self.micros.len().saturating_sub(1);
        self.micros.get(last * of_thousand / 1000).copied().unwrap_or(0)
    }

    /// One line for people.
    pub(crate) fn line(&self) -> String {
        format!(
            "{:.0} correct/s, {} wrong, {} stray, {} errors, {} missing; p50 {} us, p99 {} us, max {} us",
            self.per_second(),
            self.wrong,
            self.stray,
            self.errors,
            self.missing,
            self.percentile(500),
            self.percentile(990),
            self.percentile(1000),
        )
    }

    /// One JSON object for programs. Latencies are in microseconds.
    pub(crate) fn json(&self) -> String {
        serde_json::json!({
            "correct_per_second": self.per_second().round(),
            "correct": self.correct,
            "wrong": self.wrong,
            "stray": self.stray,
            "errors": self.errors,
            "missing": self.missing,
            "p50_us": self.percentile(500),
            "p99_us": self.percentile(990),
            "max_us": self.percentile(1000),
        })
        .to_string()
    }

    /// 1 when an answer went astray, 3 when one failed or never came, else 0.
    pub(crate) fn exit_code(&self) -> ExitCode {
        if self.wrong + self.stray > 0 {
            ExitCode::from(1)
        } else if self.errors + self.missing > 0 || self.correct == 0 {
            ExitCode::from(3)
        } else {
            ExitCode::SUCCESS
        }
    }
}
