//! Sessions that nobody ends: at a limit the longest unused one makes room, and the memory of the gateway stays as it is.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use sluice::config::ApiKey;

use crate::binary::{Binary, KEY};
use crate::harness::{Caller, Gateway, Metrics, Reply, Request, Streamable, fixture, hello, key};
use crate::proc;

/// Whether the gateway still has a session.
async fn lives(session: &Streamable) -> bool {
    let reply = session.send(json!({"jsonrpc": "2.0", "id": 1, "method": "ping"})).await;
    assert!([200, 404].contains(&reply.status), "{reply:?}");
    reply.status == 200
}

async fn initialize(caller: &Caller) -> Reply {
    let message = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello("2025-11-25")});
    caller.send(Request::post("/mcp", message)).await
}

fn evicted(metrics: &Metrics, limit: &str) -> f64 {
    metrics.sum("sluice_sessions_evicted_total", &format!("limit=\"{limit}\""))
}

/// A call that is never answered.
fn hang() -> Value {
    json!({"jsonrpc": "2.0", "id": "hung", "method": "tools/call", "params": {"name": "hang"}})
}

#[tokio::test]
async fn at_a_principal_s_limit_its_longest_unused_session_makes_room() {
    let gateway = Gateway::start_with([fixture("echo")], |config| {
        config.sessions.max_per_principal = 3;
        config.http.keep_alive = Duration::from_millis(20);
    })
    .await;
    let (mut first, second) = (gateway.streamable().await, gateway.streamable().await);
    let with_stream = gateway.streamable().await;
    let mut stream = with_stream.stream().await;
    first.call("echo", json!({"text": "used last"})).await;
    let third = gateway.streamable().await;
    assert!(!lives(&second).await);
    assert!(lives(&with_stream).await && lives(&first).await && lives(&third).await);
    // What is in use stays: of two calls and a stream, the stream goes.
    let _calls = (first.open(hang()).await, third.open(hang()).await);
    let fourth = gateway.streamable().await;
    assert!(!lives(&with_stream).await);
    while stream.event().await.is_some() {}
    assert!(lives(&first).await && lives(&third).await && lives(&fourth).await);
    let _call = fourth.open(hang()).await;
    let error = initialize(&gateway).await.assert_error(200, -32003, "all are in use")["error"].clone();
    assert_eq!((&error["data"]["type"], &error["data"]["retryAfter"]), (&json!("sessions_full"), &json!(1)));
    let is_over = |metrics: &Metrics| (metrics.sessions(), metrics.children()) == (3.0, 3.0);
    gateway.until("the children of the ended sessions are gone", is_over).await;
    assert_eq!(evicted(&gateway.metrics().await, "max_per_principal"), 2.0);
    gateway.finish().await;
}

#[tokio::test]
async fn at_a_tenant_s_limit_its_principal_with_the_most_sessions_gives_one_up() {
    let mut keys = Vec::new();
    let gateway = Gateway::start_with([fixture("echo")], |config| {
        let holders = [("acme", "ann"), ("acme", "bob"), ("acme", "cay"), ("acme", "dan"), ("umbrella", "eve")];
        keys = holders.map(|(tenant, subject)| key(config, tenant, subject)).to_vec();
        config.tenants.get_mut("acme").unwrap().max_sessions = Some(4);
    })
    .await;
    let [ann, bob, cay, dan, eve] = [0, 1, 2, 3, 4].map(|index: usize| gateway.with_key(&keys[index]));
    let (of_eve, of_bob) = (eve.streamable().await, bob.streamable().await);
    let (first, second) = (ann.streamable().await, ann.streamable().await);
    let of_cay = cay.streamable().await;
    let of_dan = dan.streamable().await;
    assert!(!lives(&first).await, "two of ann's, against one of each other");
    for session in [&second, &of_bob, &of_cay, &of_dan, &of_eve] {
        assert!(lives(session).await);
    }
    assert_eq!(evicted(&gateway.metrics().await, "tenant_max_sessions"), 1.0);
    gateway.finish().await;
}

/// A gateway for `ann` and `eve`, of two tenants, with so many sessions at most.
async fn two_tenants(max: usize) -> (Gateway, [Caller; 2]) {
    let mut keys = Vec::new();
    let gateway = Gateway::start_with([fixture("echo")], |config| {
        keys = [("acme", "ann"), ("umbrella", "eve")].map(|(t, s)| key(config, t, s)).to_vec();
        config.sessions.max = max;
        config.http.keep_alive = Duration::from_millis(20);
    })
    .await;
    let callers = [0, 1].map(|index: usize| gateway.with_key(&keys[index]));
    (gateway, callers)
}

