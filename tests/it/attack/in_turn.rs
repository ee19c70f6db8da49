//! One tenant does one attack after another, while nobody reads the gateway's log; and another tenant's calls go on.

use std::pin::Pin;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::Neighbour;
use crate::binary::{Binary, OTHER_KEY};
use crate::harness::{Caller, Request};
use crate::scene::{Client, Wire};

/// What a request may be as large as (`http.max_body` is twice that).
const LARGE: usize = 8 << 20;

/// Makes as many folders, each in the one before; and as many files.
const LITTER: &str = "chdir $ENV{TMPDIR}; open(F, '>', $_) for 1..20000; for (1..16000) { mkdir 'd'; chdir 'd' }";

fn perl(script: &str) -> Value {
    json!({"script": format!("perl -e '{}'", script.replace('\'', "'\\''"))})
}

async fn litters(hostile: &Caller) {
    let client = Client::open(hostile, Wire::Streamable).await;
    // The child may be ended over it.
    client.call("shell", perl(LITTER)).await;
    client.close().await;
}

/// Puts every process that may be reached behind all others, and on one processor.
async fn reschedules(hostile: &Caller) {
    let client = Client::open(hostile, Wire::Streamable).await;
    let script = format!(
        "for (glob '/proc/[0-9]*') {{ my $pid = substr($_, 6) + 0; syscall({}, $pid, 5, pack('i', 0)); \
         syscall({}, $pid, 8, pack('Q', 1)); syscall({}, 0, $pid, 19) }}",
        libc::SYS_sched_setscheduler,
        libc::SYS_sched_setaffinity,
        libc::SYS_setpriority
    );
    client.text("shell", perl(&script)).await;
    client.close().await;
}

/// Small members without end: without a session, as a call, and as what a server says unasked.
async fn sends_members(hostile: &Caller) {
    let members = format!("[{}{{}}]", r#"{"":0},"#.repeat(LARGE / 7));
    let modern = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
    for params in [format!(r#"{{"x":{members}}}"#), format!(r#"{{{modern},"x":{members}}}"#)] {
        let message = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x/echo","params":{params}}}"#);
        hostile.send(Request::post(&hostile.path("/mcp"), &message)).await;
        let client = Client::open(hostile, Wire::Streamable).await;
        client.exchange_raw(&message, "1").await;
        client.close().await;
    }
    let zeros = format!("[{}0]", "0,".repeat(LARGE / 2));
    hostile.send(Request::post(&hostile.path("/mcp"), &zeros)).await;
}

/// Much waits for a child that starts slowly, and cancellations of what was never asked come by the batch.
async fn cancels(hostile: &Caller) {
    let client = Client::connect(&hostile.server("slow"), Wire::Sse).await;
    let opened = client.start_initialize();
    let calls = [1, 2].map(|_| client.start_call("echo", json!({"text": "x".repeat(LARGE)})));
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "none"}});
    for _ in 0..3 {
        client.post(&json!(vec![&cancel; 64]).to_string()).await;
    }
    assert!(opened.await.unwrap()["result"].is_object());
    for call in calls {
        call.await.unwrap();
    }
    client.close().await;
}

/// Noise on stdout and stderr, of three children at once.
async fn floods(hostile: &Caller) {
    let script = "timeout 4 yes noise & timeout 4 yes noise >&2; wait";
    let clients = [1, 2, 3].map(|_| Client::open(hostile, Wire::Streamable));
    let clients = futures_util::future::join_all(clients).await;
    let floods: Vec<_> = clients.iter().map(|client| client.start_call("shell", json!({"script": script}))).collect();
    for (client, flood) in clients.iter().zip(floods) {
        // What the noise has spoilt is not answered; the end of the session ends both.
        tokio::select! {
            _ = flood => {}
            () = tokio::time::sleep(std::time::Duration::from_secs(6)) => {}
        }
        client.notify("notifications/x", json!({})).await;
    }
    for client in clients {
        client.close().await;
    }
}

/// A child that crashes, and whose successor answers no list; twice.
async fn crashes(hostile: &Caller) {
    let client = Client::open(hostile, Wire::Streamable).await;
    for _ in 0..2 {
        client.request("tools/list", json!({})).await;
        client.call("crash", json!({"code": 3})).await;
        client.text("echo", json!({"text": "again"})).await;
    }
    client.close().await;
}

/// Notifications that nobody fetches, in many sessions.
async fn hoards(hostile: &Caller) {
    let mut clients = Vec::new();
    for _ in 0..20 {
        let client = Client::open(hostile, Wire::Streamable).await;
        client
            .text(
                "shell",
                perl(
                    r#"$| = 1; print qq({"jsonrpc":"2.0","method":"notifications/message","params":{}}\n) for 1..250"#,
                ),
            )
            .await;
        clients.push(client);
    }
    for client in clients {
        client.close().await;
    }
}

/// An answer that is too long.
async fn says_too_much(hostile: &Caller) {
    let client = Client::open(hostile, Wire::Streamable).await;
    let answer = client.call("big", json!({"bytes": 17 << 20})).await;
    assert!(answer["error"]["message"].as_str().is_some_and(|text| text.contains("max_line")), "{answer}");
    client.close().await;
}

/// What the hostile tenant does; it ends when it is done.
type Attack = fn(&Caller) -> Pin<Box<dyn Future<Output = ()> + '_>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_that_does_one_attack_after_another_costs_its_neighbour_no_call() {
    let (_unread, stderr) = super::log::full_pipe(rustix::pipe::PipeFlags::empty());
    let servers = [("echo", vec!["echo"]), ("hostile", vec!["echo"]), ("slow", vec!["slow-start", "3000"])];
    let binary = Binary::start_as(Command::new(env!("CARGO_BIN_EXE_sluice")), Stdio::from(stderr), &servers, "").await;
    let (hostile, neighbour) = (binary.caller.server("hostile"), binary.caller.with_key(OTHER_KEY).server("echo"));
    let attacks: [(&str, Attack); 8] = [
        ("litter", |hostile| Box::pin(litters(hostile))),
        ("members", |hostile| Box::pin(sends_members(hostile))),
        ("cancellations", |hostile| Box::pin(cancels(hostile))),
        ("scheduling", |hostile| Box::pin(reschedules(hostile))),
        ("floods", |hostile| Box::pin(floods(hostile))),
        ("crashes", |hostile| Box::pin(crashes(hostile))),
        ("hoards", |hostile| Box::pin(hoards(hostile))),
        ("a long answer", |hostile| Box::pin(says_too_much(hostile))),
    ];
    for (name, attack) in attacks {
        println!("{name} …");
        let neighbour = Neighbour::watch(neighbour.clone()).await;
        attack(&hostile).await;
        let took = neighbour.unharmed().await;
        println!("… {} calls, median {:?}, slowest {:?}", took.len(), took[took.len() / 2], took[took.len() - 1]);
    }
    binary.stop().await;
}
