//! A child leaves in its temporary folder whatever makes that hard to remove. Its folder goes, and nobody else notices.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use serde_json::json;

use sluice::config::Server;

use crate::guardian::program::{Program, Session, Setup, eventually, gone, signal};
use crate::harness::{Gateway, Streamable, fixture};

/// Folders in each other, deeper than any stack or table of descriptors, with names that no path has room for. They
/// come into a child's folder at once: it would be ended before it had made so many.
fn nest(program: &Program, folder: &Path) {
    const DEPTH: usize = 20_000;
    let name = "n".repeat(255);
    let top = program.folder().join("nest");
    std::fs::create_dir(&top).unwrap();
    let mut inner = rustix::fs::open(&top, OFlags::PATH, Mode::empty()).unwrap();
    for _ in 0..DEPTH {
        rustix::fs::mkdirat(&inner, &*name, Mode::RWXU).unwrap();
        inner = rustix::fs::openat(&inner, &*name, OFlags::PATH, Mode::empty()).unwrap();
    }
    std::fs::rename(top, folder.join("nest")).unwrap();
}

/// A gateway with few descriptors.
fn start() -> Program {
    Program::start_as(Setup { through: vec!["sh", "-c", "ulimit -n 128 && exec \"$0\" \"$@\""], ..Setup::default() })
}

/// The folder of a child, with more files in it than can be removed while somebody waits, or none.
async fn litter(session: &Session, is_wide: bool) -> PathBuf {
    let files = if is_wide { 40_000 } else { 0 };
    let folder = PathBuf::from(session.call("litter", json!({"files": files})).await);
    assert!(folder.is_dir());
    folder
}

async fn none_waits(program: &Program) {
    while program.metrics().await.sum("sluice_folders_waiting", "") > 0.0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(program.metrics().await.sum("sluice_folder_failures_total", ""), 0.0);
}

#[tokio::test]
async fn nobody_waits_for_the_removal_of_a_folder_however_deep_or_wide() {
    let program = start();
    let other = program.open("echo").await;
    for is_wide in [false, true] {
        let hostile = program.open("echo").await;
        let folder = litter(&hostile, is_wide).await;
        if !is_wide {
            nest(&program, &folder);
        }
        hostile.delete().await;
        loop {
            let begin = Instant::now();
            assert_eq!(other.call("echo", json!({"text": "here"})).await, "here");
            assert!(begin.elapsed() < Duration::from_secs(1), "a call took {:?}", begin.elapsed());
            if !folder.exists() {
                break;
            }
        }
        none_waits(&program).await;
    }
    program.open("echo").await.pid().await;
    program.finish().await;
}

#[tokio::test]
async fn the_folders_of_a_gateway_that_was_killed_go_however_deep() {
    let mut program = start();
    let folder = litter(&program.open("echo").await, false).await;
    nest(&program, &folder);
    program.kill_9();
    eventually("its guardian has removed it", || (!around(&folder).exists()).then_some(())).await;
}

#[tokio::test]
async fn a_start_removes_what_was_left_behind_and_does_not_wait_for_it() {
    let mut program = start();
    let folder = litter(&program.open("echo").await, true).await;
    let guardian = program.guardian().await;
    signal(guardian, Signal::STOP);
    program.kill_9();
    signal(guardian, Signal::KILL);
    gone(&[guardian]).await;
    // So much that its removal takes far longer than a start.
    for number in 0..200_000 {
        std::fs::File::create(folder.join(format!("more-{number}"))).unwrap();
    }
    let next = program.start_next();
    assert!(folder.exists(), "it was removed before the gateway listened");
    next.open("echo").await.pid().await;
    eventually("it is removed", || (!around(&folder).exists()).then_some(())).await;
    next.finish().await;
}

#[tokio::test]
async fn the_end_of_a_gateway_does_not_wait_for_large_folders() {
    let program = start();
    let session = program.open("echo").await;
    let folder = litter(&session, true).await;
    let begin = Instant::now();
    program.finish().await;
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    drop(folder);
}

#[tokio::test]
async fn a_child_that_fills_its_temporary_folder_is_ended() {
    let mut server = fixture("echo");
    server.limits.temp.files = 1000;
    let gateway = Gateway::start(server).await;
    let mut client = Streamable::initialize(&gateway, "2025-06-18").await;
    client.call("litter", json!({"files": 900})).await;
    assert_eq!(client.call("echo", json!({"text": "still here"})).await, "still here");
    client.call("litter", json!({"depth": 150, "length": 2})).await;
    let params = json!({"name": "hang", "arguments": {}});
    let reply = client.send(json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params})).await;
    assert!(reply.text.contains("more than 1000 files in its temporary folder"), "{}", reply.text);
    assert!(reply.text.contains("server_over_limit"), "{}", reply.text);
    gateway.finish().await;
}

#[tokio::test]
async fn a_file_system_in_memory_keeps_the_size_where_the_gateway_may_mount_one() {
    let capabilities = rustix::thread::capabilities(None).unwrap().effective;
    if !rustix::process::geteuid().is_root() || !capabilities.contains(rustix::thread::CapabilitySet::SYS_ADMIN) {
        return;
    }
    let is_mounted = |path: &str| std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(path);
    let fixture_path = crate::harness::fixture_path();
    // It serves only if its folder has room for one MiB, and not for two.
    let script = format!(
        "head -c 1000000 /dev/zero >$TMPDIR/one && ! head -c 1100000 /dev/zero >$TMPDIR/two || exit 3; exec {} echo",
        fixture_path.display()
    );
    let mut server = Server::new("full".parse().unwrap(), "/bin/sh", vec!["-c".to_owned(), script]);
    server.sandbox.read.push(fixture_path);
    server.limits.temp.size = Some(2 << 20);
    let gateway = Gateway::start(server).await;
    let reply = Streamable::initialize(&gateway, "2025-06-18").await.call("litter", json!({})).await;
    // Here the mount is not seen, nor what is in it.
    assert!(Path::new(&reply).is_dir() && !Path::new(&reply).join("one").exists());
    assert!(!is_mounted(&reply));
    gateway.finish().await;
    assert!(!Path::new(&reply).exists());
}

/// Does something on a thread to which, and to all that it starts, the system refuses to mount.
fn without_mounts<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        let arch = std::env::consts::ARCH.try_into().unwrap();
        let (rest, refused) = (SeccompAction::Allow, SeccompAction::Errno(libc::EPERM.cast_unsigned()));
        let filter = SeccompFilter::new([(libc::SYS_mount, Vec::new())].into(), rest, refused, arch).unwrap();
        seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
        work()
    });
    thread.join().unwrap()
}

#[tokio::test]
async fn where_a_file_system_in_memory_is_refused_the_folder_is_watched() {
    // Who may not mount does not try to.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let fixture = crate::harness::fixture_path();
    let configuration =
        format!("[servers.full]\ncommand = {fixture:?}\nargs = [\"echo\"]\nlimits.temp_size = \"2MiB\"\n");
    let program = without_mounts(|| Program::start_as(Setup { configuration, ..Setup::default() }));
    let session = program.open("full").await;
    let script = "head -c 3000000 /dev/zero >$TMPDIR/file && sleep 20";
    let answer = session.start_call("shell", json!({"script": script})).await;
    assert_eq!(answer["error"]["data"]["type"], "server_over_limit", "{answer}");
    program.finish().await;
}

/// The folder of the gateway that a child's is in.
fn around(folder: &Path) -> &Path {
    folder.parent().unwrap()
}
