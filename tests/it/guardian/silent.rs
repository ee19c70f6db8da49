//! A guardian that is there and does nothing, which no signal tells of.

use rustix::process::Signal;

use super::program::{Program, eventually, gone, signal};

#[tokio::test]
async fn a_guardian_that_does_not_answer_is_replaced() {
    let program = Program::start();
    let session = program.open("stubborn").await;
    let (mut all, first) = (session.fork().await, program.guardian().await);
    all.push(session.pid().await);
    signal(first, Signal::STOP);
    eventually("the guardian is gone", || (!super::exists(first)).then_some(())).await;
    gone(&all).await;
    assert_ne!(program.guardian().await, first);
    // The session goes on with another child, as after a crash, and so does a new one.
    assert!(!all.contains(&session.pid().await));
    program.open("echo").await.fork().await;
    program.finish().await;
}

#[tokio::test]
async fn a_gateway_that_was_stopped_itself_keeps_its_guardian() {
    let program = Program::start();
    let session = program.open("echo").await;
    let (guardian, child) = (program.guardian().await, session.pid().await);
    signal(program.pid(), Signal::STOP);
    // Longer than it waits for a guardian.
    tokio::time::sleep(std::time::Duration::from_secs(11)).await;
    signal(program.pid(), Signal::CONT);
    assert_eq!(session.pid().await, child);
    assert_eq!(program.guardian().await, guardian);
    program.finish().await;
}
