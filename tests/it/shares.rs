//! What tenants, and principals of a tenant, share: whoever asks for all of it gets what is left for the others, and
//! where nobody else may ask, everything.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice::config::{Config, Isolation, PoolMode, Server};

use crate::harness::{Caller, Gateway, Reply, Request, fixture, hello, in_time, key, named};

/// A gateway for these servers, and a caller for each principal, given as tenant and subject.
async fn gateway<const N: usize>(
    servers: impl IntoIterator<Item = Server>,
    principals: [(&str, &str); N],
    set: impl FnOnce(&mut Config),
) -> (Gateway, [Caller; N]) {
    let mut keys = Vec::new();
    let gateway = Gateway::start_with(servers, |config| {
        keys = principals.iter().map(|(tenant, subject)| key(config, tenant, subject)).collect();
        set(config);
    })
    .await;
    let callers = std::array::from_fn(|at| gateway.with_key(&keys[at]));
    (gateway, callers)
}

async fn initialize(caller: &Caller) -> Reply {
    let message = json!({"jsonrpc": "2.0", "id": "i", "method": "initialize", "params": hello("2025-11-25")});
    caller.send(Request::post(&caller.path("/mcp"), message)).await
}

/// Opens sessions until one is refused: how many there are, and the error.
async fn until_refused(caller: &Caller) -> (usize, Value) {
    for opened in 0..100 {
        let error = initialize(caller).await.message()["error"].clone();
        if error.is_object() {
            return (opened, error);
        }
    }
    panic!("nothing bounds the sessions")
}

fn few(children: usize) -> Server {
    let mut server = fixture("echo");
    server.pool.max_children = children;
    server.pool.queue_timeout = Duration::from_millis(100);
    // An idle session keeps its child.
    server.keep_children = true;
    server
}

#[tokio::test]
async fn starts_that_hang_leave_another_tenant_its_turn() {
    let servers = [named("hangs", fixture("never-initialize")), named("well", fixture("echo"))];
    let (gateway, [ann, eve]) = gateway(servers, [("acme", "ann"), ("other", "eve")], |_| {}).await;
    let (ann, eve) = (ann.server("hangs"), eve.server("well"));
    let open = async || {
        let begin = Instant::now();
        let session = eve.streamable().await;
        let took = begin.elapsed();
        session.delete().await;
        took
    };
    open().await;
    let alone = open().await;
    let hanging: Vec<_> = (0..60)
        .map(|_| {
            let ann = ann.clone();
            tokio::spawn(async move { initialize(&ann).await })
        })
        .collect();
    gateway.until("starts hang", |metrics| metrics.sum("sluice_workers", "starting") >= 4.0).await;
    let beside = [open().await, open().await, open().await].into_iter().max().unwrap();
    println!("a session was opened in {alone:?} alone, and in {beside:?} at most beside 60 starts that hang");
    assert!(beside < alone + Duration::from_secs(2), "{beside:?} instead of {alone:?}");
    hanging.iter().for_each(tokio::task::JoinHandle::abort);
    gateway.kill().await;
}

#[tokio::test]
async fn a_tenant_leaves_places_sessions_and_spares_to_others_and_is_told_which_limit_it_is() {
    let tenants = [("acme", "ann"), ("other", "eve")];
    let (with_places, [ann, eve]) = gateway([few(4)], tenants, |_| {}).await;
    let (opened, error) = until_refused(&ann).await;
    assert_eq!((opened, &error["data"]["type"]), (2, &json!("pool_full")), "{error}");
    let text = error["message"].as_str().unwrap();
    assert!(text.contains("your tenant holds 2 of 4 children (pool.max_children)"), "{text}");
    assert!(!text.contains("other\"") && !text.contains("eve"), "{text}");
    assert_eq!(until_refused(&eve).await.0, 1);
    with_places.finish().await;

    let (with_sessions, [ann, eve]) = gateway([fixture("echo")], tenants, |config| {
        config.sessions.max = 4;
        config.http.keep_alive = Duration::from_millis(20);
    })
    .await;
    // Sessions that are in use: an unused one would make room.
    let in_use = [ann.streamable().await, ann.streamable().await];
    let hang = json!({"jsonrpc": "2.0", "id": "hung", "method": "tools/call", "params": {"name": "hang"}});
    let calls = [in_use[0].open(&hang).await, in_use[1].open(&hang).await];
    let (opened, error) = until_refused(&ann).await;
    assert_eq!((opened, &error["data"]["type"]), (0, &json!("sessions_full")), "{error}");
    let text = error["message"].as_str().unwrap();
    assert!(text.contains("your tenant holds 2 of 4 sessions (sessions.max)"), "{text}");
    assert_eq!(initialize(&eve).await.message()["error"], Value::Null);
    drop(calls);
    with_sessions.finish().await;

    let mut server = few(4);
    server.pool.mode = PoolMode::Static;
    let (with_spares, [ann, eve]) = gateway([server], tenants, |_| {}).await;
    with_spares.until("spares", |metrics| metrics.sum("sluice_spare_children", "") == 4.0).await;
    let (opened, error) = until_refused(&ann).await;
    assert_eq!((opened, &error["data"]["type"]), (2, &json!("pool_full")), "{error}");
    assert_eq!(until_refused(&eve).await.0, 1);
    with_spares.finish().await;
}

