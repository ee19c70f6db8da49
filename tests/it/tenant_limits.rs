//! What all children of a tenant may use together. Whoever outgrows it is told so; another tenant notices nothing.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sluice::config::{Config, Isolation, PoolMode, Resources, Restart, Server, Tenant};

use crate::harness::{Caller, Gateway, Request, Streamable, eventually, fixture, fixture_path, hello, key, named};

/// The keys of two subjects of `acme` and of one of `umbrella`, on a gateway where `acme` has limits.
async fn gateway(servers: impl IntoIterator<Item = Server>, set: impl FnOnce(&mut Tenant)) -> (Gateway, [Caller; 3]) {
    let mut keys = Vec::new();
    let gateway = Gateway::start_with(servers, |config: &mut Config| {
        let holders = [("acme", "ann"), ("acme", "bob"), ("umbrella", "eve")];
        keys = holders.map(|(tenant, subject)| key(config, tenant, subject)).to_vec();
        set(config.tenants.get_mut("acme").unwrap());
    })
    .await;
    let callers = [0, 1, 2].map(|index: usize| gateway.with_key(&keys[index]));
    (gateway, callers)
}

/// A server that becomes greedy once there is a file with the name of its tenant's subject: the first `echo` says it.
fn greedy(folder: &Path, greed: &str) -> Server {
    let fixture = fixture_path();
    let script = format!(
        "(until test -e go-$$; do sleep 0.02; done; {greed}) >/dev/null </dev/null & exec {} echo",
        fixture.display()
    );
    let mut server = Server::new("greedy".parse().unwrap(), "/bin/sh", vec!["-c".to_owned(), script]);
    server.cwd = Some(folder.to_owned());
    server.sandbox.read.push(fixture);
    server
}

async fn pid(session: &mut Streamable) -> u32 {
    session.call("pid", json!({})).await.parse().unwrap()
}

/// Lets the children of two sessions of a tenant grow, the second more than the first. Returns what the second is told.
async fn outgrown(small: &str, large: &str, limits: Resources) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let servers = [named("small", greedy(folder.path(), small)), named("large", greedy(folder.path(), large))];
    let (gateway, [ann, bob, eve]) = gateway(servers, |tenant| tenant.limits = limits).await;
    let mut first = ann.server("small").streamable().await;
    let mut second = bob.server("large").streamable().await;
    // Another tenant's server uses as much, and that is no trouble to anybody.
    let mut third = eve.server("large").streamable().await;
    let pids = [pid(&mut first).await, pid(&mut second).await, pid(&mut third).await];
    let params = json!({"name": "hang", "arguments": {}});
    let call = second.send(json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}));
    let grow = async {
        for pid in [pids[2], pids[0], pids[1]] {
            std::fs::write(folder.path().join(format!("go-{pid}")), "").unwrap();
        }
    };
    let (reply, ()) = tokio::join!(call, grow);
    let message = reply.text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or(&reply.text);
    let answer: Value = serde_json::from_str(message).unwrap();
    assert_eq!(answer["error"]["data"]["type"], "server_over_limit", "{answer}");
    assert_eq!([pid(&mut first).await, pid(&mut third).await], [pids[0], pids[2]], "{answer}");
    let text = answer["error"]["message"].as_str().unwrap();
    for other in ["umbrella", "eve", "small", &pids[0].to_string()] {
        assert!(!text.contains(other), "{text}");
    }
    // The session goes on with another child.
    assert_ne!(pid(&mut second).await, pids[1]);
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("sluice_children_over_limit_total", "server=\"large\""), 1.0);
    assert_eq!(metrics.sum("sluice_children_over_limit_total", "limit=\"tenant_"), 1.0);
    gateway.finish().await;
    answer
}

