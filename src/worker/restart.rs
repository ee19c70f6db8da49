//! When a server that crashed may be started again: at once the first time, then after growing pauses, and after too many
//! crashes in a row not for a while. In a row: no call was answered for the tenant in between. Each tenant has its own
//! circuit: one tenant's trouble is not another's.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::Restart;
use crate::telemetry::ExitReason;

#[derive(Debug, Default)]
struct Circuit {
    crashes: VecDeque<Instant>,
    /// Calls answered by children that have ended.
    answered: u64,
    /// Calls that had been answered at the latest crash.
    progress: u64,
    open_until: Option<Instant>,
    /// Whether the one attempt of a half-open circuit is under way.
    probing: bool,
}

/// Whether an exit counts for the pauses and the circuit.
///
/// Who outgrows a limit does: one that does so at each start would otherwise be started for ever. One that was ended for
/// a call does not: that is the call's doing, and it takes at least as long as the call may.
pub(super) fn is_crash(reason: ExitReason) -> bool {
    match reason {
        ExitReason::Crashed | ExitReason::StartFailed | ExitReason::Wedged | ExitReason::OverLimit => true,
        ExitReason::Stopped | ExitReason::Finished | ExitReason::Harakiri => false,
    }
}

/// Where a circuit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Start, after this pause.
    After(Duration),
    /// Do not; ask again after this.
    Refused(Duration),
}

/// The circuits of one server.
#[derive(Debug)]
pub(super) struct Breaker<K> {
    settings: Restart,
    circuits: Mutex<HashMap<K, Circuit>>,
}

impl<K: Eq + std::hash::Hash + Clone> Breaker<K> {
    pub(super) fn new(settings: Restart) -> Self {
        Self { settings, circuits: Mutex::default() }
    }

    /// Whether a child may be started now.
    pub(super) fn admit(&self, key: &K, now: Instant) -> Admission {
        let mut circuits = self.circuits.lock();
        let Some(circuit) = circuits.get_mut(key) else { return Admission::After(Duration::ZERO) };
        circuit.forget_old(now, self.settings.window);
        if let Some(until) = circuit.open_until {
            if now < until {
                return Admission::Refused(until - now);
            }
            if circuit.probing {
                return Admission::Refused(self.settings.backoff_min);
            }
            circuit.probing = true;
            return Admission::After(Duration::ZERO);
        }
        // The pause is between the crash and the start: who comes later waits less.
        let since = circuit.crashes.back().map_or(Duration::ZERO, |crash| now.duration_since(*crash));
        Admission::After(self.settings.pause(circuit.crashes.len()).saturating_sub(since))
    }

    /// A child has ended that had answered so many calls.
    pub(super) fn ended(&self, key: &K, answered: u64) {
        self.circuits.lock().entry(key.clone()).or_default().answered += answered;
    }

    /// A child has crashed, or did not start. `answered` is what the others, which are alive, have answered.
    pub(super) fn crashed(&self, key: &K, answered: u64, now: Instant) {
        let mut circuits = self.circuits.lock();
        let circuit = circuits.entry(key.clone()).or_default();
        circuit.forget_old(now, self.settings.window);
        let progress = circuit.answered + answered;
        if progress > circuit.progress {
            circuit.crashes.clear();
        }
        circuit.progress = progress;
        circuit.crashes.push_back(now);
        let failed_probe = std::mem::take(&mut circuit.probing);
        if failed_probe || circuit.crashes.len() >= self.settings.max_crashes {
            circuit.open_until = Some(now + self.settings.open);
        }
    }

    /// A child has answered `initialize`: a half-open circuit closes.
    pub(super) fn opened(&self, key: &K) {
        if let Some(circuit) = self.circuits.lock().get_mut(key)
            && std::mem::take(&mut circuit.probing)
        {
            circuit.open_until = None;
            circuit.crashes.clear();
        }
    }

    /// An attempt came to nothing without the child being at fault.
    pub(super) fn abandoned(&self, key: &K) {
        if let Some(circuit) = self.circuits.lock().get_mut(key) {
            circuit.probing = false;
        }
    }

    /// Whose circuits are open.
    pub(super) fn open(&self, now: Instant) -> Vec<K> {
        let circuits = self.circuits.lock();
        circuits.iter().filter(|(_, c)| c.open_until.is_some_and(|until| now < until)).map(|(k, _)| k.clone()).collect()
    }
}

