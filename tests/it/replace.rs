//! Another configuration is put in force while clients call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};
use sluice::config::{Config, Jwt, JwtKey, PoolMode, Server};
use tokio::task::JoinHandle;

use crate::harness::{Caller, Gateway, Request, Streamable, eventually, fixture, hello, key, named};

/// How often one configuration takes the place of the other.
const REPLACEMENTS: usize = 20;

fn servers() -> [Server; 2] {
    let mut changing = named("changing", fixture("echo"));
    changing.pool.mode = PoolMode::Dynamic;
    (changing.pool.min_spare, changing.pool.max_spare) = (1, 1);
    [named("stable", fixture("echo")), changing]
}

/// Makes it the first configuration or the second. Both know the keys `kept` and `small`, the first alone knows
/// `removed`; the tenant of `small` may have as many sessions as the version says; the server `changing` is told the
/// version.
fn decide(config: &mut Config, version: usize) -> [String; 3] {
    config.auth.keys.clear();
    let keys =
        [("acme", "kept"), ("small", "one"), ("acme", "removed")].map(|(tenant, name)| key(config, tenant, name));
    config.auth.keys.truncate(4 - version);
    config.tenants.get_mut("small").unwrap().max_sessions = Some(version);
    let changing = Arc::make_mut(config.servers.get_mut("changing").unwrap());
    changing.env.insert("VERSION".to_owned(), version.to_string().into());
    keys
}

fn configuration(version: usize) -> Config {
    let mut config = Config::for_servers(servers());
    decide(&mut config, version);
    config
}

/// What a session's child was told, and its process id.
async fn child(client: &mut Streamable) -> (String, String) {
    let env: Value = serde_json::from_str(&client.call("env", json!({})).await).unwrap();
    (env["VERSION"].as_str().unwrap().to_owned(), client.call("pid", json!({})).await)
}

async fn initialize(caller: &Caller) -> crate::harness::Reply {
    let message = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello("2025-11-25")});
    caller.send(Request::post(&caller.path("/mcp"), message)).await
}

/// Clients that call until they are stopped: on sessions that they have from the beginning, and on new ones.
struct Load {
    is_over: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn begin(caller: &Caller) -> Self {
        let mut load = Self { is_over: Arc::default(), calls: Arc::default(), clients: Vec::new() };
        for server in ["stable", "changing"] {
            let caller = caller.server(server);
            let (is_over, calls, from) = (Arc::clone(&load.is_over), Arc::clone(&load.calls), caller.clone());
            load.clients.push(tokio::spawn(async move {
                let (mut sse, mut streamable) = (from.sse().await, from.streamable().await);
                while !is_over.load(Ordering::Relaxed) {
                    assert_eq!(sse.call("echo", json!({"text": "over SSE"})).await, "over SSE");
                    assert_eq!(streamable.call("echo", json!({"text": "over HTTP"})).await, "over HTTP");
                    calls.fetch_add(2, Ordering::Relaxed);
                }
            }));
            let (is_over, calls) = (Arc::clone(&load.is_over), Arc::clone(&load.calls));
            load.clients.push(tokio::spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    let (mut sse, mut streamable) = (caller.sse().await, caller.streamable().await);
                    assert_eq!(sse.call("echo", json!({"text": "over SSE"})).await, "over SSE");
                    assert_eq!(streamable.call("echo", json!({"text": "over HTTP"})).await, "over HTTP");
                    assert_eq!(streamable.delete().await.status, 200);
                    calls.fetch_add(2, Ordering::Relaxed);
                }
            }));
        }
        load
    }

    /// Waits until so many more calls were answered.
    async fn go_on(&self, calls: usize) {
        let target = self.calls.load(Ordering::Relaxed) + calls;
        eventually("the clients go on", async || {
            let failed = self.clients.iter().any(JoinHandle::is_finished);
            (failed || self.calls.load(Ordering::Relaxed) >= target).then_some(())
        })
        .await;
    }

    async fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.expect("a call failed that is allowed by both configurations");
        }
    }
}

#[tokio::test]
async fn a_snapshot_is_replaced_under_load() {
    let mut keys = Default::default();
    let gateway = Gateway::start_with(servers(), |config| keys = decide(config, 1)).await;
    let [kept, small, removed] = keys;
    let (kept, small, removed) =
        (gateway.with_key(&kept), gateway.with_key(&small).server("stable"), gateway.with_key(&removed));
    let (removed, changing) = (removed.server("stable"), kept.server("changing"));
    let mut first = changing.streamable().await;
    let at_first = child(&mut first).await;
    assert_eq!(at_first.0, "1");
    let load = Load::begin(&kept);
    let mut lost = None;
    for round in 0..REPLACEMENTS {
        let version = 2 - round % 2;
        if version == 2 {
            let client = removed.streamable().await;
            let stream = client.stream().await;
            lost = Some((client, stream));
        }
        gateway.replace(configuration(version)).await.unwrap();
        assert_eq!(initialize(&removed).await.status, if version == 2 { 401 } else { 200 });
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
        let (client, stream) = lost.as_mut().unwrap();
        assert_eq!(client.send(call).await.status, if version == 2 { 401 } else { 404 });
        while stream.event().await.is_some() {}
        let mut sessions = Vec::new();
        for _ in 0..=version {
            sessions.push(small.streamable().await);
        }
        let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
        assert_eq!(sessions.remove(0).send(ping).await.status, 404, "the first has made room for one too many");
        for session in sessions {
            assert_eq!(session.delete().await.status, 200);
        }
        let mut new = changing.streamable().await;
        assert_eq!(child(&mut new).await.0, version.to_string());
        assert_eq!(new.delete().await.status, 200);
        assert_eq!(child(&mut first).await, at_first, "an old session goes on with its child");
        load.go_on(4).await;
    }
    load.end().await;
    assert_eq!(first.delete().await.status, 200);
    // The pools that were replaced are gone with their sessions: what is left is the spare of the current one.
    gateway.until("one spare is left", |metrics| metrics.children() - metrics.sessions() == 1.0).await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_configuration_that_cannot_be_put_in_force_changes_nothing() {
    let mut keys = Default::default();
    let gateway = Gateway::start_with(servers(), |config| keys = decide(config, 1)).await;
    let removed = gateway.with_key(&keys[2]).server("changing");
    let mut client = removed.streamable().await;
    let before = child(&mut client).await;
    let mut config = configuration(2);
    let key = JwtKey::Pem("/there/is/no/such/key.pem".into());
    config.auth.jwt = Some(Jwt::new(key, jsonwebtoken::Algorithm::RS256, "issuer", "audience"));
    assert!(gateway.replace(config).await.is_err());
    assert_eq!(child(&mut client).await, before);
    let mut new = removed.streamable().await;
    assert_eq!(child(&mut new).await.0, "1");
    gateway.finish().await;
}
