//! Tasks go on though their call is answered: the child that they are on stays for them, and is asked about them.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice::config::{Isolation, Server, Tool};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::harness::{Gateway, Metrics, eventually, fixture, in_time, text_of};
use crate::proc;
use crate::talk::{BOTH, Client, Wire};

/// A folder that servers may write to, where the tests end tasks and see what has ended.
struct Place {
    folder: TempDir,
    tasks: Cell<usize>,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), tasks: Cell::new(0) }
    }

    /// A server whose children take one call each.
    fn server(&self, isolation: Isolation) -> Server {
        let mut server = fixture("echo");
        server.isolation = isolation;
        server.pool.max_requests = Some(1);
        server.sandbox.write.push(self.folder.path().to_owned());
        server
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}-{}", self.tasks.get()))
    }
}

/// A task that goes on until the test ends it.
struct Task {
    id: String,
    /// The child that it is on.
    pid: u32,
    /// Ends it.
    end: PathBuf,
    /// A trace of its end.
    ended: PathBuf,
}

impl Task {
    async fn of(client: &Client, place: &Place) -> Self {
        place.tasks.set(place.tasks.get() + 1);
        let (end, ended) = (place.file("end"), place.file("ended"));
        let params = json!({"name": "wait_for", "arguments": {"path": end, "then": ended}, "task": {"ttl": 60_000}});
        let answer = client.request("tools/call", params).await;
        let id = answer["result"]["task"]["taskId"].as_str().unwrap_or_else(|| panic!("no task: {answer}")).to_owned();
        let pid = id.split('-').nth(1).unwrap().parse().unwrap();
        Self { id, pid, end, ended }
    }

    /// Asks `tasks/get`, `tasks/result` or `tasks/cancel`; the whole answer.
    async fn ask(&self, client: &Client, method: &str) -> Value {
        in_time("an answer", client.request(method, json!({"taskId": self.id}))).await
    }

    async fn status(&self, client: &Client) -> String {
        let answer = self.ask(client, "tasks/get").await;
        answer["result"]["status"].as_str().unwrap_or_else(|| panic!("no status: {answer}")).to_owned()
    }

    fn end(&self) {
        std::fs::write(&self.end, "").unwrap();
    }
}

#[tokio::test]
async fn a_task_outlives_its_child_s_time_and_is_asked_about_where_it_is() {
    let place = Place::new();
    for (isolation, wire) in [
        (Isolation::Session, Wire::Sse),
        (Isolation::Session, Wire::Streamable),
        (Isolation::Shared, Wire::Sse),
        (Isolation::Shared, Wire::Streamable),
    ] {
        let gateway = Gateway::start(place.server(isolation)).await;
        let client = Client::open(&gateway, wire).await;
        let other = Client::open(&gateway, wire).await;
        let task = Task::of(&client, &place).await;
        // It takes no more calls, and the session has no other child yet.
        assert_eq!(task.status(&client).await, "working");
        let foreign = task.ask(&other, "tasks/get").await;
        assert_eq!(foreign["error"]["code"], -32602, "{foreign}");
        for _ in 0..3 {
            assert_ne!(client.pid().await, task.pid, "a new call goes to another child");
            assert_eq!(task.status(&client).await, "working");
        }
        let result = client.start("tasks/result", json!({"taskId": task.id}));
        assert_eq!(task.status(&client).await, "working", "it waits for the result meanwhile");
        task.end();
        assert_eq!(text_of(&in_time("the result", result).await.unwrap()), task.pid.to_string());
        proc::gone(task.pid).await;
        client.close().await;
        other.close().await;
        gateway.finish().await;
    }
}

#[tokio::test]
async fn a_result_that_is_not_fetched_keeps_the_child_and_a_cancellation_does_not() {
    let place = Place::new();
    for isolation in [Isolation::Session, Isolation::Shared] {
        for wire in BOTH {
            let gateway = Gateway::start(place.server(isolation)).await;
            let client = Client::open(&gateway, wire).await;
            let (finished, cancelled) = (Task::of(&client, &place).await, Task::of(&client, &place).await);
            assert_ne!(finished.pid, cancelled.pid);
            finished.end();
            eventually("it is over", async || (finished.status(&client).await == "completed").then_some(())).await;
            client.pid().await;
            let answer = cancelled.ask(&client, "tasks/cancel").await;
            assert_eq!(answer["result"]["status"], "cancelled", "{answer}");
            proc::gone(cancelled.pid).await;
            assert!(proc::runs(finished.pid), "its client has not fetched the result");
            let result = finished.ask(&client, "tasks/result").await;
            assert_eq!(text_of(&result), finished.pid.to_string());
            proc::gone(finished.pid).await;
            client.close().await;
            gateway.finish().await;
        }
    }
}

