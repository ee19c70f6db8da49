//! Servers that do their worst to the starts of others, and to what starts them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use serde_json::json;

use crate::guardian::program::{Program, Setup, children_of, eventually, exists, gone, signal};

fn close(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o0)).unwrap();
}

#[tokio::test]
async fn a_server_that_closes_the_gateways_files_stops_no_start() {
    let mut setup = Setup::default();
    let binary = setup.folder.path().join("sluice");
    std::fs::copy(&setup.binary, &binary).unwrap();
    setup.binary.clone_from(&binary);
    let program = Program::start_as(setup);
    let session = program.open("echo").await;
    let folder = session.call("litter", json!({})).await;
    let top = Path::new(&folder).parent().unwrap();
    // What a server of the gateway's user can do in no sandbox.
    for path in [top, top.parent().unwrap(), &binary] {
        close(path);
    }
    // New stages, from a new guardian.
    let guardian = program.guardian().await;
    signal(guardian, Signal::KILL);
    gone(&[guardian]).await;
    for _ in 0..4 {
        let next = program.open("echo").await;
        let folder = next.call("litter", json!({"files": 1})).await;
        assert!(Path::new(&folder).join("file-0").exists());
    }
    let modes = [top.parent().unwrap(), top].map(|path| path.metadata().unwrap().permissions().mode() & 0o711);
    assert_eq!(modes[1], 0o711);
    assert_ne!(modes[0], 0);
    program.finish().await;
}

#[tokio::test]
async fn a_guardian_without_descriptors_ends_nobody() {
    let program = Program::start();
    let (ends, stays) = (program.open("echo").await, program.open("stubborn").await);
    let (ended, stayed) = (ends.pid().await, stays.pid().await);
    let left = ends.fork().await;
    let guardian = program.guardian().await;
    let limit = |current| {
        let limit = Rlimit { current: Some(current), maximum: getrlimit(Resource::Nofile).maximum };
        prlimit(Some(Pid::from_raw(guardian).unwrap()), Resource::Nofile, limit).unwrap();
    };
    limit(1);
    // Whatever it looks at now, it cannot open.
    signal(ended, Signal::KILL);
    gone(&[ended]).await;
    gone(&left).await;
    assert_eq!(stays.pid().await, stayed);
    limit(1024);
    assert_ne!(ends.pid().await, ended);
    program.open("echo").await.pid().await;
    assert_eq!((program.guardian().await, stays.pid().await), (guardian, stayed));
    program.finish().await;
}

#[tokio::test]
async fn a_start_that_hangs_holds_up_those_of_others_for_five_seconds_at_most() {
    let configuration = "[children]\nspawn_concurrency = 1\n".to_owned();
    let program = Program::start_as(Setup { configuration, ..Setup::default() });
    let guardian = program.guardian().await;
    let stages = || children_of(guardian);
    let mut stages = eventually("stages wait", || Some(stages()).filter(|stages| stages.len() == 2)).await;
    stages.sort_unstable();
    // The next child waits for something that does not answer.
    signal(stages[0], Signal::STOP);
    let begin = Instant::now();
    let mut hangs = Box::pin(program.open("stubborn"));
    let other = async {
        // The stage has been handed out: its start has the turn.
        let ready = || children_of(guardian).into_iter().filter(|pid| !stages.contains(pid)).count();
        eventually("another stage takes its place", || (ready() > 0).then_some(())).await;
        let session = program.open("echo").await;
        (session.pid().await, begin.elapsed())
    };
    let (_, took) = tokio::select! {
        _ = &mut hangs => panic!("the start does not hang"),
        other = other => other,
    };
    assert!(took > Duration::from_secs(4) && took < Duration::from_secs(8), "it took {took:?}");
    signal(stages[0], Signal::CONT);
    hangs.await.pid().await;
    program.finish().await;
}

#[tokio::test]
async fn thousands_of_orphans_are_ended_and_hold_up_nobody() {
    const ORPHANS: usize = 3000;
    let fixture = crate::harness::fixture_path();
    let script = format!(
        "i=0; while test $i -lt {ORPHANS}; do setsid sleep 300 <&- >&- 2>&- & i=$((i+1)); done; exec {} echo",
        fixture.display()
    );
    let mut setup = Setup::default();
    setup.configuration = format!(
        "[servers.storm]\ncommand = \"/bin/sh\"\nargs = [\"-c\", {script:?}]\nsandbox = \"none\"\n\
         env = {{ SLUICE_TEST_MARK = {:?} }}\n",
        setup.folder.path()
    );
    let program = Program::without_cgroups_as(setup);
    let (storm, other) = (program.open("storm").await, program.open("echo").await);
    let (leader, stays) = (storm.pid().await, other.pid().await);
    assert!(program.left().len() > ORPHANS);
    signal(leader, Signal::KILL);
    while program.left().len() > 2 {
        let begin = Instant::now();
        assert_eq!(other.pid().await, stays);
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    }
    assert!(!exists(leader));
    program.finish().await;
}

#[tokio::test]
async fn gateways_that_are_started_at_once_all_have_cgroups() {
    let first = Program::start();
    if first.cgroups().await.is_none() {
        return;
    }
    for _ in 0..5 {
        let starts: Vec<_> = (0..4).map(|_| std::thread::spawn(Program::start)).collect();
        let programs: Vec<_> = starts.into_iter().map(|start| start.join().unwrap()).collect();
        for program in &programs {
            assert!(program.cgroups().await.is_some_and(|path| path.is_dir()));
        }
        for program in programs {
            program.open("echo").await.pid().await;
            program.finish().await;
        }
    }
    first.finish().await;
}