impl Circuit {
    fn forget_old(&mut self, now: Instant, window: Duration) {
        while self.crashes.front().is_some_and(|crash| now.duration_since(*crash) > window) {
            self.crashes.pop_front();
        }
    }
}

impl Restart {
    /// The pause before the start that follows this many crashes: none after the first, then doubling, between half
    /// and the whole of it, so that many do not come at the same moment.
    fn pause(&self, crashes: usize) -> Duration {
        let Some(doublings) = crashes.checked_sub(2) else { return Duration::ZERO };
        let doublings = u32::try_from(doublings).unwrap_or(u32::MAX).min(20);
        let whole = self.backoff_min.saturating_mul(1 << doublings).min(self.backoff_max);
        let mut byte = [0_u8; 1];
        // Without randomness the pause is the whole: no harm.
        let share = getrandom::fill(&mut byte).map_or(255, |()| u32::from(byte[0]));
        whole / 2 + whole * share / 510
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Restart = Restart {
        backoff_min: Duration::from_millis(100),
        backoff_max: Duration::from_secs(1),
        max_crashes: 4,
        window: Duration::from_secs(60),
        open: Duration::from_secs(30),
        resend: crate::config::Resend::Never,
    };

    #[test]
    fn pauses_grow_within_bounds() {
        assert_eq!(SETTINGS.pause(0), Duration::ZERO);
        assert_eq!(SETTINGS.pause(1), Duration::ZERO);
        for (crashes, whole) in [(2, 100), (3, 200), (4, 400), (5, 800), (6, 1000), (1000, 1000)] {
            let pause = SETTINGS.pause(crashes);
            let whole = Duration::from_millis(whole);
            assert!(whole / 2 <= pause && pause <= whole, "{crashes}: {pause:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_circuit_opens_half_opens_and_closes_for_its_tenant_alone() {
        let breaker = Breaker::new(SETTINGS);
        for _ in 0..4 {
            assert!(matches!(breaker.admit(&"a", Instant::now()), Admission::After(_)));
            breaker.crashed(&"a", 0, Instant::now());
        }
        assert!(matches!(breaker.admit(&"a", Instant::now()), Admission::Refused(_)));
        assert_eq!(breaker.admit(&"b", Instant::now()), Admission::After(Duration::ZERO));
        assert_eq!(breaker.open(Instant::now()), ["a"]);
        tokio::time::advance(Duration::from_secs(31)).await;
        assert_eq!(breaker.admit(&"a", Instant::now()), Admission::After(Duration::ZERO));
        assert!(matches!(breaker.admit(&"a", Instant::now()), Admission::Refused(_)), "one attempt at a time");
        breaker.crashed(&"a", 0, Instant::now());
        assert!(matches!(breaker.admit(&"a", Instant::now()), Admission::Refused(_)));
        tokio::time::advance(Duration::from_secs(31)).await;
        assert_eq!(breaker.admit(&"a", Instant::now()), Admission::After(Duration::ZERO));
        breaker.opened(&"a");
        assert_eq!(breaker.admit(&"a", Instant::now()), Admission::After(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_begins_with_the_crash() {
        let breaker = Breaker::new(SETTINGS);
        for _ in 0..3 {
            breaker.crashed(&1, 0, Instant::now());
        }
        assert!(matches!(breaker.admit(&1, Instant::now()), Admission::After(pause) if !pause.is_zero()));
        tokio::time::advance(Duration::from_millis(200)).await;
        assert_eq!(breaker.admit(&1, Instant::now()), Admission::After(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn old_crashes_are_forgotten() {
        let breaker = Breaker::new(SETTINGS);
        for _ in 0..10 {
            breaker.crashed(&1, 0, Instant::now());
            tokio::time::advance(Duration::from_secs(40)).await;
        }
        assert!(matches!(breaker.admit(&1, Instant::now()), Admission::After(_)));
    }

    #[test]
    fn a_server_that_answers_in_between_is_in_no_loop() {
        let breaker = Breaker::new(SETTINGS);
        for round in 1..10 {
            breaker.ended(&1, 1);
            breaker.crashed(&1, 0, Instant::now());
            breaker.crashed(&1, round, Instant::now());
        }
        assert_eq!(breaker.admit(&1, Instant::now()), Admission::After(Duration::ZERO));
    }
}
