//! Where the gateway can make cgroups, a child ends with all that is in its own, and no cgroup is left behind either.
//! Where it cannot (which is so for who is not root, mostly) each test says so, and fails if
//! `SLUICE_REQUIRE_CGROUPS=1`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::program::{Program, eventually, exists, gone, say, signal};

/// The cgroup (v2) that a process is in.
fn cgroup_of(pid: i32) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned()
}

fn members(cgroup: &Path) -> BTreeSet<i32> {
    let list = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    list.lines().map(|pid| pid.parse().unwrap()).collect()
}

/// A gateway with the folder of its cgroups; none where it can make none.
async fn program() -> Option<(Program, PathBuf)> {
    let program = Program::start();
    match program.cgroups().await {
        Some(folder) => Some((program, folder)),
        None => {
            program.finish().await;
            assert!(
                std::env::var_os("SLUICE_REQUIRE_CGROUPS").is_none_or(|value| value != "1"),
                "no cgroup can be made here"
            );
            say("skipped: no cgroup can be made here (see what `sluice check` says of cgroups)");
            None
        }
    }
}

#[tokio::test]
async fn each_child_has_a_cgroup_that_all_its_offspring_is_in() {
    let Some((program, folder)) = program().await else { return };
    let (one, other) = (program.open("echo").await, program.open("stubborn").await);
    let (mut of_one, of_other) = (one.fork().await, other.fork().await);
    of_one.push(one.pid().await);
    let cgroup = cgroup_of(of_one[3]);
    assert!(of_one.iter().all(|pid| cgroup_of(*pid) == cgroup));
    assert_eq!(members(&folder.join(Path::new(&cgroup).file_name().unwrap())), of_one.iter().copied().collect());
    assert!(of_other.iter().all(|pid| cgroup_of(*pid) != cgroup && exists(*pid)));
    // Neither the gateway nor the guardian is in there.
    for pid in [program.pid(), program.guardian().await] {
        assert!(!cgroup_of(pid).contains("sluice-children"), "{pid}");
    }
    one.delete().await;
    gone(&of_one).await;
    let name = Path::new(&cgroup).file_name().unwrap();
    eventually("its cgroup is removed", || (!folder.join(name).exists()).then_some(())).await;
    assert!(of_other.iter().all(|pid| exists(*pid)));
    program.finish().await;
    assert!(!folder.exists());
}

#[tokio::test]
async fn what_is_in_the_cgroup_ends_with_the_child_and_is_counted_whosever_it_is() {
    let Some((program, folder)) = program().await else { return };
    let session = program.open("echo").await;
    let server = session.pid().await;
    // As good as one that no other means could find: it descends from the test.
    let mut stranger = std::process::Command::new("sleep").arg("300").spawn().unwrap();
    let pid = stranger.id();
    let cgroup = folder.join(Path::new(&cgroup_of(server)).file_name().unwrap());
    std::fs::write(cgroup.join("cgroup.procs"), pid.to_string()).unwrap();
    assert_eq!(program.processes().await, (2, 2));
    signal(server, Signal::KILL);
    let status = tokio::task::spawn_blocking(move || stranger.wait().unwrap()).await.unwrap();
    assert!(!status.success(), "{status}");
    program.finish().await;
    assert!(!folder.exists());
}

#[tokio::test]
async fn kill_9_of_the_gateway_leaves_no_cgroup() {
    let Some((mut program, folder)) = program().await else { return };
    let session = program.open("stubborn").await;
    let forked = session.fork().await;
    program.kill_9();
    gone(&forked).await;
    eventually("its cgroups are removed", || (!folder.exists()).then_some(())).await;
}

#[tokio::test]
async fn the_next_guardian_goes_on_with_the_cgroups() {
    let Some((program, folder)) = program().await else { return };
    let session = program.open("echo").await;
    let forked = session.fork().await;
    signal(program.guardian().await, Signal::KILL);
    gone(&forked).await;
    let forked = session.fork().await;
    assert!(cgroup_of(forked[0]).contains("sluice-children"));
    assert_eq!(program.processes().await, (4, 4));
    program.finish().await;
    assert!(!folder.exists());
}

#[tokio::test]
async fn what_outlives_gateway_and_guardian_goes_with_the_next_gateway_of_the_machine() {
    let Some((mut program, folder)) = program().await else { return };
    let session = program.open("echo").await;
    let (guardian, forked) = (program.guardian().await, session.fork().await);
    // It cannot do anything about the end of the gateway.
    signal(guardian, Signal::STOP);
    program.kill_9();
    signal(guardian, Signal::KILL);
    // Any gateway: also those of other tests that start now.
    let next = Program::start();
    gone(&forked).await;
    // Empty by now: whoever has ended what was in there removes it next.
    eventually("the folder is removed", || (!folder.exists()).then_some(())).await;
    next.finish().await;
}
