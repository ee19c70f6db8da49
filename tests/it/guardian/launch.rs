//! Starting children: what cannot be started says why, and the way through the guardian takes hardly longer.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sluice::config::{SandboxMode, Server};
use sluice::process::cgroup::Subtree;
use sluice::process::sandbox::Reach;
use sluice::process::{
    Child, Folders, Guardian, GuardianSupervisor, Launch, Neighbours, Owner, Pipes, Signal, SpawnError,
};
use tokio::io::AsyncReadExt as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::program::{gone, say, stat};
use crate::harness::in_time;

/// How often each kind of start is measured.
const STARTS: usize = 40;

/// A guardian without a gateway.
struct Lone {
    guardian: Guardian,
    stop: CancellationToken,
    supervisor: JoinHandle<()>,
}

impl Lone {
    fn start() -> Self {
        Self::start_with(None)
    }

    fn start_with(cgroups: Option<Subtree>) -> Self {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_sluice"));
        let (supervisor, guardian) =
            GuardianSupervisor::start(program, Neighbours::Some, cgroups, Folders::new(None), None).unwrap();
        let stop = CancellationToken::new();
        Self { guardian, supervisor: tokio::spawn(supervisor.run(stop.clone())), stop }
    }

    async fn spawn(&self, launch: &Launch) -> Result<(Child, Pipes), SpawnError> {
        in_time("a child starts, or not", Child::spawn(&self.guardian, launch)).await
    }

    async fn finish(self) {
        self.stop.cancel();
        in_time("the guardian ends", self.supervisor).await.unwrap();
    }
}

fn launch(program: &str, args: &[&str]) -> Launch {
    Launch {
        command: program.to_owned(),
        program: program.into(),
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        env: vec![("PATH".to_owned(), "/usr/bin:/bin".into())],
        cwd: None,
        ..Launch::default()
    }
}

#[tokio::test]
async fn a_child_gets_what_is_ordered_and_nothing_else() {
    let lone = Lone::start();
    let mut launch = launch("/bin/sh", &["-c", "pwd; env; cat; exit 3"]);
    launch.cwd = Some("/".into());
    // More than a socket takes at once.
    let large = "x".repeat(100_000);
    for number in 0..8 {
        launch.env.push((format!("LARGE{number}"), large.clone().into()));
    }
    let (child, Pipes { stdin, mut stdout, stderr: _stderr }) = lone.spawn(&launch).await.unwrap();
    drop(stdin);
    let mut said = String::new();
    in_time("it says everything", stdout.read_to_string(&mut said)).await.unwrap();
    let mut lines: Vec<_> = said.lines().filter(|line| !line.starts_with("LARGE")).collect();
    assert_eq!(lines.remove(0), "/");
    lines.sort_unstable();
    // A shell sets these by itself.
    lines.retain(|line| !["OLDPWD=", "SHLVL=", "_="].iter().any(|own| line.starts_with(own)));
    assert_eq!(lines, ["PATH=/usr/bin:/bin", "PWD=/"]);
    assert_eq!(said.matches(&large).count(), 8);
    assert_eq!(in_time("it ends", child.exited()).await.code(), Some(3));
    lone.finish().await;
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let lone = Lone::start();
    let system = async |launch: &Launch| match lone.spawn(launch).await {
        Err(SpawnError::System { command, error }) => {
            assert_eq!(command, launch.command);
            error
        }
        other => panic!("{other:?}"),
    };
    let missing = system(&launch("/does/not/exist", &[])).await;
    assert_eq!(missing.kind(), std::io::ErrorKind::NotFound, "{missing}");
    let text = system(&launch("/etc/passwd", &[])).await;
    assert_eq!(text.kind(), std::io::ErrorKind::PermissionDenied, "{text}");
    let mut elsewhere = launch("/bin/true", &[]);
    elsewhere.cwd = Some("/does/not/exist".into());
    let error = lone.spawn(&elsewhere).await.unwrap_err();
    assert!(matches!(&error, SpawnError::NoDirectory(path) if path == Path::new("/does/not/exist")), "{error:?}");
    // By the kernel's measure, and by the stage's.
    for length in [200 * 1024, 5 * 1024 * 1024] {
        let long = system(&launch("/bin/true", &[&"x".repeat(length)])).await;
        assert_eq!(long.kind(), std::io::ErrorKind::ArgumentListTooLong, "{long}");
    }
    // None of it has harmed the guardian.
    let (child, _pipes) = lone.spawn(&launch("/bin/true", &[])).await.unwrap();
    assert!(in_time("it ends", child.exited()).await.code() == Some(0));
    lone.finish().await;
}

#[tokio::test]
async fn signals_and_a_drop_reach_the_whole_group() {
    let lone = Lone::start();
    let group = launch("/bin/sh", &["-c", "sleep 300 & echo $!; wait"]);
    for how in [Some(Signal::Term), Some(Signal::Kill), None] {
        let (child, mut pipes) = lone.spawn(&group).await.unwrap();
        let mut line = [0; 32];
        let length = in_time("it says the id", pipes.stdout.read(&mut line)).await.unwrap();
        let sleeper: i32 = std::str::from_utf8(&line[..length]).unwrap().trim().parse().unwrap();
        let leader = child.pid().cast_signed();
        match how {
            Some(signal) => {
                child.signal(signal);
                let exit = in_time("it ends", child.exited()).await;
                assert_eq!(exit.signal(), Some(if signal == Signal::Term { 15 } else { 9 }));
            }
            None => drop(child),
        }
        gone(&[leader, sleeper]).await;
    }
    lone.finish().await;
}

