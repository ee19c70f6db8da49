//! Sessions opened and dropped in the ugliest ways, many at once, half of them in the middle of a call; and then the
//! gateway is killed, with sessions left and calls in flight: what remains is counted, zombies too. `SLUICE_CHURN` is
//! how many; `make soak` takes 10,000, and some minutes.

use std::sync::Arc;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::json;
use tokio::task::{JoinHandle, JoinSet};

use super::program::{Program, Session, children_of, eventually, exists, say, signal, stat};

/// Without `SLUICE_CHURN`.
const FEW: usize = 200;
/// At once.
const PARALLEL: usize = 12;
/// Of those in the middle of a call, one in so many of the last ones is left alone: as many as memory suffices for.
const STAYS: usize = 4;
const MOST_STAY: usize = 100;

#[tokio::test]
async fn sessions_dropped_in_ugly_ways_leave_nothing() {
    churn(Program::start()).await;
}

#[tokio::test]
async fn sessions_dropped_in_ugly_ways_leave_nothing_without_cgroups() {
    churn(Program::without_cgroups()).await;
}

/// A session that nobody has ended, with its call in flight.
struct Left {
    pids: Vec<i32>,
    call: JoinHandle<()>,
}

async fn churn(program: Program) {
    let sessions = std::env::var("SLUICE_CHURN").map_or(FEW, |number| number.parse().unwrap());
    let cgroups = program.cgroups().await;
    let mut program = Arc::new(program);
    let begin = Instant::now();
    let (mut running, mut ended, mut left) = (JoinSet::new(), Vec::new(), Vec::new());
    for number in 0..sessions {
        if running.len() >= PARALLEL {
            ended.push(running.join_next().await.unwrap().unwrap());
        }
        let stays = number + 2 * STAYS * MOST_STAY >= sessions;
        running.spawn(abuse(Arc::clone(&program), number, stays));
    }
    ended.extend(running.join_all().await);
    let in_calls = ended.iter().filter(|(in_a_call, _)| *in_a_call).count();
    left.extend(ended.into_iter().filter_map(|(_, left)| left));
    assert_eq!(in_calls, sessions / 2);
    settled(&program, left.len()).await;
    let (took, before) = (begin.elapsed(), program.left().len());
    assert!(before >= left.len() * 4, "{before} processes of {} sessions", left.len());
    Arc::get_mut(&mut program).unwrap().kill_9();
    let killed = Instant::now();
    eventually("nothing is left", || program.left().is_empty().then_some(())).await;
    // A zombie has no environment that could be looked for.
    let pids: Vec<i32> = left.iter().flat_map(|left| left.pids.iter().copied()).collect();
    let zombies = || pids.iter().filter(|pid| exists(**pid)).count();
    eventually("no zombie is left", || (zombies() == 0).then_some(())).await;
    if let Some(folder) = &cgroups {
        eventually("its cgroups are removed", || (!folder.exists()).then_some(())).await;
    }
    let how = if cgroups.is_some() { "with cgroups" } else { "without cgroups" };
    say(&format!(
        "churn, {how}: {sessions} sessions in {took:?}, {in_calls} of them dropped in the middle of a call; when the gateway was \
         killed there were {} sessions with a call in flight and {before} processes, of which {} and {} zombies remain after {:?}",
        left.len(),
        program.left().len(),
        zombies(),
        killed.elapsed(),
    ));
    left.iter().for_each(|left| left.call.abort());
}

/// Waits until only what was left is there, each busy with its call: sessions end in the background. What is found is
/// always owned, meanwhile too.
async fn settled(program: &Program, left: usize) {
    crate::harness::eventually("only sessions that were left are there", async || {
        let metrics = program.metrics().await;
        let count = |name, label| metrics.sum(name, label) as usize;
        assert_eq!(count("sluice_processes_owned", ""), count("sluice_processes_found", ""));
        let is_settled = count("sluice_sessions", "") == left && count("sluice_children", "") == left;
        is_settled.then(|| assert_eq!(count("sluice_workers", "state=\"busy\""), left))
    })
    .await;
    let guardian = program.guardian().await;
    let zombies = || children_of(guardian).into_iter().filter(|pid| matches!(stat(*pid), Some(('Z', _)))).count();
    eventually("the guardian has reaped everything", || (zombies() == 0).then_some(())).await;
}

/// One session, and one of the ways to end it. Says whether a call was in flight then, that its server had got; and
/// what is left.
async fn abuse(program: Arc<Program>, number: usize, stays: bool) -> (bool, Option<Left>) {
    let session = program.open(if number.is_multiple_of(4) { "stubborn" } else { "echo" }).await;
    let mut pids = session.fork().await;
    pids.push(session.pid().await);
    let server = pids[3];
    if number.is_multiple_of(2) {
        let reached = program.folder().join(number.to_string());
        let call = session.hang(&reached).await;
        match number / 2 % STAYS {
            // Nobody ever comes back to it.
            0 if stays => return (true, Some(Left { pids, call })),
            // Somebody kills the server, and the session ends without a word about it.
            1 => {
                signal(server, Signal::KILL);
                session.delete().await;
            }
            // The client is gone, and says so later.
            2 => {
                call.abort();
                session.delete().await;
            }
            _ => session.delete().await,
        }
        return (true, None);
    }
    between_calls(session, server, number / 2).await;
    (false, None)
}

async fn between_calls(session: Session, server: i32, number: usize) {
    match number % 4 {
        // The server crashes, and the session ends while it is started again.
        0 => {
            session.start_call("crash", json!({"code": 1})).await;
        }
        1 => {
            session.start_call("abort", json!({})).await;
        }
        2 => signal(server, Signal::KILL),
        // In order.
        _ => {}
    }
    session.delete().await;
}
