//! What children write, and what waits for them and for clients, is charged to the tenant. Beyond the tenant's share of
//! `limits.memory_budget` the tenant is told so, and nobody else notices.

use serde_json::{Value, json};

use crate::attack::Neighbour;
use crate::binary::{Binary, OTHER_KEY};
use crate::harness::eventually;
use crate::proc;
use crate::scene::{Client, Wire};

/// The budget, in KiB.
const BUDGET: u64 = 32 * 1024;
/// The part of the budget that one tenant can have, in bytes: half of what is not kept for connections.
const MOST: f64 = (BUDGET * 1024 * 3 / 8) as f64;
/// What one unended line, or one message for a child, has, in bytes.
const MUCH: usize = 4_000_000;

async fn start(servers: &[(&str, Vec<&str>)]) -> (Binary, Neighbour) {
    let binary = Binary::start(servers, &format!("[limits]\nmemory_budget = \"{BUDGET}KiB\"\n")).await;
    let neighbour = Neighbour::watch(binary.caller.with_key(OTHER_KEY).server("echo")).await;
    (binary, neighbour)
}

async fn sessions(binary: &Binary, server: &str, number: usize) -> Vec<Client> {
    let caller = binary.caller.server(server);
    let mut clients = Vec::new();
    for _ in 0..number {
        clients.push(Client::open(&caller, Wire::Streamable).await);
    }
    clients
}

fn is_about_the_budget(answer: &Value) -> bool {
    answer["error"]["message"].as_str().is_some_and(|text| text.contains("limits.memory_budget"))
}

/// The most that the gateway has held of the machine's memory since `before`, in KiB.
fn grown(binary: &Binary, before: u64) -> u64 {
    proc::status(binary.pid(), "VmHWM").saturating_sub(before)
}

