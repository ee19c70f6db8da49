//! The circuit breaker of a server: after a crash the next start is immediate, after more crashes in a row starts are
//! delayed by growing pauses, and after `restart.max_crashes` no child is started for a while.
//!
//! Crashes count as consecutive only if no client call succeeded in between, and if each crashed child was started
//! after the previous crash: children killed by one event count once. Each tenant has a circuit of its own, and so have
//! the children that belong to no tenant.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::Restart;

/// The number of a permit for one start attempt. Later permits have higher numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PermitId(u64);

#[derive(Debug, Default)]
struct Circuit {
    /// The consecutive crashes of the last `restart.window`, the oldest first.
    crashes: VecDeque<Instant>,
    /// The latest permit that had been granted at the latest crash. Crashes under permits up to this one are not
    /// counted again.
    generation: PermitId,
    /// Client calls that ended children had answered.
    answered: u64,
    /// The highest number of answered client calls, of ended and living children, that was seen at a crash.
    progress: u64,
    /// `Some` while the circuit is open (before this moment) or half-open (after it).
    open_until: Option<Instant>,
    /// The only permit of a half-open circuit, while its outcome is unknown.
    probe: Option<PermitId>,
}

/// The state of a circuit that is not closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// No start is permitted for this time.
    Open(Duration),
    /// One start is permitted, or under way; its outcome closes or opens the circuit.
    HalfOpen,
}

/// The circuits of one server, by key: at most one for each tenant of the configuration, and one for no tenant.
#[derive(Debug)]
pub(super) struct Breaker<K> {
    settings: Restart,
    circuits: Mutex<HashMap<K, Circuit>>,
    /// The number of permits granted so far. Changed and read under the lock of `circuits` only.
    permits: AtomicU64,
}

impl<K: Eq + std::hash::Hash + Clone> Breaker<K> {
    /// A breaker whose circuits are all closed.
    pub(super) fn new(settings: Restart) -> Self {
        Self { settings, circuits: Mutex::default(), permits: AtomicU64::new(0) }
    }