#[tokio::test]
async fn the_largest_child_of_a_tenant_that_outgrows_its_memory_is_ended() {
    let limits = Resources { memory: Some(120 << 20), ..Resources::default() };
    let grow = |bytes: usize| format!("{{ head -c {bytes} /dev/zero; sleep 60; }} | tail");
    let answer = outgrown(&grow(30_000_000), &grow(110_000_000), limits).await;
    let text = answer["error"]["message"].as_str().unwrap();
    assert!(text.contains("more memory than 120MiB together (tenants.acme.limits.memory)"), "{text}");
}

#[tokio::test]
async fn the_largest_child_of_a_tenant_that_outgrows_its_processes_is_ended() {
    let limits = Resources { processes: Some(70), ..Resources::default() };
    let grow = |count: usize| format!("i=0; while test $i -lt {count}; do sleep 60 & i=$((i+1)); done; wait");
    let answer = outgrown(&grow(20), &grow(60), limits).await;
    let text = answer["error"]["message"].as_str().unwrap();
    assert!(text.contains("more processes and threads than 70 together (tenants.acme.limits.processes)"), "{text}");
}

#[tokio::test]
async fn an_idle_child_goes_before_its_tenant_outgrows_its_memory() {
    let folder = tempfile::tempdir().unwrap();
    let grow = "{ head -c 122000000 /dev/zero; sleep 60; } | tail";
    let (gateway, [ann, bob, _]) = gateway([named("large", greedy(folder.path(), grow))], |tenant| {
        tenant.limits.memory = Some(128 << 20);
    })
    .await;
    let (mut first, mut second) = (ann.server("large").streamable().await, bob.server("large").streamable().await);
    let pids = [pid(&mut first).await, pid(&mut second).await];
    std::fs::write(folder.path().join(format!("go-{}", pids[0])), "").unwrap();
    gateway
        .until("the idle one is gone", |metrics| {
            metrics.sum("sluice_idle_children_ended_total", "limit=\"memory\"") >= 1.0
        })
        .await;
    assert_eq!(pid(&mut second).await, pids[1], "the longest idle one was enough");
    assert_ne!(pid(&mut first).await, pids[0], "its session goes on");
    assert_eq!(gateway.metrics().await.sum("sluice_children_over_limit_total", ""), 0.0);
    gateway.finish().await;
}

#[tokio::test]
async fn a_tenant_has_no_more_children_than_it_may() {
    for mode in [PoolMode::Ondemand, PoolMode::Dynamic] {
        let mut one = fixture("echo");
        one.pool.queue_timeout = Duration::from_millis(300);
        one.pool.mode = mode;
        // An idle session holds its place.
        one.keep_children = true;
        let servers = [named("one", one.clone()), named("two", one)];
        let (gateway, [ann, bob, eve]) = gateway(servers, |tenant| tenant.max_children = Some(2)).await;
        let (first, mut second) = (ann.server("one").streamable().await, bob.server("two").streamable().await);
        let initialize = json!({"jsonrpc": "2.0", "id": "i", "method": "initialize", "params": hello("2025-11-25")});
        let ask = async || ann.send(Request::post("/servers/one/mcp", initialize.clone())).await;
        let refused = ask().await;
        let error = refused.assert_error(200, -32003, "the server")["error"].clone();
        assert_eq!(error["data"]["retryAfter"], 1);
        assert_eq!((&error["data"]["type"], &error["data"]["retryable"]), (&json!("tenant_full"), &json!(true)));
        let text = error["message"].as_str().unwrap();
        assert!(text.contains("all its 2 children in use (tenants.acme.limits.max_children)"), "{text}");
        assert_eq!(eve.server("one").streamable().await.call("echo", json!({"text": "free"})).await, "free");
        // A child that crashed leaves its place to the one that is started instead of it.
        second.request("tools/call", json!({"name": "crash", "arguments": {}})).await;
        assert_eq!(second.call("echo", json!({"text": "again"})).await, "again");
        first.delete().await;
        eventually("the next is let in", async || ask().await.json()["result"].is_object().then_some(())).await;
        gateway.finish().await;
    }
}

