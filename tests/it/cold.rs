//! Starts that take long, such as that of an `npx` which downloads its server: a client that does not wait for the end
//! finds the start where it is when it comes back, and nobody else is kept waiting for it.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sluice::config::Server;

use crate::harness::{Caller, Gateway, Request, Sse, Streamable, eventually, fixture_path, hello, key, named};

/// A server that does not read before there is a file `warm` in the folder.
fn cold(folder: &Path) -> Server {
    let script = format!("until test -e warm; do sleep 0.02; done; exec {} echo", fixture_path().display());
    let mut server = Server::new("cold".parse().unwrap(), "/bin/sh", vec!["-c".to_owned(), script]);
    server.cwd = Some(folder.to_owned());
    server.sandbox.read.push(fixture_path());
    server
}

fn warm(folder: &Path) {
    std::fs::write(folder.join("warm"), "").unwrap();
}

fn initialize(caller: &Caller, params: &Value) -> Request {
    Request::post(&caller.path("/mcp"), json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}))
}

/// Clients that ask for a session, and hang up when their children have been started.
async fn hang_up(gateway: &Gateway, caller: &Caller, clients: &[Value]) {
    let before = gateway.metrics().await.sum("sluice_children_spawned_total", "");
    let mut connections = Vec::new();
    for params in clients {
        connections.push(caller.ask(initialize(caller, params)).await);
    }
    let started = before + f64::from(u32::try_from(clients.len()).unwrap());
    gateway.until("they are started", |m| m.sum("sluice_children_spawned_total", "") == started).await;
    drop(connections);
    gateway.until("the clients are gone", |m| m.sessions() == 0.0).await;
}

/// The client comes back, while its server is still cold or not.
async fn come_back(gateway: &Gateway, caller: &Caller, folder: &Path, is_cold: bool) -> Streamable {
    let warmed = async {
        if is_cold {
            gateway.until("the client is back", |m| m.sessions() == 1.0).await;
            warm(folder);
        }
    };
    tokio::join!(Streamable::initialize(caller, "2025-06-18"), warmed).0
}

#[tokio::test]
async fn a_start_goes_on_though_its_client_hangs_up_and_is_there_for_it_when_it_comes_back() {
    for is_cold in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let gateway = Gateway::start(cold(folder.path())).await;
        hang_up(&gateway, &gateway, &[hello("2025-06-18")]).await;
        if !is_cold {
            warm(folder.path());
            gateway.until("it is there, for nobody", |m| m.sum("sluice_workers", "ready") == 1.0).await;
        }
        let mut client = come_back(&gateway, &gateway, folder.path(), is_cold).await;
        assert_eq!(gateway.metrics().await.sum("sluice_children_spawned_total", ""), 1.0);
        assert!(client.call("client", json!({})).await.contains("\"2025-06-18\""), "it has heard the client's words");
        // From now on it is as any other child of a session.
        assert_eq!(client.call("echo", json!({"text": "here"})).await, "here");
        client.delete().await;
        gateway.until("it goes with its session", |m| m.children() == 0.0).await;
        gateway.finish().await;
    }
}

#[tokio::test]
async fn a_client_of_http_sse_finds_its_start_too() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(cold(folder.path())).await;
    for attempt in 0..2 {
        let mut client = Sse::open(&gateway).await;
        client.post(json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello("2024-11-05")})).await;
        gateway.until("a child is there", |m| m.children() == 1.0).await;
        if attempt == 0 {
            drop(client);
            gateway.until("the client is gone", |m| m.sessions() == 0.0).await;
        } else {
            warm(folder.path());
            assert_eq!(client.message().await["result"]["protocolVersion"], "2024-11-05");
        }
    }
    assert_eq!(gateway.metrics().await.sum("sluice_children_spawned_total", ""), 1.0);
    gateway.finish().await;
}