    /// The number of the next permit. The caller holds the lock of `circuits`.
    fn next_permit(&self) -> PermitId {
        PermitId(self.permits.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Grants a permit to start a child, or to take a spare: the permit, and the pause before the start. A half-open
    /// circuit grants one permit, and no other until the outcome is known.
    ///
    /// # Errors
    /// The circuit is open, or its only permit is out; ask again after the returned time.
    pub(super) fn admit(&self, key: &K, now: Instant) -> Result<(PermitId, Duration), Duration> {
        let mut circuits = self.circuits.lock();
        let permit = self.next_permit();
        let Some(circuit) = circuits.get_mut(key) else { return Ok((permit, Duration::ZERO)) };
        circuit.forget_old(now, self.settings.window);
        if let Some(until) = circuit.open_until {
            if now < until {
                return Err(until - now);
            }
            if circuit.probe.is_some() {
                return Err(self.settings.backoff_min);
            }
            circuit.probe = Some(permit);
            return Ok((permit, Duration::ZERO));
        }
        // The pause counts from the crash: a later request waits for the rest only.
        let since = circuit.crashes.back().map_or(Duration::ZERO, |crash| now.duration_since(*crash));
        Ok((permit, backoff(&self.settings, circuit.crashes.len()).saturating_sub(since)))
    }

    /// Replaces a permit whose holder had to wait for something else: crashes during the wait then count as earlier
    /// ones. The permit of a half-open circuit stays the same.
    ///
    /// # Errors
    /// The circuit has opened meanwhile; ask again after the returned time.
    pub(super) fn renew(&self, key: &K, permit: PermitId, now: Instant) -> Result<PermitId, Duration> {
        let circuits = self.circuits.lock();
        let next = self.next_permit();
        match circuits.get(key) {
            Some(circuit) if circuit.probe == Some(permit) => Ok(permit),
            Some(Circuit { open_until: Some(until), .. }) => Err((*until - now).max(self.settings.backoff_min)),
            _ => Ok(next),
        }
    }

    /// Adds the client calls that a child had answered when it ended.
    pub(super) fn ended(&self, key: &K, answered: u64) {
        self.circuits.lock().entry(key.clone()).or_default().answered += answered;
    }

    /// Notes that the child of a permit has crashed, or did not start. `answered` is the number of client calls that
    /// the living children of the same key have answered. A crash under a permit from before the last counted crash is
    /// not counted. The circuit opens with the `restart.max_crashes`th consecutive crash, and with any crash while
    /// half-open.
    pub(super) fn crashed(&self, key: &K, permit: PermitId, answered: u64, now: Instant) {
        let mut circuits = self.circuits.lock();
        let circuit = circuits.entry(key.clone()).or_default();
        circuit.forget_old(now, self.settings.window);
        let progress = circuit.answered + answered;
        if progress > circuit.progress {
            circuit.crashes.clear();
        }
        // A child that is just ending may be counted neither as living nor as ended.
        circuit.progress = circuit.progress.max(progress);
        circuit.take_probe(permit);
        if permit <= circuit.generation {
            return;
        }
        circuit.generation = PermitId(self.permits.load(Ordering::Relaxed));
        circuit.crashes.push_back(now);
        let is_half_open = circuit.open_until.is_some();
        if is_half_open || circuit.crashes.len() >= self.settings.max_crashes {
            circuit.open_until = Some(now + self.settings.open);
        }
    }

    /// Notes that the child of a permit has answered `initialize` (`has_opened`), which closes a half-open circuit, or
    /// that the permit was returned without an outcome. Either way a half-open circuit can grant another permit.
    /// Without effect for any other permit than the one of a half-open circuit.
    pub(super) fn settled(&self, key: &K, permit: PermitId, has_opened: bool) {
        if let Some(circuit) = self.circuits.lock().get_mut(key)
            && circuit.take_probe(permit)
            && has_opened
        {
            circuit.open_until = None;
            circuit.crashes.clear();
        }
    }

    /// The circuits that are not closed, with their states.
    pub(super) fn broken(&self, now: Instant) -> Vec<(K, Broken)> {
        let stands = |until: Instant| if now < until { Broken::Open(until - now) } else { Broken::HalfOpen };
        let broken = |(key, circuit): (&K, &Circuit)| Some((key.clone(), stands(circuit.open_until?)));
        self.circuits.lock().iter().filter_map(broken).collect()
    }
}

impl Circuit {
    fn forget_old(&mut self, now: Instant, window: Duration) {
        while self.crashes.front().is_some_and(|crash| now.duration_since(*crash) > window) {
            self.crashes.pop_front();
        }
    }

    /// Returns whether the half-open circuit waited for this permit, and stops waiting for it.
    fn take_probe(&mut self, permit: PermitId) -> bool {
        self.probe.take_if(|probe| *probe == permit).is_some()
    }
}

/// The pause before the start that follows so many crashes: none after the first, then doubling from
/// `restart.backoff_min` to `backoff_max`. A random share, up to a half, is left out so that many starts do not
/// coincide.
pub fn backoff(settings: &Restart, crashes: usize) -> Duration {
    let Some(doublings) = crashes.checked_sub(2) else { return Duration::ZERO };
    let doublings = u32::try_from(doublings).unwrap_or(u32::MAX).min(20);
    let whole = settings.backoff_min.saturating_mul(1 << doublings).min(settings.backoff_max);
    let mut byte = [0_u8; 1];
    // Without randomness the pause is the whole: no harm.
    let share = getrandom::fill(&mut byte).map_or(255, |()| u32::from(byte[0]));
    whole / 2 + whole * share / 510
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
        fn permit(&self, key: &'static str) -> PermitId {
            match self.admit(&key, Instant::now()) {
                Ok((permit, _)) => permit,
                Err(refused) => panic!("{refused:?}"),
            }
        }

        fn pause(&self, key: &'static str) -> Option<Duration> {
            self.admit(&key, Instant::now()).ok().map(|(_, pause)| pause)
        }

        fn crash(&self, key: &'static str, permit: PermitId) {
            self.crashed(&key, permit, 0, Instant::now());
        }

        /// Opens a circuit.
        fn wear_out(&self, key: &'static str) {
            for _ in 0..SETTINGS.max_crashes {
                self.crash(key, self.permit(key));
            }
            assert_eq!(self.pause(key), None);
        }
    }

    #[test]
    fn pauses_grow_within_bounds() {
        assert_eq!(backoff(&SETTINGS, 0), Duration::ZERO);
        assert_eq!(backoff(&SETTINGS, 1), Duration::ZERO);
        for (crashes, whole) in [(2, 100), (3, 200), (4, 400), (5, 800), (6, 1000), (1000, 1000)] {
            let pause = backoff(&SETTINGS, crashes);
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
        let probe = breaker.permit("a");
        assert_eq!(breaker.pause("a"), None, "one attempt at a time");
        assert_eq!(breaker.broken(Instant::now()), [("a", Broken::HalfOpen)], "it is being tried");
        breaker.crash("a", probe);
        assert_eq!(breaker.pause("a"), None);
        tokio::time::advance(NOT_LONG).await;
        breaker.settled(&"a", breaker.permit("a"), true);
        assert_eq!(breaker.broken(Instant::now()), []);
        assert_eq!(breaker.pause("a"), Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_attempt_itself_says_what_comes_of_it() {
        let breaker = Breaker::new(SETTINGS);
        let old = breaker.permit("a");
        breaker.wear_out("a");
        tokio::time::advance(NOT_LONG).await;
        let probe = breaker.permit("a");
        breaker.settled(&"a", old, false);
        breaker.settled(&"a", old, true);
        breaker.crash("a", old);
        assert_eq!(breaker.pause("a"), None, "the attempt is still under way");
        assert_eq!(breaker.broken(Instant::now()), [("a", Broken::HalfOpen)]);
        breaker.settled(&"a", probe, false);
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
            breaker.crash("a", breaker.permit("a"));
        }
        assert!(breaker.pause("a").is_some_and(|pause| !pause.is_zero()));
        tokio::time::advance(Duration::from_millis(200)).await;
        assert_eq!(breaker.pause("a"), Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn old_crashes_are_forgotten() {
        let breaker = Breaker::new(SETTINGS);
        for _ in 0..10 {
            breaker.crash("a", breaker.permit("a"));
            tokio::time::advance(Duration::from_secs(40)).await;
        }
        assert!(breaker.pause("a").is_some());
    }

    #[test]
    fn a_server_that_answers_in_between_is_in_no_loop() {
        let breaker = Breaker::new(SETTINGS);
        for round in 1..10 {
            breaker.ended(&"a", 1);
            breaker.crash("a", breaker.permit("a"));
            breaker.crashed(&"a", breaker.permit("a"), round, Instant::now());
        }
        assert_eq!(breaker.pause("a"), Some(Duration::ZERO));
    }

    #[test]
    fn progress_that_was_seen_is_not_seen_again() {
        let breaker = Breaker::new(SETTINGS);
        // Of the ten calls, some have just been answered by a child that is on its way to the dead.
        for alive in [10, 0, 10, 5] {
            breaker.crashed(&"a", breaker.permit("a"), alive, Instant::now());
        }
        assert_eq!(breaker.pause("a"), None);
    }

    #[test]
    fn many_that_die_of_one_event_are_one_crash_and_their_successors_another() {
        let breaker = Breaker::new(SETTINGS);
        for generation in 1..=SETTINGS.max_crashes {
            let children: Vec<PermitId> = (0..100).map(|_| breaker.permit("a")).collect();
            children.iter().for_each(|permit| breaker.crash("a", *permit));
            let is_open = !breaker.broken(Instant::now()).is_empty();
            assert_eq!(is_open, generation == SETTINGS.max_crashes, "generation {generation}");
        }
    }

    #[test]
    fn who_waited_for_a_place_while_others_crashed_is_tried_after_them() {
        let breaker = Breaker::new(SETTINGS);
        let waiting: Vec<PermitId> = (0..10).map(|_| breaker.permit("a")).collect();
        let tried = waiting.into_iter().map_while(|permit| breaker.renew(&"a", permit, Instant::now()).ok());
        let tried = tried.inspect(|permit| breaker.crash("a", *permit)).count();
        assert_eq!(tried, SETTINGS.max_crashes);
    }
}
