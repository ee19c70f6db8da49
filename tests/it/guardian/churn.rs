//! Sessions opened and dropped in the ugliest ways, many at once, and then the gateway killed: what remains is counted.
//! `SLUICE_CHURN` is how many; 10,000 take some minutes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use super::program::{Program, eventually, say, signal};
use rustix::process::Signal;

/// Without `SLUICE_CHURN`.
const FEW: usize = 200;
/// At once.
const PARALLEL: usize = 12;

#[tokio::test]
async fn sessions_dropped_in_ugly_ways_leave_nothing() {
    churn(Program::start()).await;
}

#[tokio::test]
async fn sessions_dropped_in_ugly_ways_leave_nothing_without_cgroups() {
    churn(Program::without_cgroups()).await;
}

async fn churn(program: Program) {
    let sessions = std::env::var("SLUICE_CHURN").map_or(FEW, |number| number.parse().unwrap());
    let cgroups = program.cgroups().await;
    let mut program = Arc::new(program);
    let begin = Instant::now();
    let mut running = JoinSet::new();
    for number in 0..sessions {
        if running.len() >= PARALLEL {
            running.join_next().await.unwrap().unwrap();
        }
        running.spawn(abuse(Arc::clone(&program), number));
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    // Two sessions end at once, and in the background: what is there changes, but what is found is always owned.
    for _ in 0..10 {
        let (owned, found) = program.processes().await;
        assert_eq!(owned, found);
    }
    let before = program.left().len();
    Arc::get_mut(&mut program).unwrap().kill_9();
    let killed = Instant::now();
    eventually("nothing is left", || program.left().is_empty().then_some(())).await;
    let folder = cgroups.as_deref();
    if let Some(folder) = folder {
        eventually("its cgroups are removed", || (!folder.exists()).then_some(())).await;
    }
    let how = if folder.is_some() { "with cgroups" } else { "without cgroups" };
    say(&format!(
        "churn, {how}: {sessions} sessions in {:?}; {before} processes when the gateway was killed, {} remain after {:?}",
        killed - begin,
        program.left().len(),
        killed.elapsed(),
    ));
}

/// One session, and one of the ways to end it.
async fn abuse(program: Arc<Program>, number: usize) {
    let session = program.open(if number.is_multiple_of(2) { "echo" } else { "stubborn" }).await;
    session.fork().await;
    match std::env::var("KIND").map_or(number % 5, |k| k.parse().unwrap()) {
        // In order.
        0 => session.delete().await,
        // The child crashes, and the session ends while it is started again.
        1 => {
            session.start_call("crash", json!({"code": 1})).await;
            session.delete().await;
        }
        // Somebody kills the child in the middle of a call, and the session ends without a word about it.
        2 => {
            let pid = session.pid().await;
            let call = tokio::time::timeout(Duration::from_millis(20), session.start_call("hang", json!({})));
            assert!(call.await.is_err(), "it hangs");
            signal(pid, Signal::KILL);
            session.delete().await;
        }
        // The session ends in the middle of a call.
        3 => {
            let call = tokio::time::timeout(Duration::from_millis(20), session.start_call("hang", json!({})));
            assert!(call.await.is_err(), "it hangs");
            session.delete().await;
        }
        // Nobody ever comes back to it. (One in fifty, so that memory suffices.)
        _ if number % 50 == 4 => drop(session),
        _ => session.delete().await,
    }
}