#[tokio::test]
async fn a_child_has_ended_when_all_that_it_left_has() {
    const DEEP: usize = 30;
    // Each in a session of its own, the parent of the next: when one is killed, the next comes to the guardian.
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("chain.sh");
    let text = "echo $$; test $1 -eq 0 || setsid sh $0 $(($1 - 1)) & test $1 -gt 0 || echo end; sleep 300";
    std::fs::write(&script, text).unwrap();
    let chain = launch("/bin/sh", &[script.to_str().unwrap(), &DEEP.to_string()]);
    for cgroups in [None, Subtree::prepare().unwrap()] {
        let lone = Lone::start_with(cgroups);
        let (child, mut pipes) = lone.spawn(&chain).await.unwrap();
        let mut said = String::new();
        while !said.contains("end") {
            let mut bytes = [0; 256];
            let length = in_time("it says the ids", pipes.stdout.read(&mut bytes)).await.unwrap();
            said.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
        }
        let pids: Vec<i32> = said.lines().filter_map(|line| line.parse().ok()).collect();
        assert_eq!(pids.len(), DEEP + 1, "{said}");
        child.signal(Signal::Kill);
        in_time("it ends", child.exited()).await;
        let runs = |pid: &i32| stat(*pid).is_some_and(|(state, _)| state != 'Z' && state != 'X');
        let left: Vec<_> = pids.into_iter().filter(runs).collect();
        assert_eq!(left, Vec::<i32>::new(), "its end was said too early");
        lone.finish().await;
    }
}

#[tokio::test]
async fn after_its_end_there_are_no_children() {
    let lone = Lone::start();
    let (child, _pipes) = lone.spawn(&launch("/bin/sleep", &["300"])).await.unwrap();
    let (pid, guardian) = (child.pid().cast_signed(), lone.guardian.clone());
    lone.finish().await;
    assert!(!super::exists(pid), "it is gone when the guardian is");
    assert_eq!(child.exited().await.signal(), Some(9));
    let error = Child::spawn(&guardian, &launch("/bin/true", &[])).await.unwrap_err();
    assert!(error.to_string().contains("stopping"), "{error}");
}

#[tokio::test]
async fn a_start_takes_hardly_longer_than_a_direct_one() {
    let direct = median(|| async {
        let begin = Instant::now();
        let null = || Stdio::null();
        let mut child = Command::new("/bin/true").stdin(null()).stdout(null()).stderr(null()).spawn().unwrap();
        let took = begin.elapsed();
        child.wait().unwrap();
        took
    });
    let direct = direct.await;
    for (how, cgroups) in [("without cgroups", None), ("with cgroups", Subtree::prepare().unwrap())] {
        let lone = Lone::start_with(cgroups);
        // One after the other, and with time in between: then the guardian has made something ready.
        for pause in [Duration::ZERO, Duration::from_millis(50)] {
            let guarded = median(|| async {
                tokio::time::sleep(pause).await;
                let begin = Instant::now();
                let (child, _pipes) = lone.spawn(&launch("/bin/true", &[])).await.unwrap();
                let took = begin.elapsed();
                in_time("it ends", child.exited()).await;
                took
            });
            let guarded = guarded.await;
            say(&format!("start of a child, median, each after {pause:?}: direct {direct:?}, {how} {guarded:?}"));
            // Far above what it takes, for the sake of busy machines: a server itself takes longer to answer.
            assert!(guarded < direct + Duration::from_millis(100), "{guarded:?} instead of {direct:?}");
        }
        lone.finish().await;
    }
}

/// From the configuration to the executed program, taking turns.
#[tokio::test]
async fn a_sandbox_makes_a_start_hardly_longer() {
    let lone = Lone::start();
    let mut times = [SandboxMode::None, SandboxMode::Standard, SandboxMode::Strict].map(|mode| (mode, Vec::new()));
    for _ in 0..STARTS {
        for (mode, times) in &mut times {
            let mut server = Server::new("s".parse().unwrap(), "true", Vec::new());
            server.sandbox.mode = *mode;
            tokio::time::sleep(Duration::from_millis(20)).await;
            let begin = Instant::now();
            let launch = Launch::of(&server, lone.guardian.folders(), &Reach::default(), &Owner::everybody()).unwrap();
            let (child, _pipes) = lone.spawn(&launch).await.unwrap();
            times.push(begin.elapsed());
            in_time("it ends", child.exited()).await;
        }
    }
    let medians = times.map(|(mode, mut times)| {
        times.sort_unstable();
        say(&format!("start of a child, median of {STARTS}, sandbox {}: {:?}", mode.as_str(), times[STARTS / 2]));
        times[STARTS / 2]
    });
    // Far above what it takes, for the sake of busy machines.
    assert!(medians.iter().all(|median| *median < medians[0] + Duration::from_millis(100)), "{medians:?}");
    lone.finish().await;
}

async fn median<F: Future<Output = Duration>>(start: impl Fn() -> F) -> Duration {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        times.push(start().await);
    }
    times.sort_unstable();
    times[STARTS / 2]
}
