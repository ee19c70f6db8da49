//! When a server that crashed may be started again: at once the first time, then after growing pauses, and after too many
//! crashes in a row not for a while. In a row: no call of a client was answered in between, and each of a child that was
//! tried after the one before it. (Many children that die of one event are one crash: a loop has generations.) Each
//! tenant has its own circuit: one tenant's trouble is not another's; and there is one for children that are no tenant's.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::Restart;
use crate::telemetry::ExitReason;

/// One try of having a child, numbered in the order in which they were let through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Attempt(u64);

#[derive(Debug, Default)]
struct Circuit {
    crashes: VecDeque<Instant>,
    /// Attempts before this one are of the same generation as the latest crash, or older.
    generation: Attempt,
    /// Calls answered by children that have ended.
    answered: u64,
    /// The most calls that had been answered at a crash.
    progress: u64,
    open_until: Option<Instant>,
    /// The one attempt of a half-open circuit.
    probe: Option<Attempt>,
}

/// Whether an exit counts for the pauses and the circuit.
///
/// Who outgrows a limit does: one that does so at each start would otherwise be started for ever. One that was ended for
/// a call does not: that is the call's doing, and it takes at least as long as the call may. Who says good-bye unasked is
/// missed all the same.
pub(super) fn is_crash(reason: ExitReason) -> bool {
    match reason {
        ExitReason::Crashed | ExitReason::StartFailed | ExitReason::Finished => true,
        ExitReason::Wedged | ExitReason::OverLimit => true,
        ExitReason::Stopped | ExitReason::Harakiri => false,
    }
}

/// Where a circuit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Try, after this pause.
    After(Attempt, Duration),
    /// Do not; ask again after this.
    Refused(Duration),
}

/// How a circuit stands that is not closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// No attempt for so long.
    Open(Duration),
    /// The next attempt decides, or is just deciding.
    HalfOpen,
}

/// The circuits of one server: at most one for each tenant of the configuration, and one more.
#[derive(Debug)]
pub(super) struct Breaker<K> {
    settings: Restart,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    circuits: HashMap<K, Circuit>,
    attempts: u64,
}

impl<K: Eq + std::hash::Hash + Clone> Breaker<K> {
    pub(super) fn new(settings: Restart) -> Self {
        Self { settings, state: Mutex::new(State { circuits: HashMap::new(), attempts: 0 }) }
    }

    /// Whether a child may be had now: a new one, or one that waits.
    pub(super) fn admit(&self, key: &K, now: Instant) -> Admission {
        let mut state = self.state.lock();
        let attempt = state.next();
        let Some(circuit) = state.circuits.get_mut(key) else { return Admission::After(attempt, Duration::ZERO) };
        circuit.forget_old(now, self.settings.window);
        if let Some(until) = circuit.open_until {
            if now < until {
                return Admission::Refused(until - now);
            }
            if circuit.probe.is_some() {
                return Admission::Refused(self.settings.backoff_min);
            }
            circuit.probe = Some(attempt);
            return Admission::After(attempt, Duration::ZERO);
        }
        // The pause is between the crash and the start: who comes later waits less.
        let since = circuit.crashes.back().map_or(Duration::ZERO, |crash| now.duration_since(*crash));
        Admission::After(attempt, self.settings.pause(circuit.crashes.len()).saturating_sub(since))
    }

    /// An attempt goes on that had to wait for something else: what has become of others since then counts for it.
    ///
    /// # Errors
    /// It must not be made any more; ask again after this.
    pub(super) fn renew(&self, key: &K, attempt: Attempt, now: Instant) -> Result<Attempt, Duration> {
        let mut state = self.state.lock();
        let next = state.next();
        match state.circuits.get(key) {
            Some(circuit) if circuit.probe == Some(attempt) => Ok(attempt),
            Some(Circuit { open_until: Some(until), .. }) => Err((*until - now).max(self.settings.backoff_min)),
            _ => Ok(next),
        }
    }

    /// A child has ended that had answered so many calls.
    pub(super) fn ended(&self, key: &K, answered: u64) {
        self.state.lock().circuits.entry(key.clone()).or_default().answered += answered;
    }