#[tokio::test]
async fn sessions_that_wait_for_one_server_take_nothing_from_their_tenant_on_another() {
    let mut server = fixture("echo");
    server.pool.max_children = 1;
    server.keep_children = true;
    server.pool.queue_timeout = Duration::from_secs(60);
    let mut other = fixture("echo");
    other.pool.queue_timeout = Duration::from_secs(1);
    let servers = [named("a", server), named("b", other)];
    let (gateway, [ann, bob, eve]) = gateway(servers, |tenant| tenant.max_children = Some(2)).await;
    let holder = eve.server("a").streamable().await;
    let waiting: Vec<_> = [&ann, &bob]
        .map(|caller| caller.server("a"))
        .into_iter()
        .map(|caller| tokio::spawn(async move { caller.streamable().await.delete().await }))
        .collect();
    gateway.until("two wait", |metrics| metrics.sum("sluice_pool_queue", "") == 2.0).await;
    // The tenant has no child at all, and may have two.
    let mut free = ann.server("b").streamable().await;
    assert_eq!(free.call("echo", json!({"text": "free"})).await, "free");
    free.delete().await;
    holder.delete().await;
    for waits in waiting {
        waits.await.unwrap();
    }
    gateway.finish().await;
}

/// Requests of a tenant that may wait for a child where another tenant may ask, as docs/BOUNDS.md says.
const QUEUE: usize = 1024;

