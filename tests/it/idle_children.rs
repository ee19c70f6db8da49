//! Idle children: who needs room gets that of a child that nobody has a use for at present. The session of that child goes on,
//! and gets another when it needs one; what it has asked for meanwhile is neither lost nor done twice.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice::config::{Isolation, Server};
use tokio::task::JoinHandle;

use crate::harness::{Caller, Gateway, Metrics, Streamable, eventually, fixture, in_time, key, named, text_of};
use crate::talk::{BOTH, Client, Wire};

/// A server with so many children at most.
fn limited(max_children: usize) -> Server {
    let mut server = fixture("echo");
    server.pool.max_children = max_children;
    server.pool.queue_timeout = Duration::from_secs(30);
    server
}

async fn pid(session: &mut Streamable) -> u32 {
    session.call("pid", json!({})).await.parse().unwrap()
}

/// Idle children that were ended for want of room in the pool.
fn ended(metrics: &Metrics) -> f64 {
    metrics.sum("sluice_idle_children_ended_total", "limit=\"max_children\"")
}

/// What a session is told that asks for a child and gets none.
async fn refusal(caller: &Caller) -> Value {
    let answer = Client::connect(caller, Wire::Streamable).await.initialize().await;
    answer["error"]["data"]["type"].clone()
}

