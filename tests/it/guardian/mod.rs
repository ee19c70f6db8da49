//! Nothing is left behind, however a session, the gateway or the guardian ends.

mod cgroup;
mod churn;
mod launch;
mod limits;
pub(crate) mod program;
mod silent;
mod upgrade;

use program::{Program, Setup, descriptors, eventually, exists, gone, signal, stat};
use rustix::process::Signal;

#[tokio::test]
async fn kill_9_of_the_gateway_leaves_nothing() {
    let mut program = Program::start();
    let guardian = program.guardian().await;
    let mut all = vec![guardian];
    for server in ["echo", "stubborn", "stubborn"] {
        let session = program.open(server).await;
        all.push(session.pid().await);
        all.extend(session.fork().await);
    }
    assert_eq!(all.len(), 1 + 3 * 4);
    assert!(all.iter().all(|pid| exists(*pid)));
    program.kill_9();
    gone(&all).await;
    eventually("nothing is left", || program.left().is_empty().then_some(())).await;
}

#[tokio::test]
async fn kill_9_of_the_guardian_leaves_nothing_and_the_gateway_goes_on() {
    let program = Program::start();
    let session = program.open("stubborn").await;
    let mut all = session.fork().await;
    all.push(session.pid().await);
    let first = program.guardian().await;
    signal(first, Signal::KILL);
    gone(&all).await;
    gone(&[first]).await;
    assert_ne!(program.guardian().await, first);
    // The session goes on with another child, and so does a new one.
    assert!(!all.contains(&session.pid().await));
    program.open("echo").await.fork().await;
    program.finish().await;
}

#[tokio::test]
async fn kill_9_of_the_guardian_is_no_crash_loop_of_the_servers() {
    let (mut setup, fixture) = (Setup::default(), crate::harness::fixture_path());
    // With a circuit breaker as it is by default.
    setup.configuration = format!(
        "[servers.usual]\ncommand = {fixture:?}\nargs = [\"echo\"]\nenv = {{ SLUICE_TEST_MARK = {:?} }}\n",
        setup.folder.path()
    );
    let program = Program::start_as(setup);
    let mut sessions = Vec::new();
    for _ in 0..10 {
        let session = program.open("usual").await;
        let pid = session.pid().await;
        sessions.push((session, pid));
    }
    let guardian = program.guardian().await;
    signal(guardian, Signal::KILL);
    gone(&sessions.iter().map(|(_, pid)| *pid).chain([guardian]).collect::<Vec<_>>()).await;
    for (session, before) in &sessions {
        assert_ne!(session.pid().await, *before);
    }
    assert_eq!(program.admin("/readyz").await, "ready\n");
    program.open("usual").await.pid().await;
    program.finish().await;
}

#[tokio::test]
async fn what_a_session_left_behind_goes_with_it_and_the_others_keep_theirs() {
    let program = Program::start();
    let (ends, crashes, stays) = (program.open("echo").await, program.open("echo").await, program.open("echo").await);
    let (of_ending, of_crashing, of_staying) = (ends.fork().await, crashes.fork().await, stays.fork().await);
    let crashed = crashes.pid().await;
    ends.delete().await;
    gone(&of_ending).await;
    signal(crashed, Signal::KILL);
    gone(&of_crashing).await;
    gone(&[crashed]).await;
    assert!(of_staying.iter().all(|pid| matches!(stat(*pid), Some((state, _)) if state != 'Z')), "{of_staying:?}");
    program.finish().await;
    gone(&of_staying).await;
}

#[tokio::test]
async fn signals_for_everybody_do_not_end_the_guardian() {
    let program = Program::start();
    let session = program.open("echo").await;
    let (pid, guardian) = (session.pid().await, program.guardian().await);
    for sent in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        signal(guardian, sent);
    }
    assert_eq!(session.pid().await, pid);
    assert_eq!(program.guardian().await, guardian);
    program.finish().await;
    gone(&[guardian]).await;
}

#[tokio::test]
async fn a_child_has_its_three_streams_and_a_group_of_its_own() {
    // A descriptor that everything started from here inherits, as from a careless shell.
    let careless = std::fs::File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&careless, rustix::io::FdFlags::empty()).unwrap();
    let program = Program::start();
    let session = program.open("echo").await;
    let pid = session.pid().await;
    // The fixture opens more for itself, but what it starts has all that it inherited, and nothing else.
    assert_eq!(descriptors(session.fork().await[0]), ["0", "1", "2"]);
    assert_eq!(stat(pid).unwrap().1, program.guardian().await);
    let group = rustix::process::getpgid(rustix::process::Pid::from_raw(pid)).unwrap();
    assert_eq!(group.as_raw_pid(), pid);
    program.finish().await;
}

#[tokio::test]
async fn the_metrics_agree_on_what_there_is() {
    let program = Program::start();
    assert_eq!(program.processes().await, (0, 0));
    let session = program.open("echo").await;
    session.fork().await;
    // The server, and three that it has started.
    assert_eq!(program.processes().await, (4, 4));
    session.delete().await;
    // A session ends in the background.
    crate::harness::eventually("nothing is left", async || (program.processes().await == (0, 0)).then_some(())).await;
    assert_eq!(program.below_the_guardian().await, Vec::<i32>::new(), "no zombie either");
    program.finish().await;
}

#[tokio::test]
async fn what_outlives_gateway_and_guardian_goes_when_the_next_one_starts() {
    // With cgroups, the next gateway of any test would see to it.
    let mut program = Program::without_cgroups();
    let session = program.open("echo").await;
    let (server, guardian, forked) = (session.pid().await, program.guardian().await, session.fork().await);
    let is_recorded = |pid: &i32| program.recorded().contains(pid);
    eventually("all are recorded", || forked.iter().chain([&server]).all(is_recorded).then_some(())).await;
    // A gateway that is stopped cannot do anything about the end of the guardian, nor about its own. (Not the other way
    // round: the system wakes a stopped group whose parent ends, and the guardian is in one of its own.)
    let in_state = |pid, wanted| move || stat(pid).is_some_and(|(state, _)| state == wanted).then_some(());
    signal(program.pid(), Signal::STOP);
    eventually("the gateway has stopped", in_state(program.pid(), 'T')).await;
    signal(guardian, Signal::KILL);
    eventually("the guardian has ended", in_state(guardian, 'Z')).await;
    program.kill_9();
    gone(&[guardian, server]).await;
    // One was in the server's group, which nobody killed; one in a session of its own; one had lost its parent.
    assert!(forked.iter().all(|pid| exists(*pid)), "{forked:?}: nobody was there to kill them");
    let next = program.start_next();
    gone(&forked).await;
    next.open("echo").await;
    next.finish().await;
}

#[tokio::test]
async fn two_gateways_cannot_share_a_state_directory() {
    let program = Program::start();
    let refused = program.refused_next().await;
    assert!(refused.contains("another gateway runs with this state_dir"), "{refused}");
    // The one that has it was not disturbed.
    program.open("echo").await;
    program.finish().await;
}