/// Ends all sessions. What was charged for them is given back.
async fn end(binary: Binary, clients: Vec<Client>, neighbour: Neighbour) {
    for client in clients {
        client.close().await;
    }
    neighbour.unharmed().await;
    eventually("what was held is given back", async || {
        (binary.metrics().await.sum("sluice_memory_held_bytes", "") < 512.0 * 1024.0).then_some(())
    })
    .await;
    binary.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unended_lines_of_many_sessions_hold_no_more_than_the_share_of_their_tenant() {
    let much = MUCH.to_string();
    let (binary, neighbour) = start(&[("endless", vec!["never-newline", &much]), ("echo", vec!["echo"])]).await;
    let clients = sessions(&binary, "endless", 24).await;
    let before = proc::status(binary.pid(), "VmRSS");
    let begin = |client: &Client| client.start_call("echo", json!({}));
    // The answer to this ends the line: all of it was read.
    let finish = |client: &Client| client.start("x/more", json!({}));
    let mut calls: Vec<_> = clients.iter().map(begin).collect();
    let held = async || binary.metrics().await.sum("sluice_memory_held_bytes", "");
    eventually("the lines come", async || (held().await > MOST / 2.0).then_some(())).await;
    let mut others: Vec<_> = clients.iter().map(finish).collect();
    eventually("all lines were read", async || {
        let metrics = binary.metrics().await;
        assert!(metrics.sum("sluice_memory_held_bytes", "") < MOST * 4.0 / 3.0 * 1.1, "{metrics:?}");
        // A request that comes while the lines take all of the share is refused, and sent again. The end of a line
        // has to come after its beginning.
        for ((client, call), other) in clients.iter().zip(&mut calls).zip(&mut others) {
            if call.is_finished() {
                let answer = std::mem::replace(call, begin(client)).await.unwrap();
                assert!(is_about_the_budget(&answer), "{answer}");
            }
            if other.is_finished() {
                *other = finish(client);
            }
        }
        (metrics.dropped("memory") + metrics.dropped("not_json") >= 24.0).then_some(())
    })
    .await;
    assert!(binary.metrics().await.dropped("memory") >= 20.0);
    let grown = grown(&binary, before);
    assert!(grown < BUDGET, "grown by {grown} KiB");
    calls.into_iter().chain(others).for_each(|call| call.abort());
    end(binary, clients, neighbour).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_room_is_an_error_that_names_the_budget() {
    let (binary, neighbour) = start(&[("echo", vec!["echo"])]).await;
    let clients = sessions(&binary, "echo", 1).await;
    let answer = clients[0].call("big", json!({"bytes": 12_000_000})).await;
    assert!(is_about_the_budget(&answer), "{answer}");
    assert_eq!(answer["error"]["data"]["type"], "memory_full", "{answer}");
    assert_eq!(clients[0].text("echo", json!({"text": "goes on"})).await, "goes on");
    end(binary, clients, neighbour).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_for_children_that_do_not_read_hold_no_more_than_the_share_of_their_tenant() {
    let (binary, neighbour) = start(&[("deaf", vec!["no-read"]), ("echo", vec!["echo"])]).await;
    let clients = sessions(&binary, "deaf", 12).await;
    let before = proc::status(binary.pid(), "VmRSS");
    let text = "x".repeat(MUCH / 4);
    let (mut calls, mut refused) = (Vec::new(), 0);
    for client in clients.iter().cycle().take(72) {
        let message = json!({"jsonrpc": "2.0", "method": "notifications/x", "params": {"text": text}});
        let reply = client.post(&message.to_string()).await;
        match reply.status {
            202 => calls.push(()),
            503 => {
                assert!(reply.text.contains("limits.memory_budget"), "{reply:?}");
                assert!(reply.header("retry-after").is_some(), "{reply:?}");
                refused += 1;
            }
            _ => panic!("{reply:?}"),
        }
    }
    assert!((4..=14).contains(&calls.len()), "{} were taken, and {refused} refused", calls.len());
    let grown = grown(&binary, before);
    assert!(grown < BUDGET, "grown by {grown} KiB");
    end(binary, clients, neighbour).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_that_are_kept_hold_no_more_than_the_share_of_their_tenant() {
    let (binary, neighbour) = start(&[("echo", vec!["echo"])]).await;
    let mut clients = sessions(&binary, "echo", 20).await;
    let about = |number| {
        let params = json!({"number": number, "text": "x".repeat(3800)});
        json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": params}).to_string()
    };
    let lines: Vec<String> = (0..250).map(about).collect();
    let mut refused = 0;
    for client in &clients {
        let answer = client.call("raw", json!({"line": lines.join("\n")})).await;
        assert!(answer["result"].is_object() || is_about_the_budget(&answer), "{answer}");
        refused += usize::from(is_about_the_budget(&answer));
    }
    let metrics = binary.metrics().await;
    let held = metrics.sum("sluice_memory_held_bytes", "");
    assert!(held > MOST * 0.6 && held < MOST * 1.3, "{held}");
    assert!((6..=14).contains(&refused), "{refused}");
    // Those who were first have all of it, and the room is free again once they have read it. The stream that they read it
    // from is a connection more.
    clients[0].listen().await;
    for _ in 0..250 {
        clients[0].next_unsolicited().await;
    }
    eventually("the room is free", async || {
        (binary.metrics().await.sum("sluice_memory_held_bytes", "") < held - 750.0 * 1024.0).then_some(())
    })
    .await;
    end(binary, clients, neighbour).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_hold_no_more_than_the_share_of_their_tenant() {
    let (binary, neighbour) = start(&[("echo", vec!["echo"])]).await;
    let clients = sessions(&binary, "echo", 2).await;
    let subscribe = |number: usize| {
        let uri = format!("fixture://{number}/{}", "x".repeat(8000));
        json!({"jsonrpc": "2.0", "id": number, "method": "resources/subscribe", "params": {"uri": uri}}).to_string()
    };
    let mut refused = [0, 0];
    for (client, refused) in clients.iter().zip(&mut refused) {
        for batch in (0..1024).map(subscribe).collect::<Vec<_>>().chunks(64) {
            let reply = client.post(&format!("[{}]", batch.join(","))).await;
            *refused += reply.text.matches("limits.memory_budget").count();
        }
    }
    assert!(refused[0] == 0 && (400..=900).contains(&refused[1]), "{refused:?}");
    let held = binary.metrics().await.sum("sluice_memory_held_bytes", "");
    assert!(held > MOST * 0.8 && held < MOST * 1.3, "{held}");
    end(binary, clients, neighbour).await;
}