#[tokio::test]
async fn so_many_wait_for_a_child_of_their_tenant_and_the_next_is_told_at_once() {
    let mut server = fixture("echo");
    server.pool.queue_timeout = Duration::from_secs(300);
    server.keep_children = true;
    let mut keys = Vec::new();
    let gateway = Gateway::start_with([server], |config: &mut Config| {
        keys = (0..8).map(|number| key(config, "acme", &format!("user-{number}"))).collect();
        key(config, "another", "eve");
        config.tenants.get_mut("acme").unwrap().max_children = Some(1);
        config.sessions.max = 16 * QUEUE;
        config.sessions.max_per_principal = 2 * QUEUE;
    })
    .await;
    let callers: Vec<_> = keys.iter().map(|key| gateway.with_key(key)).collect();
    let holder = callers[0].streamable().await;
    let initialize = json!({"jsonrpc": "2.0", "id": "i", "method": "initialize", "params": hello("2025-11-25")});
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..=QUEUE {
        let (caller, initialize) = (callers[number % callers.len()].clone(), initialize.clone());
        waiting.spawn(async move { caller.send(Request::post("/mcp", initialize)).await });
    }
    // One too many: this answer comes though nothing has become free.
    let refused = crate::harness::in_time("the answer to one too many", waiting.join_next()).await.unwrap().unwrap();
    let error = refused.assert_error(200, -32003, "the server")["error"].clone();
    assert_eq!(error["data"]["type"], "tenant_full", "{error}");
    waiting.shutdown().await;
    holder.delete().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_shared_child_without_a_session_makes_room_for_another_of_its_tenant() {
    for isolation in [Isolation::Principal, Isolation::Tenant] {
        let mut one = fixture("echo");
        one.isolation = isolation;
        one.pool.idle_timeout = Duration::from_secs(3600);
        let servers = [named("one", one.clone()), named("two", one)];
        let (gateway, [ann, bob, eve]) = gateway(servers, |tenant| tenant.max_children = Some(2)).await;
        let (mut other, mut first) = (eve.server("one").streamable().await, ann.server("one").streamable().await);
        let (of_eve, used) = (pid(&mut other).await, pid(&mut first).await);
        bob.server("two").streamable().await.delete().await;
        other.delete().await;
        // Of the two that the tenant may have, one is used, and one is not.
        // Nobody shares the latter with a client that asks for something else.
        let mut third = Streamable::initialize(&bob.server("two"), "2025-03-26").await;
        assert_eq!(third.call("echo", json!({"text": "free"})).await, "free");
        assert_eq!(pid(&mut first).await, used, "what is used stays");
        assert_eq!(pid(&mut eve.server("one").streamable().await).await, of_eve, "what is another's stays");
        gateway.finish().await;
    }
}

/// The soft and the hard limit of a process, in the words of /proc.
fn limits_of(pid: u32, name: &str) -> [String; 2] {
    let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let mut fields = line.split_ascii_whitespace().map(str::to_owned);
    [fields.next().unwrap(), fields.next().unwrap()]
}

#[tokio::test]
async fn each_process_has_the_lower_limit_of_server_and_tenant() {
    let mut server = fixture("echo");
    server.limits.resources.open_files = Some(300);
    server.limits.resources.file_size = Some(1 << 20);
    let mut shared = server.clone();
    shared.isolation = Isolation::Shared;
    let set = |tenant: &mut Tenant| {
        tenant.limits.open_files = Some(200);
        tenant.limits.file_size = Some(2 << 20);
        tenant.limits.cpu_time = Some(Duration::from_secs(1000));
    };
    let (gateway, [ann, _, eve]) = gateway([named("own", server), named("shared", shared)], set).await;
    let theirs = pid(&mut ann.server("own").streamable().await).await;
    assert_eq!(limits_of(theirs, "Max open files"), ["200", "200"]);
    assert_eq!(limits_of(theirs, "Max file size"), ["1048576", "1048576"]);
    assert_eq!(limits_of(theirs, "Max cpu time"), ["1000", "1002"]);
    // What is shared is no tenant's, and another tenant's has no such limit.
    for caller in [ann.server("shared"), eve.server("own")] {
        let pid = pid(&mut caller.streamable().await).await;
        assert_eq!(limits_of(pid, "Max open files"), ["300", "300"]);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_spare_that_becomes_a_tenants_gets_its_limits() {
    let mut server = fixture("echo");
    server.limits.resources.open_files = Some(300);
    server.pool.mode = PoolMode::Dynamic;
    let (gateway, [ann, _, eve]) = gateway([server], |tenant| tenant.limits.open_files = Some(200)).await;
    gateway.until("there is a spare", |metrics| metrics.sum("sluice_spare_children", "") > 0.0).await;
    let spawned = gateway.metrics().await.sum("sluice_children_spawned_total", "");
    assert_eq!(spawned, 1.0);
    let mut session = ann.streamable().await;
    let spare = pid(&mut session).await;
    let is_lowered = async || (limits_of(spare, "Max open files") == ["200", "200"]).then_some(());
    eventually("the limit holds", is_lowered).await;
    gateway.until("there is a spare", |metrics| metrics.sum("sluice_spare_children", "") > 0.0).await;
    let other = pid(&mut eve.streamable().await).await;
    assert_eq!(limits_of(other, "Max open files"), ["300", "300"]);
    gateway.finish().await;
}

#[tokio::test]
async fn who_waited_for_a_place_of_the_tenant_while_a_server_kept_crashing_does_not_start_it_again() {
    let (pause, hour) = (Duration::from_millis(1), Duration::from_secs(3600));
    let mut server = fixture("exit 3");
    let usual = server.restart;
    server.restart =
        Restart { backoff_min: pause, backoff_max: pause, max_crashes: 3, open: hour, window: hour, ..usual };
    let (gateway, [ann, ..]) = gateway([named("one", server)], |tenant| tenant.max_children = Some(1)).await;
    let ann = ann.server("one");
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello("2025-11-25")});
    let mut waiting = Vec::new();
    for _ in 0..20 {
        waiting.push(ann.ask(Request::post(&ann.path("/mcp"), &hello)).await);
    }
    for connection in waiting {
        assert!(connection.response().await.reply().await.json()["error"].is_object());
    }
    assert_eq!(gateway.metrics().await.sum("sluice_children_spawned_total", ""), 3.0);
    gateway.finish().await;
}
