//! The memory of a whole gateway under several attacks at once: the budget bounds what the process really takes.

use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::binary::{Binary, KEY, OTHER_KEY};
use crate::harness::{Caller, Request, text_of};
use crate::proc;
use crate::scene::{Client, Wire};

const MIB: u64 = 1 << 20;
/// The budget, in MiB.
const BUDGET: u64 = 256;
/// For how long everybody attacks.
const ATTACK: Duration = Duration::from_secs(20);
/// The time after which the memory must have been given back.
const REST: Duration = Duration::from_secs(60);

/// Does `once` again and again, also when it fails: what is refused is tried again.
fn again<F: Future<Output = ()> + Send + 'static>(attacks: &mut JoinSet<()>, once: impl Fn() -> F + Send + 'static) {
    attacks.spawn(async move {
        loop {
            let mut one = JoinSet::new();
            one.spawn(once());
            let _ = one.join_next().await;
            sleep(Duration::from_millis(20)).await;
        }
    });
}

/// A session that is kept for as long as the attack lasts.
async fn hold(caller: Caller) {
    let _client = Client::open(&caller, Wire::Streamable).await;
    sleep(ATTACK).await;
}

/// A body of 8 MiB of tiny members.
async fn tiny_members(caller: Caller) {
    let members = "{\"\":0},".repeat((8 << 20) / 7);
    let body = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"x/none","params":{{"x":[{members}0]}}}}"#);
    let client = Client::open(&caller, Wire::Streamable).await;
    client.post(&body).await;
    client.close().await;
}

/// Calls of 1 MiB to a server that does not read them.
async fn unread_stdin(caller: Caller) {
    let client = Client::open(&caller, Wire::Streamable).await;
    let _calls: Vec<_> = (0..40).map(|_| client.start_call("echo", json!({"text": "x".repeat(1 << 20)}))).collect();
    sleep(ATTACK).await;
}

/// Headers without an end.
async fn unfinished_headers(caller: Caller) {
    let mut stream = TcpStream::connect(caller.address).await.unwrap();
    let _ = stream.write_all(format!("GET /mcp HTTP/1.1\r\nx: {}", "x".repeat(30_000)).as_bytes()).await;
    sleep(Duration::from_secs(3)).await;
}

/// A body in pieces of a byte.
async fn tiny_pieces(caller: Caller) {
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        caller.path("/mcp"),
        caller.address
    );
    let mut stream = TcpStream::connect(caller.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let pieces = "1\r\n \r\n".repeat(10_000);
    while stream.write_all(pieces.as_bytes()).await.is_ok() {}
}

/// 256 bodies on one connection of HTTP/2 that do not end, as many bytes of each as are taken.
async fn many_bodies(caller: Caller) {
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let url = format!("http://{}{}", caller.address, caller.path("/mcp"));
    let mut bodies = JoinSet::new();
    for _ in 0..256 {
        let pieces = futures_util::stream::iter((0..240).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1 << 16])));
        let body = reqwest::Body::wrap_stream(pieces.chain(futures_util::stream::pending()));
        let request = client.post(&url).bearer_auth(KEY).header("Content-Type", "application/json");
        bodies.spawn(request.header("Accept", "application/json, text/event-stream").body(body).send());
    }
    while bodies.join_next().await.is_some() {}
}

/// Starts one attack of a kind.
type Start = fn(&mut JoinSet<()>, Caller);

/// Everybody attacks as the tenant `acme`.
fn attack(caller: &Caller) -> JoinSet<()> {
    let mut attacks = JoinSet::new();
    let kinds: [(usize, Start, &str); 7] = [
        (4, |attacks, caller| again(attacks, move || tiny_members(caller.clone())), "echo"),
        (10, |attacks, caller| again(attacks, move || hold(caller.clone())), "endless"),
        (10, |attacks, caller| again(attacks, move || unread_stdin(caller.clone())), "deaf"),
        (200, |attacks, caller| again(attacks, move || unfinished_headers(caller.clone())), "echo"),
        (4, |attacks, caller| again(attacks, move || tiny_pieces(caller.clone())), "echo"),
        (5, |attacks, caller| again(attacks, move || hold(caller.clone())), "loud"),
        (2, |attacks, caller| again(attacks, move || many_bodies(caller.clone())), "echo"),
    ];
    for (times, start, server) in kinds {
        (0..times).for_each(|_| start(&mut attacks, caller.server(server)));
    }
    attacks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes a minute of all processors, and needs what children write to be charged, too"]
async fn the_process_takes_a_third_more_than_its_budget_at_most_whoever_attacks() {
    let servers = [
        ("echo", vec!["echo"]),
        ("endless", vec!["spew", "endless"]),
        ("deaf", vec!["no-read"]),
        ("loud", vec!["spew", "notifications"]),
    ];
    let limits = format!("[limits]\nmemory_budget = \"{BUDGET}MiB\"\n[shutdown]\ndrain_timeout = \"1s\"\n");
    let binary = Binary::start(&servers, &limits).await;
    let resident = |field| proc::status(binary.pid(), field) * 1024 / MIB;
    let idle = resident("VmRSS");
    let mut attacks = attack(&binary.caller);
    let end = Instant::now() + ATTACK;
    let mut held = 0;
    while Instant::now() < end {
        sleep(Duration::from_secs(1)).await;
        held = held.max(binary.metrics().await.sum("sluice_memory_held_bytes", "") as u64 / MIB);
    }
    let peak = resident("VmHWM");
    attacks.shutdown().await;
    let begin = Instant::now();
    while resident("VmRSS") * 10 >= BUDGET * 11 && begin.elapsed() < REST {
        sleep(Duration::from_millis(100)).await;
    }
    let (rest, after) = (resident("VmRSS"), begin.elapsed());
    sleep(Duration::from_secs(5)).await;
    println!(
        "{idle} MiB idle, {peak} MiB at the peak with {held} MiB charged, {rest} MiB {after:?} after, {} MiB later",
        resident("VmRSS")
    );
    assert!(held > BUDGET / 4, "{held} MiB charged: the attacks do not attack");
    assert!(peak * 10 < BUDGET * 13 + 640, "{peak} MiB at the peak");
    assert!(rest * 10 < BUDGET * 11, "{rest} MiB {after:?} after the attacks");
    let other = Client::open(&binary.caller.with_key(OTHER_KEY).server("echo"), Wire::Streamable).await;
    assert_eq!(text_of(&other.call("echo", json!({"text": "still here"})).await), "still here");
    other.close().await;
    assert_eq!(binary.caller.send(Request::get("/healthz")).await.status, 200);
    binary.stop().await;
}