#[tokio::test]
async fn a_start_that_was_left_is_for_its_client_only() {
    let (folder, mut keys) = (tempfile::tempdir().unwrap(), Vec::new());
    let gateway = Gateway::start_with([cold(folder.path())], |config| {
        keys = vec![key(config, "acme", "ann"), key(config, "acme", "bob")];
    })
    .await;
    let (ann, bob) = (gateway.with_key(&keys[0]), gateway.with_key(&keys[1]));
    let (words, mut others) = (hello("2025-06-18"), hello("2025-06-18"));
    others["clientInfo"]["name"] = "another".into();
    hang_up(&gateway, &ann, std::slice::from_ref(&words)).await;
    warm(folder.path());
    for (caller, words, spawned) in [(&bob, &words, 2.0), (&ann, &others, 3.0), (&ann, &words, 3.0)] {
        assert_eq!(caller.send(initialize(caller, words)).await.status, 200);
        assert_eq!(gateway.metrics().await.sum("sluice_children_spawned_total", ""), spawned);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_start_that_was_left_makes_room_for_who_is_there() {
    // The ceiling of the pool, and that of the tenant over all its servers.
    for of_tenant in [false, true] {
        let (folder, mut keys) = (tempfile::tempdir().unwrap(), Vec::new());
        let mut server = cold(folder.path());
        server.keep_children = true;
        server.pool.max_children = if of_tenant { 100 } else { 1 };
        let servers = [named("one", server.clone()), named("two", server)];
        let gateway = Gateway::start_with(servers, |config| {
            keys = vec![key(config, "acme", "ann"), key(config, "acme", "bob")];
            config.tenants.values_mut().for_each(|tenant| tenant.max_children = of_tenant.then_some(1));
        })
        .await;
        let (ann, bob) = (gateway.with_key(&keys[0]).server("one"), gateway.with_key(&keys[1]));
        let bob = bob.server(if of_tenant { "two" } else { "one" });
        hang_up(&gateway, &ann, &[hello("2025-06-18")]).await;
        come_back(&gateway, &bob, folder.path(), true).await;
        assert_eq!(gateway.metrics().await.sum("sluice_children_spawned_total", ""), 2.0);
        gateway.until("the other is gone", |m| m.children() == 1.0).await;
        gateway.finish().await;
    }
}

#[tokio::test]
async fn what_a_start_has_asked_its_client_is_refused_when_that_hangs_up() {
    let folder = tempfile::tempdir().unwrap();
    let script =
        r#"echo '{"jsonrpc":"2.0","id":"q","method":"roots/list"}'; while read line; do echo "$line" >> heard; done"#;
    let mut server = Server::new("cold".parse().unwrap(), "/bin/sh", vec!["-c".to_owned(), script.to_owned()]);
    server.cwd = Some(folder.path().to_owned());
    server.sandbox.write.push(folder.path().to_owned());
    let gateway = Gateway::start(server).await;
    let connection = gateway.ask(initialize(&gateway, &hello("2025-06-18"))).await;
    gateway.until("it has asked", |m| m.sum("sluice_messages_total", "to_client") == 1.0).await;
    drop(connection);
    let error = eventually("it hears that nobody answers", async || {
        let heard = std::fs::read_to_string(folder.path().join("heard")).unwrap_or_default();
        let messages = heard.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        messages.into_iter().find(|message| message["id"] == "q")
    })
    .await;
    assert!(error["error"].is_object(), "{error}");
    gateway.finish().await;
}

#[tokio::test]
async fn what_nobody_comes_back_for_ends() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = cold(folder.path());
    server.pool.idle_timeout = Duration::from_millis(300);
    server.limits.start_timeout = Duration::from_secs(3);
    let gateway = Gateway::start(server).await;
    // One that does not answer in its time.
    hang_up(&gateway, &gateway, &[hello("2025-06-18")]).await;
    assert_eq!(gateway.metrics().await.children(), 1.0);
    gateway.until("it is over", |m| m.children() == 0.0).await;
    assert_eq!(gateway.metrics().await.sum("sluice_children_exits_total", "start_failed"), 1.0);
    // And one that does, too late.
    hang_up(&gateway, &gateway, &[hello("2025-06-18")]).await;
    warm(folder.path());
    gateway.until("it is over", |m| m.children() == 0.0).await;
    assert_eq!(gateway.metrics().await.sum("sluice_children_exits_total", "stopped"), 1.0);
    gateway.finish().await;
}

#[tokio::test]
async fn a_client_that_always_hangs_up_leaves_only_so_many_starts() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = cold(folder.path());
    server.pool.idle_timeout = Duration::from_secs(3600);
    let gateway = Gateway::start_with([server], |config| config.spawn_concurrency = 100).await;
    let with_name = |number: usize| {
        let mut words = hello("2025-06-18");
        words["clientInfo"]["name"] = format!("client {number}").into();
        words
    };
    hang_up(&gateway, &gateway, &(0..12).map(with_name).collect::<Vec<_>>()).await;
    gateway.until("the others have ended", |m| m.children() == 8.0).await;
    // They go when the gateway goes.
    gateway.finish().await;
}