    /// What came of an attempt has crashed, or did not start. `answered` is what the others, which are alive, have
    /// answered.
    pub(super) fn crashed(&self, key: &K, attempt: Attempt, answered: u64, now: Instant) {
        let mut state = self.state.lock();
        let generation = Attempt(state.attempts);
        let circuit = state.circuits.entry(key.clone()).or_default();
        circuit.forget_old(now, self.settings.window);
        let progress = circuit.answered + answered;
        if progress > circuit.progress {
            circuit.crashes.clear();
        }
        // A child may be counted nowhere for a moment, on its way from the living to the dead.
        circuit.progress = circuit.progress.max(progress);
        circuit.take_probe(attempt);
        if attempt <= circuit.generation {
            return;
        }
        circuit.generation = generation;
        circuit.crashes.push_back(now);
        let is_half_open = circuit.open_until.is_some();
        if is_half_open || circuit.crashes.len() >= self.settings.max_crashes {
            circuit.open_until = Some(now + self.settings.open);
        }
    }

    /// The child of an attempt has answered `initialize`: a half-open circuit closes.
    pub(super) fn opened(&self, key: &K, attempt: Attempt) {
        if let Some(circuit) = self.state.lock().circuits.get_mut(key)
            && circuit.take_probe(attempt)
        {
            circuit.open_until = None;
            circuit.crashes.clear();
        }
    }

    /// An attempt came to nothing without the child being at fault.
    pub(super) fn abandoned(&self, key: &K, attempt: Attempt) {
        if let Some(circuit) = self.state.lock().circuits.get_mut(key) {
            circuit.take_probe(attempt);
        }
    }

    /// Whose circuits are not closed, and how they stand.
    pub(super) fn broken(&self, now: Instant) -> Vec<(K, Broken)> {
        let stands = |until: Instant| if now < until { Broken::Open(until - now) } else { Broken::HalfOpen };
        let state = self.state.lock();
        let broken = |(key, circuit): (&K, &Circuit)| Some((key.clone(), stands(circuit.open_until?)));
        state.circuits.iter().filter_map(broken).collect()
    }
}

impl<K> State<K> {
    fn next(&mut self) -> Attempt {
        self.attempts += 1;
        Attempt(self.attempts)
    }
}

impl Circuit {
    fn forget_old(&mut self, now: Instant, window: Duration) {
        while self.crashes.front().is_some_and(|crash| now.duration_since(*crash) > window) {
            self.crashes.pop_front();
        }
    }

    /// Whether this was the attempt that the circuit waits for, which it does no more.
    fn take_probe(&mut self, attempt: Attempt) -> bool {
        self.probe.take_if(|probe| *probe == attempt).is_some()
    }
}

