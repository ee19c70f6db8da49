//! A child leaves in its temporary folder whatever makes that hard to remove. Its folder goes, and nobody else notices.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::guardian::program::{Program, Session, Setup, eventually, gone, signal};

/// Deeper than any stack or table of descriptors, in names that no path has room for.
fn deep() -> Value {
    json!({"depth": 20_000, "length": 255})
}

/// More than can be removed while somebody waits.
fn wide() -> Value {
    json!({"files": 40_000})
}

/// A gateway with few descriptors.
fn start() -> Program {
    Program::start_as(Setup { through: vec!["sh", "-c", "ulimit -n 128 && exec \"$0\" \"$@\""], ..Setup::default() })
}

async fn litter(session: &Session, what: &Value) -> PathBuf {
    let folder = PathBuf::from(session.call("litter", what.clone()).await);
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
    for what in [deep(), wide()] {
        let hostile = program.open("echo").await;
        let folder = litter(&hostile, &what).await;
        hostile.delete().await;
        let mut calls = 0;
        while folder.exists() {
            let begin = Instant::now();
            assert_eq!(other.call("echo", json!({"text": "here"})).await, "here");
            assert!(begin.elapsed() < Duration::from_secs(1), "a call took {:?}", begin.elapsed());
            calls += 1;
        }
        assert!(calls > 0, "the removal was over before anybody could notice");
        none_waits(&program).await;
    }
    program.open("echo").await.pid().await;
    program.finish().await;
}

#[tokio::test]
async fn the_folders_of_a_gateway_that_was_killed_go_however_deep() {
    let mut program = start();
    let folder = litter(&program.open("echo").await, &deep()).await;
    program.kill_9();
    eventually("its guardian has removed it", || (!around(&folder).exists()).then_some(())).await;
}

#[tokio::test]
async fn a_start_removes_what_was_left_behind_and_does_not_wait_for_it() {
    let mut program = start();
    let folder = litter(&program.open("echo").await, &wide()).await;
    let guardian = program.guardian().await;
    signal(guardian, Signal::STOP);
    program.kill_9();
    signal(guardian, Signal::KILL);
    gone(&[guardian]).await;
    let next = program.start_next();
    assert!(folder.join("file-39999").exists(), "it was removed before the gateway listened");
    next.open("echo").await.pid().await;
    eventually("it is removed", || (!around(&folder).exists()).then_some(())).await;
    next.finish().await;
}

#[tokio::test]
async fn the_end_of_a_gateway_does_not_wait_for_large_folders() {
    let program = start();
    let session = program.open("echo").await;
    let folder = litter(&session, &wide()).await;
    let begin = Instant::now();
    program.finish().await;
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    drop(folder);
}

/// The folder of the gateway that a child's is in.
fn around(folder: &Path) -> &Path {
    folder.parent().unwrap()
}
