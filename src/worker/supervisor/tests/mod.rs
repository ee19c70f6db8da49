//! Many sessions, in threads of their own, on children that say and do anything at the other end of real pipes: what is
//! tested is how leases, the queue of stdin, the reader and the alarm work together. Each call is its own by a number
//! that the child gives back. `SLUICE_MUX_CALLS` and `SLUICE_MUX_SEED` ask for more.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]
#![expect(clippy::disallowed_types, reason = "tests")]

mod checks;
mod child;
mod session;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::net::unix::pipe;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::config::Server;
use crate::permits::{Claimant, Permits};
use crate::process::{Ceilings, Guardian, Lookups, Origin};
use crate::telemetry::ServerMetrics;
use crate::worker::lease::Lease;
use crate::worker::phase::Due;
use crate::worker::tests::rng::{TestRng, from_environment};
use checks::Tally;
use child::{Heard, Script};
use session::Session;

/// Nothing here takes so long, unless somebody waits for ever.
const FOR_EVER: Duration = Duration::from_secs(60);
/// What a client, or a child that is asked something it does not answer, has.
const SHORT: Duration = Duration::from_millis(50);
const CALLS_OF_SESSION: usize = 100;

/// What becomes of the child in the midst of it all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    Retires,
    Crashes,
}

/// A child that is no process, and those who serve it.
struct Running {
    worker: Worker,
    supervisor: JoinHandle<()>,
    child: JoinHandle<Heard>,
    metrics: ServerMetrics,
}

fn start(mut rng: TestRng, script: Script, patience: Duration) -> Running {
    let mut server = Server::new("s".parse().unwrap(), "none", Vec::new());
    server.isolation = Isolation::Shared;
    // So little room that it is often full.
    server.limits.stdin_queue = 1024 + 4096 * rng.below(2);
    server.limits.max_in_flight = 16 + 100 * rng.below(2);
    server.limits.max_line = child::MAX_LINE;
    server.limits.call_timeout = patience;
    let metrics = Arc::new(crate::telemetry::Metrics::default()).server("s");
    let (guardian, origin) = (Guardian::of_nobody(), Origin::unowned(&server.name));
    let charge = crate::process::Charge::of_no_process(&guardian, &origin);
    let lookups = Lookups::new(&Permits::default(), &server.name, Claimant::nobody());
    let spec = Spec {
        ceilings: Ceilings::new([], &guardian, prometheus_client::metrics::counter::Counter::default()),
        guardian,
        server: Arc::new(server),
        reach: Arc::default(),
        lookups,
        origin,
        owner: crate::process::Owner::everybody(),
        payer: crate::worker::Payer::new(&crate::memory::Account::unlimited()).unwrap(),
        slow_client_timeout: FOR_EVER,
        metrics: metrics.clone(),
        tasks: TaskTracker::new(),
        kill: CancellationToken::new(),
    };
    let shared = Arc::new(Shared::new(spec, charge, 0));
    let ((stdin, their_in), (their_out, stdout), (_, stderr)) =
        (pipe::pipe().unwrap(), pipe::pipe().unwrap(), pipe::pipe().unwrap());
    // So short that many frames go through it in parts.
    rustix::pipe::fcntl_setpipe_size(&stdin, 4096).unwrap();
    rustix::pipe::fcntl_setpipe_size(&their_out, 4096).unwrap();
    let supervisor = tokio::spawn(live(Arc::clone(&shared), Pipes { stdin, stdout, stderr }));
    let child = tokio::spawn(child::run(rng, script, their_in, their_out));
    Running { worker: Worker::new(shared), supervisor, child, metrics }
}

/// What [`supervise`] does, for a child that ends when it has closed its pipes.
async fn live(shared: Arc<Shared>, pipes: Pipes) {
    let ending = Ending::new(&shared);
    let mut tasks = start_tasks(&shared, pipes);
    let failure = tokio::select! {
        () = async { tokio::select! { _ = &mut tasks.reader => {} _ = &mut tasks.writer => {} } } => None,
        () = shared.signals.stop.wait() => Some(Failure::stopped(&shared.server.name)),
        never = keep_winding_up(&shared) => match never {},
        never = keep_refusing(&shared) => match never {},
        failure = keep_watch(&shared.signals.deadline_moved, |now| look(&shared, now)) => Some(failure),
    };
    let asked_to = shared.signals.stop.initialized();
    let _ = shared.signals.stop.set(());
    shared.stdin.close(false);
    for task in [&mut tasks.writer, &mut tasks.reader] {
        wait_for(task, FOR_EVER).await;
    }
    drop(tasks);
    shared.stdin.close(true);
    ending.finish(Exit::killed(), failure, asked_to);
}

impl Running {
    /// Opens it, as a pool does.
    async fn open(&self) {
        let nobody: std::sync::Weak<session::Listener> = std::sync::Weak::new();
        let lease = Lease::new(self.worker.clone(), nobody, false);
        let initialize = br#"{"jsonrpc":"2.0","id":"i","method":"initialize","params":{}}"#;
        let answer = lease.open(initialize).await.unwrap();
        assert_eq!(crate::jsonrpc::parse(&answer).unwrap().id, Some("\"i\""));
        self.worker.say_initialized();
        self.worker.say_initialized();
    }

    /// Everybody has left: nothing is left of them. What the child has heard.
    async fn end(self) -> Heard {
        self.worker.stop();
        self.supervisor.await.unwrap();
        let heard = self.child.await.unwrap();
        let mut multiplexer = self.worker.shared().multiplexer.lock();
        multiplexer.expire(Instant::now() + 2 * FOR_EVER);
        assert_eq!(multiplexer.left_behind(), Vec::<String>::new());
        assert_eq!(self.metrics.stdin_queue.get(), 0, "bytes wait for a child that is gone");
        assert_eq!(self.worker.sessions(), 0);
        heard
    }
}