#[tokio::test]
async fn a_principal_leaves_places_to_others_of_its_tenant() {
    let set = |config: &mut Config| {
        let acme = config.tenants.get_mut("acme").unwrap();
        (acme.max_children, acme.max_sessions) = (Some(4), Some(8));
    };
    let (gateway, [ann, bob]) = gateway([few(1000)], [("acme", "ann"), ("acme", "bob")], set).await;
    let (opened, error) = until_refused(&ann).await;
    assert_eq!((opened, &error["data"]["type"]), (2, &json!("tenant_full")), "{error}");
    let text = error["message"].as_str().unwrap();
    assert!(text.contains("you hold 2 of 4 children (tenants.acme.limits.max_children)"), "{text}");
    assert_eq!(until_refused(&bob).await.0, 1);
    gateway.finish().await;
}

#[tokio::test]
async fn who_is_alone_has_everything() {
    let (gateway, [ann]) = gateway([few(4)], [("acme", "ann")], |config| config.spawn_concurrency = 1).await;
    let (opened, error) = until_refused(&ann).await;
    assert_eq!(opened, 4);
    let text = error["message"].as_str().unwrap();
    assert!(text.contains("has all its 4 children in use (pool.max_children)"), "{text}");
    gateway.finish().await;
    // A server that no other tenant may use.
    let servers = [few(4), named("all", few(4))];
    let only = Some(vec!["all".parse().unwrap()]);
    let set = |config: &mut Config| config.tenants.get_mut("other").unwrap().servers = only;
    let (gateway, [ann, eve]) = self::gateway(servers, [("acme", "ann"), ("other", "eve")], set).await;
    assert_eq!(until_refused(&ann.server("fixture")).await.0, 4);
    assert_eq!(until_refused(&ann.server("all")).await.0, 2);
    assert_eq!(in_time("eve has one", until_refused(&eve.server("all"))).await.0, 1);
    gateway.finish().await;
}

/// Opens a session of a client with this version and these capabilities: the error, or null.
async fn open_as(caller: &Caller, version: &str, capabilities: &Value) -> Value {
    let client = json!({"name": "a client", "version": "1"});
    let params = json!({"protocolVersion": version, "capabilities": capabilities, "clientInfo": client});
    let message = json!({"jsonrpc": "2.0", "id": "i", "method": "initialize", "params": params});
    caller.send(Request::post(&caller.path("/mcp"), message)).await.message()["error"].clone()
}

#[tokio::test]
async fn what_clients_say_of_themselves_starts_no_other_child_and_variants_count_for_who_asks() {
    let mut server = few(8);
    server.isolation = Isolation::Shared;
    let (gateway, [ann, eve]) = gateway([server], [("acme", "ann"), ("other", "eve")], |_| {}).await;
    for number in 0..12 {
        let own = json!({"experimental": {format!("x-{number}"): {"token": "secret"}}, "sampling": {"x": number}});
        assert_eq!(open_as(&ann, "2025-11-25", &own).await, Value::Null);
        assert_eq!(open_as(&ann, &format!("2099-01-{number}"), &own).await, Value::Null);
    }
    assert_eq!(gateway.metrics().await.children(), 1.0);
    let mut session = ann.streamable().await;
    let told: Value = serde_json::from_str(&session.call("client", json!({})).await).unwrap();
    assert!(!told.to_string().contains("secret"), "{told}");
    let started = gateway.metrics().await.children();
    // Other capabilities, which the specification names: another child each, of which others have what they need.
    let mut variants = Vec::new();
    for form in [json!({}), json!({"applyDefaults": true}), json!({"applyDefaults": false})] {
        for sampling in [json!({"tools": {}}), json!({"context": {}}), json!({"tools": {}, "context": {}})] {
            variants.push(json!({"elicitation": {"form": form}, "sampling": sampling}));
        }
    }
    let mut refusals = Vec::new();
    for variant in &variants {
        let error = open_as(&ann, "2025-11-25", variant).await;
        refusals.extend(error.is_object().then_some(error));
    }
    let error = refusals.first().expect("some are refused");
    assert_eq!(error["data"]["type"], "pool_full", "{error}");
    assert!(error["message"].as_str().unwrap().contains("your tenant holds"), "{error}");
    assert!(gateway.metrics().await.children() < 8.0, "{started} before");
    assert_eq!(open_as(&eve, "2024-11-05", &json!({})).await, Value::Null, "another tenant has another child");
    gateway.finish().await;
}
