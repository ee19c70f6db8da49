//! A child that says, without end, what nothing comes of: it is slowed down, and nobody else.

use std::time::Duration;

use super::Neighbour;
use crate::binary::{Binary, OTHER_KEY};
use crate::proc;
use crate::scene::{Client, Wire};

/// For how long is measured what the gateway works.
const WINDOW: Duration = Duration::from_secs(2);
/// What the flood may cost, of one processor.
const SHARE: f64 = 0.6;

/// How much the gateway works, of one processor.
async fn work(binary: &Binary) -> f64 {
    let before = proc::processor_time(binary.pid());
    tokio::time::sleep(WINDOW).await;
    (proc::processor_time(binary.pid()) - before).as_secs_f64() / WINDOW.as_secs_f64()
}

/// Two children flood, each in its way, and another tenant calls.
async fn flood(kinds: [&str; 2]) {
    let servers = [("one", vec!["spew", kinds[0]]), ("two", vec!["spew", kinds[1]]), ("echo", vec!["echo"])];
    let binary = Binary::start(&servers, "").await;
    let neighbour = Neighbour::watch(binary.caller.with_key(OTHER_KEY).server("echo")).await;
    let usual = work(&binary).await;
    let one = Client::open(&binary.caller.server("one"), Wire::Streamable).await;
    let two = Client::open(&binary.caller.server("two"), Wire::Streamable).await;
    let first = work(&binary).await;
    let later = work(&binary).await;
    println!("{kinds:?}: {usual:.2} of a processor without, {first:.2} and then {later:.2} with the flood");
    assert!(later - usual < SHARE, "{kinds:?}: {later:.2} of a processor, and {usual:.2} without the flood");
    neighbour.unharmed().await;
    one.close().await;
    two.close().await;
    binary.stop().await;
}

#[tokio::test]
async fn noise_on_stdout_and_on_stderr_slows_nobody_else_down() {
    flood(["noise", "stderr"]).await;
}

#[tokio::test]
async fn answers_and_progress_that_nobody_waits_for_slow_nobody_else_down() {
    flood(["answers", "progress"]).await;
}

#[tokio::test]
async fn notifications_that_nobody_gets_and_pings_slow_nobody_else_down() {
    flood(["notifications", "pings"]).await;
}

#[tokio::test]
async fn blank_lines_and_lines_without_an_end_slow_nobody_else_down() {
    flood(["blank", "endless"]).await;
}

#[tokio::test]
async fn long_lines_on_stderr_and_batches_slow_nobody_else_down() {
    flood(["long-stderr", "batches"]).await;
}