/// One child, its sessions, and the child that most of them go on with.
async fn round(rng: &mut TestRng, fate: Fate) -> Tally {
    let crashes_after = (fate == Fate::Crashes).then(|| 50 + rng.below(400));
    let script = Script { crashes_after, ..Script::default() };
    let running = start(rng.fork(), script, SHORT);
    running.open().await;
    let count = [1, 2, 8, 24][rng.below(4)];
    let nonces = Arc::new(AtomicU64::new(1));
    let sessions: Vec<Arc<Session>> =
        (0..count).map(|number| Session::new(number, &running.worker, fate, Arc::clone(&nonces))).collect();
    let mut tasks = Vec::new();
    for session in &sessions {
        let is_leaving = rng.below(6) == 0;
        for task in 0..2 {
            let leaves_after = (is_leaving && task == 0).then(|| rng.below(CALLS_OF_SESSION));
            tasks.push(tokio::spawn(Arc::clone(session).work(rng.fork(), leaves_after)));
        }
    }
    if fate == Fate::Retires {
        let after = rng.below(count * CALLS_OF_SESSION) as u64;
        while nonces.load(Ordering::Relaxed) < after && tasks.iter().any(|task| !task.is_finished()) {
            tokio::task::yield_now().await;
        }
        running.worker.retire(Due::MaxAge);
    }
    let mut tally = Tally::default();
    for task in tasks {
        tally.add(&task.await.unwrap());
    }
    let successor = start(rng.fork(), Script { grants_all: true, ..Script::default() }, FOR_EVER);
    successor.open().await;
    for session in &sessions {
        session.move_on(&successor.worker).await;
    }
    let mut granted = Vec::new();
    for session in &sessions {
        granted.extend(session.check(&mut tally).await);
    }
    if fate == Fate::Retires {
        // With the last that is in flight it ends, and nobody has to end it.
        running.worker.ended().await;
    }
    sessions.iter().for_each(|session| session.leave());
    let heard = running.end().await;
    sessions.iter().for_each(|session| session.check_heard(&heard));
    let again = successor.end().await;
    let mut uris = again.subscribed;
    uris.sort_unstable();
    granted.sort_unstable();
    tally.granted += granted.len() as u64;
    assert_eq!(uris, granted, "what was granted is asked for again, once, and nothing else");
    tally
}

/// Nothing else has anybody look.
#[tokio::test]
async fn a_call_on_a_child_that_says_nothing_runs_out_of_time() {
    let running = start(TestRng::new(1), Script { is_silent: true, ..Script::default() }, FOR_EVER);
    running.open().await;
    let nobody: std::sync::Weak<session::Listener> = std::sync::Weak::new();
    let lease = Lease::new(running.worker.clone(), nobody, false);
    let call = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"nonce":1}}"#;
    let answer = timeout(FOR_EVER, lease.ask(call, SHORT)).await.unwrap().unwrap();
    assert!(memchr::memmem::find(&answer, b"call_timeout").is_some(), "{answer:?}");
    lease.leave();
    running.end().await;
}

/// As a panic in it does.
#[tokio::test]
async fn a_supervisor_that_is_cut_short_leaves_nobody_waiting() {
    let running = start(TestRng::new(1), Script { is_silent: true, ..Script::default() }, FOR_EVER);
    running.open().await;
    let nobody: std::sync::Weak<session::Listener> = std::sync::Weak::new();
    let lease = Arc::new(Lease::new(running.worker.clone(), nobody, false));
    let call = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"nonce":1}}"#;
    let waiting = tokio::spawn({
        let lease = Arc::clone(&lease);
        async move { lease.ask(call, FOR_EVER).await }
    });
    while running.worker.load() == 0 {
        tokio::task::yield_now().await;
    }
    running.supervisor.abort();
    assert!(running.supervisor.await.unwrap_err().is_cancelled());
    let failure = timeout(FOR_EVER, waiting).await.unwrap().unwrap().unwrap_err();
    assert!(failure.message().contains("the gateway failed"), "{}", failure.message());
    assert!(running.worker.has_ended() && !running.worker.is_alive());
    assert!(lease.ask(call, FOR_EVER).await.is_err(), "nothing is taken any more");
    assert_eq!(running.metrics.stdin_queue.get(), 0);
    timeout(FOR_EVER, running.child).await.unwrap().unwrap();
}

#[test]
#[expect(clippy::print_stdout, reason = "a count that is asked for")]
fn every_call_is_answered_refused_failed_or_settled() {
    let (calls, seed) = (from_environment("SLUICE_MUX_CALLS", 12_000), from_environment("SLUICE_MUX_SEED", 1));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let (mut tally, mut rounds) = (Tally::default(), 0);
    while tally.calls() < calls {
        println!("seed {seed}, round {rounds}");
        let fate = [Fate::Stays, Fate::Retires, Fate::Crashes][(rounds % 3) as usize];
        let mut rng = TestRng::new((seed + rounds).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let round = runtime.block_on(async { timeout(FOR_EVER, round(&mut rng, fate)).await });
        tally.add(&round.unwrap_or_else(|_| panic!("somebody is left waiting, of {fate:?}, with the seed {seed}")));
        rounds += 1;
    }
    println!("{} calls on {rounds} children: {tally:?}", tally.calls());
    tally.check();
}