#[tokio::test]
async fn a_child_that_is_too_old_stays_for_a_task() {
    let place = Place::new();
    let mut server = place.server(Isolation::Session);
    server.pool.max_requests = None;
    server.pool.max_age = Some(Duration::from_millis(300));
    let gateway = Gateway::start(server).await;
    let client = Client::open(&gateway, Wire::Streamable).await;
    let task = Task::of(&client, &place).await;
    eventually("it is replaced", async || (client.pid().await != task.pid).then_some(())).await;
    assert_eq!(task.status(&client).await, "working");
    task.end();
    assert_eq!(text_of(&task.ask(&client, "tasks/result").await), task.pid.to_string());
    proc::gone(task.pid).await;
    client.close().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_task_that_nobody_asks_about_keeps_its_child_as_long_as_a_call_may_take() {
    let place = Place::new();
    for isolation in [Isolation::Session, Isolation::Shared] {
        let mut server = place.server(isolation);
        server.limits.call_timeout = Duration::from_secs(1);
        let gateway = Gateway::start(server).await;
        let client = Client::open(&gateway, Wire::Streamable).await;
        let before = Instant::now();
        let task = Task::of(&client, &place).await;
        assert_ne!(client.pid().await, task.pid);
        proc::gone(task.pid).await;
        assert!(before.elapsed() >= Duration::from_secs(1), "after {:?}", before.elapsed());
        let lost = task.ask(&client, "tasks/get").await;
        assert_eq!(lost["error"]["code"], -32602, "{lost}");
        client.close().await;
        gateway.finish().await;
    }
}

#[tokio::test]
async fn a_session_with_a_task_is_not_idle() {
    let place = Place::new();
    for isolation in [Isolation::Session, Isolation::Shared] {
        let mut server = place.server(isolation);
        server.pool.max_requests = None;
        let gateway =
            Gateway::start_with([server], |config| config.sessions.idle_timeout = Duration::from_millis(100)).await;
        let client = Client::open(&gateway, Wire::Streamable).await;
        let task = Task::of(&client, &place).await;
        // One that comes later has been idle for less.
        let _idle = Client::open(&gateway, Wire::Streamable).await;
        gateway.until("the other session has ended", |metrics| metrics.sessions() == 1.0).await;
        task.end();
        assert_eq!(text_of(&task.ask(&client, "tasks/result").await), task.pid.to_string());
        gateway.until("nothing is left to do", |metrics| metrics.sessions() == 0.0).await;
        gateway.finish().await;
    }
}

#[tokio::test]
async fn a_drain_waits_for_a_task_and_not_for_results_that_nobody_can_fetch_any_more() {
    let place = Place::new();
    for isolation in [Isolation::Session, Isolation::Shared] {
        // Longer than the test is patient.
        let gateway =
            Gateway::start_with([place.server(isolation)], |config| config.drain_timeout = Duration::from_secs(600))
                .await;
        let client = Client::open(&gateway, Wire::Streamable).await;
        let task = Task::of(&client, &place).await;
        client.pid().await;
        let address = gateway.address;
        let end = async {
            eventually("it drains", async || TcpStream::connect(address).await.is_err().then_some(())).await;
            assert!(proc::runs(task.pid));
            task.end();
        };
        tokio::join!(gateway.finish(), end);
        assert!(task.ended.exists(), "it was not cut");
    }
}

#[tokio::test]
async fn a_child_that_works_on_a_task_is_busy_and_is_not_asked_whether_it_is_there() {
    let place = Place::new();
    let mut server = place.server(Isolation::Session);
    server.pool.max_requests = None;
    server.limits.ping_interval = Some(Duration::from_millis(50));
    let gateway = Gateway::start(server).await;
    let client = Client::open(&gateway, Wire::Streamable).await;
    let task = Task::of(&client, &place).await;
    let idle = Client::open(&gateway, Wire::Streamable).await;
    gateway.until("one is idle", |metrics| metrics.sum("sluice_workers", "ready") == 1.0).await;
    assert_eq!(gateway.metrics().await.sum("sluice_workers", "busy"), 1.0);
    let said = |metrics: &Metrics| metrics.sum("sluice_messages_total", "direction=\"to_client\"");
    let before = said(&gateway.metrics().await);
    gateway.until("the idle one answers pings", |metrics| said(metrics) >= before + 4.0).await;
    assert_eq!(client.text("pings", json!({})).await, "0");
    task.end();
    assert_eq!(text_of(&task.ask(&client, "tasks/result").await), task.pid.to_string());
    idle.close().await;
    client.close().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_call_that_waits_behind_a_task_in_vain_does_not_make_the_child_wedged() {
    let place = Place::new();
    let mut server = place.server(Isolation::Session);
    server.pool.max_requests = None;
    server.limits.call_timeout = Duration::from_millis(500);
    server.limits.ping_interval = Some(Duration::from_millis(50));
    server.limits.ping_timeout = Duration::from_millis(500);
    server.tools.insert("wait_for".to_owned(), Tool { timeout: Some(Duration::from_secs(60)), ..Tool::default() });
    let gateway = Gateway::start(server).await;
    let client = Client::open(&gateway, Wire::Streamable).await;
    let said = |metrics: &Metrics| metrics.sum("sluice_messages_total", "direction=\"to_client\"");
    gateway.until("it answers pings", |metrics| said(metrics) >= 3.0).await;
    let task = Task::of(&client, &place).await;
    // It reads nothing meanwhile, as one that does one thing at a time.
    let late = client.call("block", json!({"ms": 2000})).await;
    assert_eq!(late["error"]["data"]["type"], "call_timeout", "{late}");
    gateway.until("it reads again", |metrics| metrics.dropped("unknown_id") == 1.0).await;
    task.end();
    eventually("it is over", async || {
        let answer = task.ask(&client, "tasks/get").await;
        (answer["result"]["status"] == "completed").then_some(())
    })
    .await;
    assert_eq!(text_of(&task.ask(&client, "tasks/result").await), task.pid.to_string());
    client.close().await;
    gateway.finish().await;
}
