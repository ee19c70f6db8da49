//! A child is killed under load, again and again: only calls in flight fail, each session goes on under its id, and the
//! next child is there in the time that a start takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use sluice::config::{Isolation, Server};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::harness::{Caller, Gateway, named, text_of};
use crate::proc;
use crate::scene::{Client, Wire, fixture};

/// What a recovery may take beyond a start.
const BEYOND: Duration = Duration::from_millis(50);
/// How often the child is killed: what is compared is the middle of so many measurements.
const ROUNDS: usize = 9;
const SESSIONS: usize = 6;
/// Callers in each session, each with one call in flight.
const CALLERS: usize = 4;

/// The load: callers that call all the time.
struct Load {
    clients: Vec<Arc<Client>>,
    answered: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    async fn on(caller: &Caller, isolation: Isolation) -> Self {
        let mut clients = Vec::new();
        for number in 0..SESSIONS {
            let wire = if number % 2 == 0 { Wire::Streamable } else { Wire::Sse };
            clients.push(Arc::new(Client::open(caller, wire).await));
        }
        let (answered, failed) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let stop = CancellationToken::new();
        let tasks = clients.iter().flat_map(|client| vec![Arc::clone(client); CALLERS]).map(|client| {
            let counts = (Arc::clone(&answered), Arc::clone(&failed));
            tokio::spawn(call_on(client, isolation, counts, stop.clone()))
        });
        let tasks = tasks.collect();
        Self { clients, answered, failed, stop, tasks }
    }

    /// Ends it: every call was answered or has failed as it should.
    async fn end(self) -> (usize, usize) {
        self.stop.cancel();
        for task in self.tasks {
            task.await.expect("a caller has got something else");
        }
        for client in self.clients {
            assert_eq!(client.unsolicited_but_lists(), Vec::<Value>::new());
            Arc::into_inner(client).expect("no caller is left").close().await;
        }
        (self.answered.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

async fn call_on(
    client: Arc<Client>,
    isolation: Isolation,
    (answered, failed): (Arc<AtomicUsize>, Arc<AtomicUsize>),
    stop: CancellationToken,
) {
    let session = client.session_id();
    for number in 0_u64.. {
        if stop.is_cancelled() {
            break;
        }
        let answer = client.call("sleep", json!({"ms": 5 + number % 5})).await;
        if answer["error"].is_object() {
            assert_killed(&answer, isolation);
            failed.fetch_add(1, Ordering::Relaxed);
        } else {
            assert_eq!(text_of(&answer), format!("slept {} ms", 5 + number % 5));
            answered.fetch_add(1, Ordering::Relaxed);
        }
    }
    assert_eq!(client.session_id(), session);
}

/// The typed error of a call that was in flight.
fn assert_killed(answer: &Value, isolation: Isolation) {
    let (error, data) = (&answer["error"], &answer["error"]["data"]);
    assert_eq!((&error["code"], &data["type"]), (&json!(-32000), &json!("server_exited")), "{answer}");
    assert_eq!((&data["retryable"], &data["exitCode"], &data["signal"]), (&json!(true), &Value::Null, &json!(9)));
    let last_words = if isolation == Isolation::Shared { Value::Null } else { json!(["last words"]) };
    assert_eq!(data["stderr"], last_words, "{answer}");
}

/// Calls until another child than `before` answers.
async fn recovery(client: &Client, isolation: Isolation, before: u32) -> Duration {
    let killed = Instant::now();
    proc::signal(before, Signal::KILL);
    loop {
        let answer = client.call("pid", json!({})).await;
        if answer["error"].is_object() {
            assert_killed(&answer, isolation);
        } else {
            assert_ne!(text_of(&answer), before.to_string());
            return killed.elapsed();
        }
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

async fn killed_under_load(isolation: Isolation) {
    let server = || -> Server { fixture(&["slow-start", "100"]) };
    let mut subject = server();
    subject.isolation = isolation;
    // The twin starts a child for each session: that is how long a start takes, here and now.
    let gateway = Gateway::start_with([named("subject", subject), named("twin", server())], |_| {}).await;
    let load = Load::on(&gateway.server("subject"), isolation).await;
    let client = Arc::clone(&load.clients[1]);
    let (mut starts, mut recoveries) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let opened = Instant::now();
        let twin = Client::open(&gateway.server("twin"), Wire::Sse).await;
        twin.pid().await;
        starts.push(opened.elapsed());
        twin.close().await;
        let pid = client.pid().await;
        client.text("stderr", json!({"text": "last words"})).await;
        // The line is on its way through another pipe than the answer.
        recoveries.push(recovery(&client, isolation, pid).await);
        let failed = load.failed.load(Ordering::Relaxed);
        let in_flight = if isolation == Isolation::Session { CALLERS } else { SESSIONS * CALLERS };
        assert!(failed <= (round + 1) * in_flight, "{failed} have failed in round {round}");
    }
    drop(client);
    let (answered, failed) = load.end().await;
    println!("{isolation:?}: {answered} calls answered, {failed} in flight failed over {ROUNDS} kills");
    println!("{isolation:?}: starts {starts:?}, recoveries {recoveries:?}");
    let (start, recovery) = (median(starts), median(recoveries));
    println!("{isolation:?}: start {start:?}, recovery {recovery:?} (medians)");
    assert!(failed > 0 && answered > failed, "there was no load: {answered} answered, {failed} failed");
    assert!(recovery <= start + BEYOND, "recovery took {recovery:?}, a start {start:?}");
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("sluice_children_exits_total", "server=\"subject\",reason=\"crashed\""), ROUNDS as f64);
    gateway.finish().await;
}

#[tokio::test]
async fn sessions_with_children_of_their_own_go_on() {
    killed_under_load(Isolation::Session).await;
}

#[tokio::test]
async fn sessions_that_share_a_child_go_on() {
    killed_under_load(Isolation::Shared).await;
}