#[tokio::test]
async fn a_session_whose_child_has_made_room_goes_on_with_another() {
    for isolation in [Isolation::Session, Isolation::Principal] {
        let mut server = limited(1);
        server.isolation = isolation;
        let mut keys = Vec::new();
        let gateway = Gateway::start_with([server], |config| {
            keys = vec![key(config, "acme", "ann"), key(config, "acme", "bob")];
        })
        .await;
        let (ann, bob) = (gateway.with_key(&keys[0]), gateway.with_key(&keys[1]));
        let mut first = ann.streamable().await;
        let mut stream = first.stream().await;
        first.request("logging/setLevel", json!({"level": "error"})).await;
        let before = pid(&mut first).await;
        // A stream alone is no use of a child.
        let mut second = bob.streamable().await;
        let after = pid(&mut second).await;
        assert_ne!(before, after);
        assert_eq!((gateway.metrics().await.children(), ended(&gateway.metrics().await)), (1.0, 1.0));
        // Nobody has asked for it: no other is started for the first.
        assert_eq!(pid(&mut second).await, after, "{isolation:?}");
        assert_eq!(first.call("levels", json!({})).await, r#"["error"]"#);
        assert_eq!(first.call("notifications_received", json!({})).await, r#"["notifications/initialized"]"#);
        let announced = in_time("what has changed", stream.message()).await.expect("the stream is open");
        assert_eq!(announced["method"], "notifications/tools/list_changed");
        assert_eq!(ended(&gateway.metrics().await), 2.0);
        drop(stream);
        gateway.finish().await;
    }
}

/// A use of a child that a session may have.
#[derive(Debug, Clone, Copy)]
enum Use {
    Call,
    Question,
    Task,
    Subscription,
}

/// A use that has begun.
struct Begun {
    it: Use,
    /// The file that ends a call or a task.
    end: PathBuf,
    call: Option<JoinHandle<Value>>,
    /// The id of the question, or of the task.
    id: Value,
}

impl Begun {
    async fn of(client: &Client, it: Use, end: PathBuf) -> Self {
        let (mut call, mut id) = (None, Value::Null);
        match it {
            Use::Call => call = Some(client.start_call("wait_for", json!({"path": end}))),
            Use::Question => {
                call = Some(client.start_call("elicit", json!({"message": "who?"})));
                let is_it = |message: &Value| message["method"] == "elicitation/create";
                let asked = async || client.unsolicited().into_iter().find(is_it);
                id = eventually("the question", asked).await["id"].clone();
            }
            Use::Task => {
                let params = json!({"name": "wait_for", "arguments": {"path": end}, "task": {"ttl": 60_000}});
                let made = client.request("tools/call", params).await;
                id = made["result"]["task"]["taskId"].clone();
                assert!(id.is_string(), "{made}");
            }
            Use::Subscription => {
                client.request("resources/subscribe", json!({"uri": "fixture://note"})).await;
            }
        }
        Self { it, end, call, id }
    }

    async fn end(self, client: &Client) {
        match self.it {
            Use::Call => std::fs::write(self.end, "").unwrap(),
            Use::Question => {
                client.send(&json!({"jsonrpc": "2.0", "id": self.id, "result": {"action": "decline"}})).await;
            }
            Use::Task => {
                std::fs::write(self.end, "").unwrap();
                client.request("tasks/result", json!({"taskId": self.id})).await;
            }
            Use::Subscription => {
                client.request("resources/unsubscribe", json!({"uri": "fixture://note"})).await;
            }
        }
        if let Some(call) = self.call {
            text_of(&in_time("the answer", call).await.unwrap());
        }
    }
}

#[tokio::test]
async fn a_child_with_a_call_a_question_a_task_or_a_subscription_stays() {
    for wire in BOTH {
        for it in [Use::Call, Use::Question, Use::Task, Use::Subscription] {
            let folder = tempfile::tempdir().unwrap();
            let mut server = limited(1);
            server.pool.queue_timeout = Duration::from_millis(300);
            server.sandbox.read.push(folder.path().to_owned());
            let gateway = Gateway::start(server).await;
            let client = Client::open(&gateway, wire).await;
            let before = client.pid().await;
            let begun = Begun::of(&client, it, folder.path().join("end")).await;
            if matches!(it, Use::Call) {
                crate::delivery::until_in_flight(&gateway, 1).await;
            }
            assert_eq!(refusal(&gateway).await, "pool_full", "{wire:?} {it:?}");
            assert_eq!(client.pid().await, before, "{wire:?} {it:?}");
            begun.end(&client).await;
            eventually("room", async || refusal(&gateway).await.is_null().then_some(())).await;
            assert_ne!(client.pid().await, before, "{wire:?} {it:?}");
            client.close().await;
            gateway.finish().await;
        }
    }
}

#[tokio::test]
async fn what_comes_while_a_child_makes_room_is_done_once() {
    const SESSIONS: usize = 6;
    const CALLS: usize = 15;
    let folder = tempfile::tempdir().unwrap();
    let mut server = limited(2);
    server.sandbox.write.push(folder.path().to_owned());
    let gateway = Gateway::start(server).await;
    let sessions = (0..SESSIONS).map(|number| {
        let (caller, path) = ((*gateway).clone(), folder.path().join(number.to_string()));
        let wire = BOTH[number % 2];
        tokio::spawn(async move {
            let client = Client::open(&caller, wire).await;
            for done in 1..=CALLS {
                let count = client.text("add", json!({"path": path})).await;
                assert_eq!(count, done.to_string(), "session {number}");
            }
            client.close().await;
        })
    });
    for session in sessions.collect::<Vec<_>>() {
        in_time("all calls of a session", session).await.unwrap();
    }
    assert!(ended(&gateway.metrics().await) > 0.0, "nobody had to make room");
    gateway.finish().await;
}

#[tokio::test]
async fn who_holds_most_makes_room_and_of_these_the_longest_idle() {
    let mut keys = Vec::new();
    let gateway = Gateway::start_with([limited(8)], |config| {
        let others = [("umbrella", "eve"), ("third", "zoe"), ("fourth", "dan"), ("last", "kim")];
        let holders = [("acme", "ann"), ("acme", "bob")].into_iter().chain(others);
        keys = holders.map(|(tenant, subject)| key(config, tenant, subject)).collect();
    })
    .await;
    let [ann, bob, eve, zoe, dan, kim] = [0, 1, 2, 3, 4, 5].map(|index: usize| gateway.with_key(&keys[index]));
    let mut of_eve = eve.streamable().await;
    let mut of_bob = bob.streamable().await;
    let (mut first, mut second) = (ann.streamable().await, ann.streamable().await);
    let before = [pid(&mut of_eve).await, pid(&mut of_bob).await, pid(&mut second).await, pid(&mut first).await];
    // As many as are left for each.
    for other in [&eve, &zoe, &zoe, &dan] {
        other.streamable().await;
    }
    assert_eq!(ended(&gateway.metrics().await), 0.0);
    // The tenant with three has to go first, and of its two principals the one with two: its second is the longest idle.
    kim.streamable().await;
    let after = [pid(&mut of_eve).await, pid(&mut of_bob).await, pid(&mut first).await];
    assert_eq!(after, [before[0], before[1], before[3]]);
    assert_eq!(ended(&gateway.metrics().await), 1.0);
    gateway.finish().await;
}

#[tokio::test]
async fn a_tenant_at_its_ceiling_gives_up_its_own_on_any_server() {
    let mut keys = Vec::new();
    let servers = [named("one", limited(100)), named("two", limited(100))];
    let gateway = Gateway::start_with(servers, |config| {
        keys = [("acme", "ann"), ("umbrella", "eve")].map(|(t, s)| key(config, t, s)).to_vec();
        config.tenants.get_mut("acme").unwrap().max_children = Some(2);
    })
    .await;
    let (ann, eve) = (gateway.with_key(&keys[0]), gateway.with_key(&keys[1]));
    let mut other = eve.server("one").streamable().await;
    let of_eve = pid(&mut other).await;
    let (mut first, mut second) = (ann.server("one").streamable().await, ann.server("one").streamable().await);
    let before = [pid(&mut first).await, pid(&mut second).await];
    let mut third = ann.server("two").streamable().await;
    assert_eq!(third.call("echo", json!({"text": "served"})).await, "served");
    assert_eq!([pid(&mut second).await, pid(&mut other).await], [before[1], of_eve]);
    assert_ne!(pid(&mut first).await, before[0]);
    let metrics = gateway.metrics().await;
    assert!(metrics.sum("sluice_idle_children_ended_total", "limit=\"tenant_max_children\"") >= 1.0);
    gateway.finish().await;
}

#[tokio::test]
async fn by_time_alone_a_child_goes_where_that_is_configured_and_not_where_it_is_kept() {
    let mut kept = limited(1);
    kept.keep_children = true;
    kept.pool.queue_timeout = Duration::from_millis(300);
    let servers = [named("usual", limited(1)), named("kept", kept)];
    let gateway = Gateway::start_with(servers, |config| {
        config.sessions.child_idle_timeout = Some(Duration::from_millis(200));
    })
    .await;
    let mut kept = gateway.server("kept").streamable().await;
    let memory = pid(&mut kept).await;
    let mut usual = gateway.server("usual").streamable().await;
    let before = pid(&mut usual).await;
    gateway
        .until("the idle child is gone", |metrics| {
            metrics.sum("sluice_idle_children_ended_total", "limit=\"child_idle_timeout\"") == 1.0
                && metrics.sum("sluice_children", "server=\"usual\"") == 0.0
        })
        .await;
    assert_eq!(gateway.metrics().await.sessions(), 2.0);
    assert_eq!(refusal(&gateway.server("kept")).await, "pool_full");
    assert_eq!(pid(&mut kept).await, memory);
    assert_ne!(pid(&mut usual).await, before);
    gateway.finish().await;
}

/// For how long clients come and never end their sessions: some seconds, or so many as `SLUICE_IDLE_SECONDS` says.
fn duration() -> Duration {
    let seconds = std::env::var("SLUICE_IDLE_SECONDS").map_or(4, |seconds| seconds.parse().unwrap());
    Duration::from_secs(seconds)
}

#[tokio::test]
async fn clients_that_never_end_their_sessions_hold_nobody_up() {
    const CLIENTS: usize = 32;
    const CHILDREN: usize = 50;
    // All are one principal, which may have 100 sessions.
    let gateway = Gateway::start(limited(CHILDREN)).await;
    for wire in BOTH {
        let end = Instant::now() + duration() / 2;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let caller = (*gateway).clone();
                tokio::spawn(async move {
                    let mut sessions = Vec::new();
                    // Each at least twice, however slow the machine is.
                    while sessions.len() < 2 || Instant::now() < end {
                        let client = Client::open(&caller, wire).await;
                        let said = format!("{number} {}", sessions.len());
                        assert_eq!(client.text("echo", json!({"text": said})).await, said);
                        sessions.push(client);
                    }
                    sessions
                })
            })
            .collect();
        let mut sessions = Vec::new();
        for client in clients {
            sessions.extend(client.await.unwrap());
        }
        let metrics = gateway.metrics().await;
        println!(
            "{wire:?}: {} sessions of {CLIENTS} clients, {} open, {} children, {} made room",
            sessions.len(),
            metrics.sessions(),
            metrics.children(),
            ended(&metrics)
        );
        assert!(metrics.children() <= CHILDREN as f64);
        assert!(sessions.len() > CHILDREN && ended(&metrics) > 0.0);
        for session in sessions {
            session.close().await;
        }
    }
    gateway.finish().await;
}
