//! Sessions that are spread over several children: evenly, whatever becomes of one of those.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use sluice::config::{Isolation, Server};

use crate::harness::{Gateway, Streamable, fixture, in_time};
use crate::proc;
use crate::scene::switchable;

fn replicated(mut server: Server, replicas: usize) -> Server {
    server.isolation = Isolation::Shared;
    server.pool.replicas = replicas;
    server
}

async fn pid(client: &mut Streamable) -> u32 {
    client.call("pid", json!({})).await.parse().unwrap()
}

/// How many of these are on each child.
async fn spread(clients: &mut [Streamable]) -> BTreeMap<u32, usize> {
    let mut spread = BTreeMap::new();
    for client in clients {
        *spread.entry(pid(client).await).or_default() += 1;
    }
    spread
}

/// Sessions that all begin at once.
async fn burst(gateway: &Gateway, sessions: usize) -> Vec<Streamable> {
    let tasks: Vec<_> = (0..sessions)
        .map(|_| {
            let caller = (**gateway).clone();
            tokio::spawn(async move { caller.streamable().await })
        })
        .collect();
    let mut clients = Vec::new();
    for task in tasks {
        clients.push(in_time("a session", task).await.unwrap());
    }
    clients
}

#[tokio::test]
async fn a_session_stays_and_what_nobody_needs_ends() {
    let mut server = replicated(fixture("echo"), 3);
    server.pool.idle_timeout = Duration::from_millis(100);
    let gateway = Gateway::start(server).await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(gateway.streamable().await);
    }
    let before = spread(&mut clients).await;
    assert!(before.len() == 3 && before.values().all(|sessions| *sessions == 2), "{before:?}");
    assert_eq!(spread(&mut clients).await, before);
    for client in &clients {
        client.delete().await;
    }
    gateway.until("nobody needs them", |metrics| metrics.children() == 0.0).await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_burst_is_spread_evenly_and_so_it_is_when_one_has_died() {
    let gateway = Gateway::start(replicated(fixture("slow-start 300"), 3)).await;
    let mut clients = burst(&gateway, 30).await;
    let before = spread(&mut clients).await;
    assert!(before.len() == 3 && before.values().all(|sessions| *sessions == 10), "{before:?}");
    let killed = *before.keys().next().unwrap();
    proc::signal(killed, Signal::KILL);
    gateway.until("it is replaced", |metrics| metrics.sum("sluice_children_restarts_total", "") == 1.0).await;
    let after = spread(&mut clients).await;
    assert!(after.len() == 3 && after.values().all(|sessions| *sessions == 10), "{before:?}, then {after:?}");
    assert!(!after.contains_key(&killed));
    gateway.finish().await;
}

#[tokio::test]
async fn who_would_be_on_one_that_does_not_start_is_on_another() {
    let (server, mode) = switchable(&["echo"]);
    let gateway = Gateway::start(replicated(server, 2)).await;
    let mut clients = vec![gateway.streamable().await];
    mode.set(&["exit", "3"]);
    clients.extend(burst(&gateway, 3).await);
    let pids = spread(&mut clients).await;
    assert_eq!(pids.values().copied().collect::<Vec<_>>(), [4], "{pids:?}");
    mode.set(&["echo"]);
    clients.extend(burst(&gateway, 4).await);
    let pids = spread(&mut clients).await;
    assert_eq!(pids.values().copied().collect::<Vec<_>>(), [4, 4], "{pids:?}");
    gateway.finish().await;
}
