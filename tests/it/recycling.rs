//! Children are replaced while they are in use: no call fails, none waits for another, and no child is left.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sluice::config::{Isolation, Server};
use tokio::task::JoinHandle;

use crate::harness::{Gateway, Metrics, eventually, fixture, in_time, key, text_of};
use crate::talk::{BOTH, Client, Wire};

fn recycled(max_requests: usize) -> Server {
    let mut server = fixture("echo");
    server.pool.max_requests = Some(max_requests);
    server
}

fn shared(mut server: Server) -> Server {
    server.isolation = Isolation::Shared;
    server
}

fn recyclings(metrics: &Metrics, limit: &str) -> f64 {
    metrics.sum("sluice_children_recycled_total", &format!("limit=\"{limit}\""))
}

/// A call in flight for as long as the test wants: the server asks its client, and waits for the answer.
struct Held {
    call: JoinHandle<Value>,
    asked: Value,
}

impl Held {
    async fn by(client: &Client) -> Self {
        let call = client.start_call("sample", json!({"prompt": "how long?"}));
        let asked = client.next_unsolicited().await;
        assert_eq!(asked["method"], "sampling/createMessage", "{asked}");
        Self { call, asked }
    }

    async fn finish(self, client: &Client) {
        let content = json!({"type": "text", "text": "long enough"});
        let result = json!({"role": "assistant", "model": "m", "content": content});
        client.send(&json!({"jsonrpc": "2.0", "id": self.asked["id"], "result": result})).await;
        assert_eq!(text_of(&in_time("the answer", self.call).await.unwrap()), "long enough");
    }
}

/// Callers on one session that never leave it idle; each answer is its own.
async fn overlapping(client: &Arc<Client>, callers: usize, calls: usize, name: &str) {
    let callers: Vec<_> = (0..callers).map(|caller| caller_on(client, caller, calls, name)).collect();
    for caller in callers {
        in_time("a caller", caller).await.unwrap();
    }
}

fn caller_on(client: &Arc<Client>, caller: usize, calls: usize, name: &str) -> JoinHandle<()> {
    let (client, name) = (Arc::clone(client), name.to_owned());
    tokio::spawn(async move {
        for call in 0..calls {
            // Some are slow, so that others always overlap with them.
            if (caller + call).is_multiple_of(4) {
                let ms = 10 + caller;
                assert_eq!(client.text("sleep", json!({"ms": ms})).await, format!("slept {ms} ms"));
            } else {
                let text = format!("{name}, caller {caller}, call {call}");
                assert_eq!(client.text("echo", json!({"text": text})).await, text);
            }
        }
    })
}

#[tokio::test]
async fn one_call_after_another_meets_each_child_as_often_as_it_may() {
    for wire in BOTH {
        let gateway = Gateway::start(recycled(5)).await;
        let client = Client::open(&gateway, wire).await;
        let mut calls: BTreeMap<u32, usize> = BTreeMap::new();
        for _ in 0..40 {
            *calls.entry(client.pid().await).or_default() += 1;
        }
        assert!(calls.len() == 8 && calls.values().all(|calls| *calls == 5), "{calls:?}");
        gateway.until("it is recycled", |metrics| recyclings(metrics, "max_requests") == 8.0).await;
        client.close().await;
        gateway.finish().await;
    }
}

#[tokio::test]
async fn callers_that_leave_it_never_idle_are_all_answered() {
    for wire in BOTH {
        let gateway = Gateway::start(recycled(20)).await;
        let client = Arc::new(Client::open(&gateway, wire).await);
        overlapping(&client, 8, 50, "one").await;
        let metrics = gateway.metrics().await;
        assert_eq!(recyclings(&metrics, "max_requests"), 20.0, "400 calls");
        gateway.until("one is left", |metrics| metrics.children() <= 1.0).await;
        Arc::into_inner(client).unwrap().close().await;
        gateway.finish().await;
    }
}