#[tokio::test]
async fn at_the_limit_of_all_no_other_tenant_gives_up_a_session() {
    let (gateway, [ann, eve]) = two_tenants(2).await;
    let (first, second) = (ann.streamable().await, ann.streamable().await);
    assert!(!lives(&first).await, "the other one is left for others");
    let of_eve = eve.streamable().await;
    assert!(lives(&second).await && lives(&of_eve).await);
    assert_eq!(evicted(&gateway.metrics().await, "max"), 1.0);
    assert_eq!(gateway.send(Request::get("/readyz")).await.status, 200, "their own sessions make room for both");
    let _call = second.open(hang()).await;
    let error = initialize(&ann).await.assert_error(200, -32003, "sessions.max")["error"].clone();
    assert_eq!(error["data"]["type"], "sessions_full", "{error}");
    assert!(lives(&second).await && lives(&of_eve).await);
    gateway.finish().await;
}

#[tokio::test]
async fn who_finds_all_sessions_taken_by_others_is_told_when_the_first_of_them_ends() {
    let (gateway, [ann, eve]) = two_tenants(1).await;
    let first = ann.streamable().await;
    let error = initialize(&eve).await.assert_error(200, -32003, "sessions.max")["error"].clone();
    // When it has been idle for half an hour.
    let retry_after = error["data"]["retryAfter"].as_u64().unwrap();
    assert!((1700..=1800).contains(&retry_after), "{error}");
    assert!(lives(&first).await);
    gateway.finish().await;
}

/// The sessions that are opened and never ended: some thousand, or so many as `SLUICE_IDLE_SESSIONS` says.
fn sessions() -> usize {
    std::env::var("SLUICE_IDLE_SESSIONS").map_or(2_000, |number| number.parse().unwrap())
}

/// The principals, beside the one that has but its own limit.
const PRINCIPALS: usize = 20;

/// The clients that open sessions at the same time.
const CLIENTS: usize = 8;

/// Opens sessions on one server, calls once in each, and ends none. The principals take turns.
async fn open(http: &reqwest::Client, url: &str, keys: &[String], count: usize) {
    let clients = (0..CLIENTS).map(|client| {
        let (http, url, keys) = (http.clone(), url.to_owned(), keys.to_vec());
        tokio::spawn(async move {
            for number in (client..count).step_by(CLIENTS) {
                let post = |message: Value, session: &str| {
                    let request = http.post(&url).bearer_auth(&keys[number % keys.len()]).json(&message);
                    let request = request.header("Accept", "application/json, text/event-stream");
                    match session {
                        "" => request.send(),
                        id => request.header("Mcp-Session-Id", id).send(),
                    }
                };
                let message = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello("2025-11-25")});
                let reply = post(message, "").await.unwrap();
                let session = reply.headers().get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned());
                let (status, opened) = (reply.status(), reply.text().await.unwrap());
                let session = session.unwrap_or_else(|| panic!("session {number}: {status} {opened}"));
                let params = json!({"name": "echo", "arguments": {"text": "served"}});
                let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
                let answer = post(call, &session).await.unwrap().text().await.unwrap();
                assert!(answer.contains("served"), "session {number}: {answer}");
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_are_never_ended_leave_the_memory_as_it_is() {
    let all = sessions();
    let mut more =
        format!("isolation = \"shared\"\n[sessions]\nmax = {}\nmax_per_principal = 100\n", (all / 10).max(100));
    let keys: Vec<String> =
        (0..PRINCIPALS).map(|number| format!("slk_p{number}_a-key-of-a-principal-for-tests")).collect();
    for (number, key) in keys.iter().enumerate() {
        let entry = ApiKey::from_plain(key, "umbrella".parse().unwrap(), format!("p{number}"), Vec::new());
        let sha256 = entry.sha256.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        write!(more, "[[auth.keys]]\nprefix = \"p{number}\"\nsha256 = {sha256:?}\ntenant = \"umbrella\"\n").unwrap();
        writeln!(more, "subject = \"p{number}\"").unwrap();
    }
    let binary = Binary::start(&[("echo", vec!["echo"])], &more).await;
    let url = format!("http://{}/mcp", binary.caller.address);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for (who, keys) in [("one principal", vec![KEY.to_owned()]), ("many principals", keys)] {
        open(&http, &url, &keys, all / 5).await;
        let early = proc::status(binary.pid(), "VmRSS");
        open(&http, &url, &keys, all - all / 5).await;
        let late = proc::status(binary.pid(), "VmRSS");
        let open = binary.metrics().await.sessions();
        println!("{who}: {early} KiB after {} sessions, {late} KiB after {all}, {open} are open", all / 5);
        // Some per cent, and what the allocator keeps for its threads.
        assert!(late <= early + early / 20 + 4096, "{who}: {early} KiB, then {late} KiB");
    }
    binary.stop().await;
}
