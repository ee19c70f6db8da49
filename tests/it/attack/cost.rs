//! Measures the memory of a whole gateway while hostile messages pass: bodies of clients, and lines of servers.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::Neighbour;
use crate::binary::{Binary, KEY, OTHER_KEY};
use crate::harness::{Request, eventually, in_time};
use crate::proc;
use crate::scene::{BOTH, Client, Wire};

/// The size of each hostile value in bytes.
const SIZE: usize = 8 << 20;
/// What a message may cost, in its own sizes.
const TIMES: u64 = 4;
/// What a message may cost beside that, in KiB.
const BESIDE: u64 = 16;
/// What the process may take beside the message, in KiB: hyper's buffers for reads and writes of each connection (some
/// 400 KiB each way at most), those of the child's pipes, and what the allocator keeps of blocks below 128 KiB. Of a
/// message that is held once, 900 KiB are measured beside it.
const PROCESS: u64 = 2 * 1024 + 512;

/// Hostile JSON values: what each is, what it begins with, what is repeated in it, and what it ends with.
const SHAPES: [(&str, &str, &str, &str); 12] = [
    ("tiny members", "{", r#""":0,"#, r#""x":1}"#),
    ("members that are known names", "{", r#""id":1,"method":"x","params":{},"uri":"a","#, r#""x":1}"#),
    ("members with escaped names", "{", r#""\u0069d":1,"#, r#""x":1}"#),
    ("empty objects", "[", "{},", "0]"),
    ("deep arrays beside each other", "[", "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]],", "0]"),
    ("one array that never closes", "", "[", ""),
    ("a string of escapes", "\"", "\\u0041", "\""),
    ("a string of escaped pairs", "\"", "\\ud83e\\udd80", "\""),
    ("a plain string", "\"", "x", "\""),
    ("a huge number", "1", "7", ""),
    ("white space", "", " \t", "0"),
    ("no JSON", "{", "\"x ", ""),
];

/// A value of [`SIZE`] bytes.
fn value((_, begin, part, end): (&str, &str, &str, &str)) -> String {
    [begin, &part.repeat(SIZE / part.len()), end].concat()
}

/// Where a client puts a hostile value into a message: what stands before and behind it.
const OF_CLIENTS: [(&str, &str, &str); 6] = [
    ("the body", "", ""),
    ("a batch", r#"[{"jsonrpc":"2.0","id":7,"method":"ping"},"#, "]"),
    ("the id", r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"pid"},"id":"#, "}"),
    ("the method", r#"{"jsonrpc":"2.0","id":7,"method":"#, "}"),
    ("the arguments", r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"pid","arguments":"#, "}}"),
    (
        "the token",
        r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"pid","_meta":{"progressToken":"#,
        "}}}",
    ),
];

/// Where a server puts a hostile value into a line: what stands before and behind it. `ID` is a call that waits.
const OF_SERVERS: [(&str, &str, &str); 6] = [
    ("the line", "", ""),
    ("a batch", r#"[{"jsonrpc":"2.0","id":7,"result":{}},"#, "]"),
    ("the id", r#"{"jsonrpc":"2.0","result":{},"id":"#, "}"),
    ("a notification", r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"x":"#, "}}"),
    ("a request", r#"{"jsonrpc":"2.0","id":7,"method":"ping","params":"#, "}"),
    ("an answer", r#"{"jsonrpc":"2.0","id":ID,"result":"#, "}"),
];

/// The memory of a gateway.
struct Memory {
    pid: u32,
    /// KiB in use while nothing was asked for yet.
    idle: u64,
}

impl Memory {
    fn of(binary: &Binary) -> Self {
        Self { pid: binary.pid(), idle: proc::status(binary.pid(), "VmRSS") }
    }

    /// Forgets the peak so far. Only root may; for others the peak is that of all messages so far, within the same
    /// bound.
    fn begin(&self) {
        let _ = std::fs::write(Path::new("/proc").join(self.pid.to_string()).join("clear_refs"), "5");
    }

    /// Compares the peak with what a message of `bytes` may cost.
    fn assert_within(&self, bytes: usize, what: &str) {
        let took = proc::status(self.pid, "VmHWM").saturating_sub(self.idle);
        let bound = TIMES * bytes as u64 / 1024 + BESIDE + PROCESS;
        assert!(took <= bound, "{what}: {took} KiB for {} KiB, which is over {bound} KiB", bytes / 1024);
    }
}

/// A gateway whose other tenant calls all the time.
async fn scene() -> (Binary, Neighbour, Memory) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    // What one message has cost is given back before the next: without this the allocator learns from the first large
    // blocks to keep those that come later.
    command.env("MALLOC_MMAP_THRESHOLD_", "131072");
    let servers = [("echo", vec!["echo"])];
    let binary = Binary::start_as(command, Stdio::piped(), &servers, "sandbox = \"none\"\n").await;
    let echo = binary.caller.server("echo");
    let neighbour = Neighbour::watch(echo.with_key(OTHER_KEY)).await;
    for wire in BOTH {
        let client = Client::open(&echo, wire).await;
        client.text("shell", json!({"script": "true"})).await;
        client.close().await;
    }
    let memory = Memory::of(&binary);
    (binary, neighbour, memory)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_body_costs_four_times_its_size_at_most_whatever_it_contains() {
    let (binary, neighbour, memory) = scene().await;
    let echo = binary.caller.server("echo");
    for shape in SHAPES {
        for (place, before, behind) in OF_CLIENTS {
            let body = [before, &value(shape), behind].concat();
            let client = Client::open(&echo, Wire::Streamable).await;
            memory.begin();
            // What becomes of it is not asked here, but something must.
            let reply = client.post(&body).await;
            assert!([200, 202, 400].contains(&reply.status), "{place} is {}: {}", shape.0, reply.status);
            memory.assert_within(body.len(), &format!("{place} is {}", shape.0));
            client.close().await;
        }
    }
    neighbour.unharmed().await;
    binary.stop().await;
}

/// The id by which a server knows the call that waits.
async fn first_call(client: &Client) -> String {
    let id = async || {
        let calls = client.text("calls", json!({})).await;
        calls.split_once(' ').map(|(first, _)| first.to_owned())
    };
    eventually("the call waits", id).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_line_costs_four_times_its_size_at_most_whatever_it_contains() {
    let (binary, neighbour, memory) = scene().await;
    let echo = binary.caller.server("echo");
    let file = tempfile::NamedTempFile::new().unwrap();
    let script = format!("cat {}", file.path().display());
    for shape in SHAPES {
        for (place, before, behind) in OF_SERVERS {
            let wires = if place == "an answer" { &BOTH[..] } else { &[Wire::Sse] };
            for wire in wires {
                let client = Client::open(&echo, *wire).await;
                let call = r#"{"jsonrpc":"2.0","id":"w","method":"tools/call","params":{"name":"hang"}}"#;
                let waits = client.start_raw(call.to_owned(), "\"w\"".to_owned());
                let id = first_call(&client).await;
                let line = [&before.replace("ID", &id), &*value(shape), behind, "\n"].concat();
                std::fs::write(file.path(), &line).unwrap();
                let noise = async || binary.metrics().await.dropped("not_json");
                let before = noise().await;
                memory.begin();
                // The lines behind it wait, while the messages of a batch that lead to nothing are read slowly.
                let written = client.start_call("shell", json!({"script": script}));
                let read = async || (written.is_finished() || noise().await > before).then_some(());
                eventually("the line is read", read).await;
                memory.assert_within(line.len(), &format!("{place} is {}, {wire:?}", shape.0));
                waits.abort();
                written.abort();
                client.close().await;
            }
        }
    }
    neighbour.unharmed().await;
    binary.stop().await;
}

/// However a body is cut into pieces, it costs no more than in one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_body_in_pieces_of_a_byte_costs_four_times_its_size_at_most() {
    let (binary, neighbour, memory) = scene().await;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        binary.caller.server("echo").path("/mcp"),
        binary.caller.address
    );
    let body = "1\r\n \r\n".repeat(SIZE / 6) + "0\r\n\r\n";
    memory.begin();
    let mut stream = TcpStream::connect(binary.caller.address).await.unwrap();
    in_time("the head is taken", stream.write_all(head.as_bytes())).await.unwrap();
    in_time("the body is taken", stream.write_all(body.as_bytes())).await.unwrap();
    let mut status = [0; 12];
    in_time("it is answered", tokio::io::AsyncReadExt::read_exact(&mut stream, &mut status)).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 400");
    memory.assert_within(body.len(), "pieces of a byte");
    assert_eq!(binary.caller.send(Request::get("/healthz")).await.status, 200);
    neighbour.unharmed().await;
    binary.stop().await;
}

/// Reading a body of tiny members takes long, and several are read at a time: nobody else waits for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn large_bodies_and_lines_of_tiny_members_hold_nobody_else_up() {
    let (binary, neighbour, _) = scene().await;
    let echo = binary.caller.server("echo");
    let members = ["{", &r#""":0,"#.repeat((10 << 20) / 5), r#""x":1}"#].concat();
    let file = tempfile::NamedTempFile::new().unwrap();
    let line = [r#"{"jsonrpc":"2.0","method":"notifications/x","params":"#, &members, "}\n"].concat();
    std::fs::write(file.path(), line).unwrap();
    let script = format!("cat {}", file.path().display());
    let body = [r#"{"jsonrpc":"2.0","id":7,"method":"x/none","params":"#, &members, "}"].concat();
    let attacks = (0..4).map(async |number| {
        let client = Client::open(&echo, Wire::Streamable).await;
        match number {
            0 => drop(client.text("shell", json!({"script": script})).await),
            _ => assert_eq!(client.post(&body).await.status, 200),
        }
        client.close().await;
    });
    futures_util::future::join_all(attacks).await;
    neighbour.unharmed().await;
    binary.stop().await;
}