#[tokio::test]
async fn a_call_outlasts_its_child_s_time_and_no_other_waits_for_it() {
    for wire in BOTH {
        let gateway = Gateway::start(recycled(5)).await;
        let client = Client::open(&gateway, wire).await;
        let before = client.pid().await;
        let held = Held::by(&client).await;
        for call in 2..20 {
            assert_eq!(client.pid().await == before, call < 5, "call {call}");
        }
        assert_eq!(recyclings(&gateway.metrics().await, "max_requests"), 4.0);
        gateway.until("the first one, and the latest", |metrics| metrics.children() <= 2.0).await;
        held.finish(&client).await;
        gateway.until("the first one is gone", |metrics| metrics.children() <= 1.0).await;
        let heard = client.text("notifications_received", json!({})).await;
        assert_eq!(heard, r#"["notifications/initialized"]"#, "replayed just once");
        client.close().await;
        gateway.finish().await;
    }
}

#[tokio::test]
async fn progress_comes_from_a_child_that_takes_no_more_calls() {
    for wire in BOTH {
        let gateway = Gateway::start(recycled(2)).await;
        let client = Client::open(&gateway, wire).await;
        let meta = json!({"progressToken": "mine"});
        let params = json!({"name": "progress", "arguments": {"steps": 20, "ms": 20}, "_meta": meta});
        let call = client.start("tools/call", params);
        for _ in 0..9 {
            client.pid().await;
        }
        assert_eq!(recyclings(&gateway.metrics().await, "max_requests"), 5.0);
        assert_eq!(text_of(&in_time("the answer", call).await.unwrap()), "20 steps");
        let said = client.unsolicited_but_lists();
        let steps: Vec<_> =
            said.iter().map(|message| (&message["params"]["progressToken"], &message["params"]["progress"])).collect();
        let all: Vec<Value> = (1..=20).map(Value::from).collect();
        assert_eq!(steps, all.iter().map(|step| (&meta["progressToken"], step)).collect::<Vec<_>>());
        client.close().await;
        gateway.finish().await;
    }
}

#[tokio::test]
async fn a_call_on_an_earlier_child_can_be_cancelled_and_that_ends_the_child() {
    for wire in BOTH {
        let gateway = Gateway::start(recycled(2)).await;
        let client = Client::open(&gateway, wire).await;
        let before = client.pid().await;
        let hung = json!({"jsonrpc": "2.0", "id": "long", "method": "tools/call", "params": {"name": "hang"}});
        let client = Arc::new(client);
        let call = tokio::spawn({
            let client = Arc::clone(&client);
            async move { client.exchange_raw(&hung.to_string(), "\"long\"").await }
        });
        gateway.until("it is in flight", |metrics| recyclings(metrics, "max_requests") == 1.0).await;
        assert_ne!(client.pid().await, before);
        gateway.until("both are there", |metrics| metrics.children() == 2.0).await;
        client.notify("notifications/cancelled", json!({"requestId": "long"})).await;
        gateway.until("the first one is gone", |metrics| metrics.children() == 1.0).await;
        assert_ne!(client.pid().await, before);
        call.abort();
        let _ = call.await;
        Arc::into_inner(client).unwrap().close().await;
        gateway.finish().await;
    }
}

#[tokio::test]
async fn sessions_on_one_child_move_together_and_lose_nothing() {
    for wire in BOTH {
        let gateway = Gateway::start(shared(recycled(50))).await;
        let mut clients = Vec::new();
        for _ in 0..10 {
            clients.push(Arc::new(Client::open(&gateway, wire).await));
        }
        let held = clients[0].start_call("progress", json!({"steps": 100, "ms": 20}));
        let work = clients.iter().enumerate().map(|(number, client)| {
            let client = Arc::clone(client);
            tokio::spawn(async move { overlapping(&client, 4, 20, &format!("session {number}")).await })
        });
        for session in work.collect::<Vec<_>>() {
            session.await.unwrap();
        }
        assert_eq!(text_of(&in_time("the long call", held).await.unwrap()), "100 steps");
        gateway.until("one is left", |metrics| metrics.children() == 1.0).await;
        let metrics = gateway.metrics().await;
        assert_eq!(recyclings(&metrics, "max_requests"), 16.0, "801 calls");
        assert_eq!(metrics.sum("sluice_children_spawned_total", ""), 17.0, "one successor for all");
        for client in clients {
            Arc::into_inner(client).unwrap().close().await;
        }
        gateway.finish().await;
    }
}

#[tokio::test]
async fn age_and_memory_are_seen_while_the_child_is_never_idle() {
    type Limit = (&'static str, fn(&mut Server));
    let limits: [Limit; 2] = [
        ("max_age", |server| server.pool.max_age = Some(Duration::from_millis(700))),
        // Less than any process has.
        ("max_rss", |server| server.pool.max_rss = Some(1 << 20)),
    ];
    for (limit, set) in limits {
        for isolation in [Isolation::Session, Isolation::Shared] {
            let mut server = fixture("echo");
            server.isolation = isolation;
            set(&mut server);
            let gateway = Gateway::start(server).await;
            let client = Arc::new(Client::open(&gateway, Wire::Streamable).await);
            eventually("it is recycled three times", async || {
                overlapping(&client, 4, 10, limit).await;
                (recyclings(&gateway.metrics().await, limit) >= 3.0).then_some(())
            })
            .await;
            Arc::into_inner(client).unwrap().close().await;
            gateway.finish().await;
        }
    }
}

#[tokio::test]
async fn a_child_leaves_its_room_to_its_successor_and_to_nobody_else() {
    for of_tenant in [false, true] {
        for isolation in [Isolation::Session, Isolation::Principal] {
            let mut one = recycled(3);
            one.isolation = isolation;
            one.keep_children = true;
            one.pool.max_children = if of_tenant { 100 } else { 1 };
            one.pool.idle_timeout = Duration::from_millis(100);
            let mut keys = Vec::new();
            let gateway = Gateway::start_with([one], |config| {
                keys = vec![key(config, "acme", "ann"), key(config, "acme", "bob")];
                config.tenants.values_mut().for_each(|tenant| tenant.max_children = of_tenant.then_some(1));
            })
            .await;
            let client = Arc::new(Client::open(&gateway.with_key(&keys[0]), Wire::Streamable).await);
            let waiting = Client::connect(&gateway.with_key(&keys[1]), Wire::Streamable).await;
            let waits = waiting.start_initialize();
            gateway.until("another waits", |metrics| metrics.sessions() == 2.0).await;
            for _ in 0..10 {
                client.text("echo", json!({"text": "on"})).await;
            }
            overlapping(&client, 8, 10, "one").await;
            assert_eq!(recyclings(&gateway.metrics().await, "max_requests"), 30.0, "{isolation:?}");
            assert!(!waits.is_finished(), "{isolation:?}");
            Arc::into_inner(client).unwrap().close().await;
            let answer = in_time("its turn", waits).await.unwrap();
            assert!(answer["result"].is_object(), "{answer}");
            waiting.close().await;
            gateway.finish().await;
        }
    }
}

#[tokio::test]
async fn at_the_ceiling_calls_wait_for_those_of_the_old_child_but_not_for_ever() {
    for isolation in [Isolation::Session, Isolation::Principal] {
        for wire in BOTH {
            let mut server = recycled(2);
            server.isolation = isolation;
            server.pool.max_children = 1;
            server.keep_children = true;
            server.pool.queue_timeout = Duration::from_millis(200);
            server.limits.stdin_grace = Duration::from_millis(100);
            server.limits.term_grace = Duration::from_millis(100);
            let gateway = Gateway::start(server).await;
            let client = Client::open(&gateway, wire).await;
            let before = client.pid().await;
            let held = Held::by(&client).await;
            let refused = client.call("pid", json!({})).await;
            let error = &refused["error"];
            assert_eq!(error["data"]["type"], "pool_full", "{refused}");
            assert_eq!(error["data"]["retryable"], true, "{refused}");
            let waits = client.start_call("pid", json!({}));
            gateway.until("it waits", |metrics| metrics.sum("sluice_pool_queue", "") == 1.0).await;
            held.finish(&client).await;
            let after = text_of(&in_time("the next child", waits).await.unwrap());
            assert_ne!(after, before.to_string());
            client.close().await;
            gateway.finish().await;
        }
    }
}

#[tokio::test]
async fn a_session_whose_calls_did_not_get_the_room_in_time_has_it_all_the_same() {
    let mut server = recycled(2);
    server.pool.max_children = 1;
    server.keep_children = true;
    server.pool.queue_timeout = Duration::from_secs(1);
    server.limits.stdin_grace = Duration::from_millis(100);
    server.limits.term_grace = Duration::from_millis(100);
    let gateway = Gateway::start(server).await;
    let client = Client::open(&gateway, Wire::Streamable).await;
    client.pid().await;
    let held = Held::by(&client).await;
    let refused = client.call("pid", json!({})).await;
    assert_eq!(refused["error"]["data"]["type"], "pool_full", "{refused}");
    let other = Client::connect(&gateway, Wire::Streamable).await;
    let waits = other.start_initialize();
    gateway.until("another waits", |metrics| metrics.sum("sluice_pool_queue", "") == 1.0).await;
    held.finish(&client).await;
    client.pid().await;
    let refused = in_time("it has waited in vain", waits).await.unwrap();
    assert_eq!(refused["error"]["data"]["type"], "pool_full", "{refused}");
    client.close().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_successor_has_the_time_that_the_end_of_the_old_child_takes() {
    let mut server = recycled(2);
    server.pool.max_children = 1;
    server.keep_children = true;
    server.pool.queue_timeout = Duration::ZERO;
    let gateway = Gateway::start(server).await;
    let client = Client::open(&gateway, Wire::Sse).await;
    for _ in 0..10 {
        client.pid().await;
    }
    client.close().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_client_whose_calls_never_end_does_not_fill_the_pool() {
    let mut server = recycled(1);
    server.pool.queue_timeout = Duration::from_millis(200);
    let gateway = Gateway::start(server).await;
    let client = Client::open(&gateway, Wire::Sse).await;
    let hung: Vec<_> = (0..10).map(|_| client.start_call("hang", json!({}))).collect();
    // Each retires its child.
    let told = || hung.iter().filter(|call| call.is_finished()).count();
    eventually("those that get none are told", async || (told() == 5).then_some(())).await;
    assert_eq!(gateway.metrics().await.children(), 5.0);
    for call in hung {
        if call.is_finished() {
            let answer = call.await.unwrap();
            assert_eq!(answer["error"]["data"]["type"], "overloaded", "{answer}");
        } else {
            call.abort();
        }
    }
    client.close().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_child_that_is_killed_while_it_finishes_fails_what_is_on_it_alone() {
    let gateway = Gateway::start(recycled(2)).await;
    let client = Client::open(&gateway, Wire::Sse).await;
    let before = client.pid().await;
    let held = Held::by(&client).await;
    let after = client.pid().await;
    assert_ne!(after, before);
    crate::proc::signal(before, rustix::process::Signal::KILL);
    let failed = in_time("it fails", held.call).await.unwrap();
    assert_eq!(failed["error"]["data"]["type"], "server_exited", "{failed}");
    assert_eq!(client.pid().await, after);
    client.close().await;
    gateway.finish().await;
}