impl Restart {
    /// The pause before the start that follows this many crashes: none after the first, then doubling, between half
    /// and the whole of it, so that many do not come at the same moment.
    pub fn pause(&self, crashes: usize) -> Duration {
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
    #![expect(clippy::panic, reason = "tests")]
    use super::*;

    const SETTINGS: Restart = Restart {
        backoff_min: Duration::from_millis(100),
        backoff_max: Duration::from_secs(1),
        max_crashes: 4,
        window: Duration::from_secs(60),
        open: Duration::from_secs(30),
        resend: crate::config::Resend::Never,
    };
    const NOT_LONG: Duration = Duration::from_secs(31);

    impl Breaker<&str> {
        fn attempt(&self, key: &'static str) -> Attempt {
            match self.admit(&key, Instant::now()) {
                Admission::After(attempt, _) => attempt,
                refused @ Admission::Refused(_) => panic!("{refused:?}"),
            }
        }

        fn pause(&self, key: &'static str) -> Option<Duration> {
            match self.admit(&key, Instant::now()) {
                Admission::After(_, pause) => Some(pause),
                Admission::Refused(_) => None,
            }
        }

        fn crash(&self, key: &'static str, attempt: Attempt) {
            self.crashed(&key, attempt, 0, Instant::now());
        }

        /// Opens a circuit.
        fn wear_out(&self, key: &'static str) {
            for _ in 0..SETTINGS.max_crashes {
                self.crash(key, self.attempt(key));
            }
            assert_eq!(self.pause(key), None);
        }
    }

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
        breaker.wear_out("a");
        assert_eq!(breaker.pause("b"), Some(Duration::ZERO));
        assert_eq!(breaker.broken(Instant::now()), [("a", Broken::Open(SETTINGS.open))]);
        tokio::time::advance(NOT_LONG).await;
        assert_eq!(breaker.broken(Instant::now()), [("a", Broken::HalfOpen)]);
        let probe = breaker.attempt("a");
        assert_eq!(breaker.pause("a"), None, "one attempt at a time");
        assert_eq!(breaker.broken(Instant::now()), [("a", Broken::HalfOpen)], "it is being tried");
        breaker.crash("a", probe);
        assert_eq!(breaker.pause("a"), None);
        tokio::time::advance(NOT_LONG).await;
        breaker.opened(&"a", breaker.attempt("a"));
        assert_eq!(breaker.broken(Instant::now()), []);
        assert_eq!(breaker.pause("a"), Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_attempt_itself_says_what_comes_of_it() {
        let breaker = Breaker::new(SETTINGS);
        let old = breaker.attempt("a");
        breaker.wear_out("a");
        tokio::time::advance(NOT_LONG).await;
        let probe = breaker.attempt("a");
        breaker.abandoned(&"a", old);
        breaker.opened(&"a", old);
        breaker.crash("a", old);
        assert_eq!(breaker.pause("a"), None, "the attempt is still under way");
        assert_eq!(breaker.broken(Instant::now()), [("a", Broken::HalfOpen)]);
        breaker.abandoned(&"a", probe);
        assert_eq!(breaker.pause("a"), Some(Duration::ZERO), "another one takes its place");
        tokio::time::advance(2 * SETTINGS.window).await;
        breaker.crash("a", probe);
        let broken = [("a", Broken::Open(SETTINGS.open))];
        assert_eq!(breaker.broken(Instant::now()), broken, "a crash is a crash, though nobody waits for it any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_begins_with_the_crash() {
        let breaker = Breaker::new(SETTINGS);
        for _ in 0..3 {
            breaker.crash("a", breaker.attempt("a"));
        }
        assert!(breaker.pause("a").is_some_and(|pause| !pause.is_zero()));
        tokio::time::advance(Duration::from_millis(200)).await;
        assert_eq!(breaker.pause("a"), Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn old_crashes_are_forgotten() {
        let breaker = Breaker::new(SETTINGS);
        for _ in 0..10 {
            breaker.crash("a", breaker.attempt("a"));
            tokio::time::advance(Duration::from_secs(40)).await;
        }
        assert!(breaker.pause("a").is_some());
    }

    #[test]
    fn a_server_that_answers_in_between_is_in_no_loop() {
        let breaker = Breaker::new(SETTINGS);
        for round in 1..10 {
            breaker.ended(&"a", 1);
            breaker.crash("a", breaker.attempt("a"));
            breaker.crashed(&"a", breaker.attempt("a"), round, Instant::now());
        }
        assert_eq!(breaker.pause("a"), Some(Duration::ZERO));
    }

    #[test]
    fn progress_that_was_seen_is_not_seen_again() {
        let breaker = Breaker::new(SETTINGS);
        // Of the ten calls, some have just been answered by a child that is on its way to the dead.
        for alive in [10, 0, 10, 5] {
            breaker.crashed(&"a", breaker.attempt("a"), alive, Instant::now());
        }
        assert_eq!(breaker.pause("a"), None);
    }

    #[test]
    fn many_that_die_of_one_event_are_one_crash_and_their_successors_another() {
        let breaker = Breaker::new(SETTINGS);
        for generation in 1..=SETTINGS.max_crashes {
            let children: Vec<Attempt> = (0..100).map(|_| breaker.attempt("a")).collect();
            children.iter().for_each(|attempt| breaker.crash("a", *attempt));
            let is_open = !breaker.broken(Instant::now()).is_empty();
            assert_eq!(is_open, generation == SETTINGS.max_crashes, "generation {generation}");
        }
    }

    #[test]
    fn who_waited_for_a_place_while_others_crashed_is_tried_after_them() {
        let breaker = Breaker::new(SETTINGS);
        let waiting: Vec<Attempt> = (0..10).map(|_| breaker.attempt("a")).collect();
        let tried = waiting.into_iter().map_while(|attempt| breaker.renew(&"a", attempt, Instant::now()).ok());
        let tried = tried.inspect(|attempt| breaker.crash("a", *attempt)).count();
        assert_eq!(tried, SETTINGS.max_crashes);
    }
}
