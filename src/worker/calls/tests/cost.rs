//! A message costs in proportion to itself, in memory and in time, whatever it contains and wherever it comes from.

use bytes::Bytes;
use tokio::time::Instant;

use super::super::{Ask, Multiplexer};
use super::story::{A, B, TIMEOUT, ask, exchange, forwarded, request};
use crate::jsonrpc::{Kind, deeper_than, parse, split_batch};

/// Counts the memory that all unit tests use.
#[global_allocator]
static ALLOCATOR: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;

/// What a message may cost beside four times its size.
const BESIDE: usize = 16 * 1024;

/// Parts that a message is made of again and again, and what stands before and behind them.
const SHAPES: [(&str, &str, &str); 22] = [
    (r#""params":{"#, r#""":0,"#, r#""x":1}"#),
    (r#""params":{"_meta":{"#, r#""":0,"#, r#""x":1}}"#),
    (r#""params":{"arguments":{"#, r#""":{},"#, r#""x":1}}"#),
    (r#""params":{"_meta":{"#, r#""progressToken":1,"#, r#""x":1}}"#),
    (r#""params":{"#, r#""uri":"a","#, r#""x":1}"#),
    (r#""params":{"#, r#""Uri":"a","#, r#""x":1}"#),
    (r#""params":{"#, r#""\u0075ri":"a","#, r#""x":1}"#),
    (r#""params":{"x":"#, "[", "7"),
    (r#""params":{"x":["#, "[{}],", "7]}"),
    (r#""params":{"x":""#, "\\u0000", r#""}"#),
    (r#""params":{"uri":""#, "\\u00e9", r#""}"#),
    (r#""params":{"taskId":""#, "\\n", r#""}"#),
    (r#""params":{"level":""#, "x", r#""}"#),
    (r#""params":{"_meta":{"progressToken":""#, "x", r#""}}"#),
    (r#""params":{"requestId":"#, "7", "}"),
    (r#""params":{""#, "\\u017f", r#"":1}"#),
    ("", r#""":0,"#, r#""x":1"#),
    (r#""result":{"tools":["#, r#"{"name":""},"#, "7]}"),
    (r#""result":{"tasks":["#, r#"{"taskId":"a"},"#, "7]}"),
    (r#""result":{"task":{"#, r#""taskId":"a","#, r#""x":1}}"#),
    (r#""error":{"code":-32042,"data":{"elicitations":["#, r#"{"elicitationId":"e"},"#, "7]}}"),
    (r#""error":{"code":-32602,"message":""#, "\\ud83e\\udd80", r#""}"#),
];
const METHODS: [&str; 9] = [
    "tools/call",
    "tools/list",
    "tasks/list",
    "tasks/get",
    "resources/subscribe",
    "logging/setLevel",
    "notifications/cancelled",
    "notifications/progress",
    "notifications/message",
];

fn message(before: &str, part: &str, behind: &str, id: &str, method: Option<&str>, size: usize) -> String {
    let parts = part.repeat(size / part.len());
    let closing = if part == "[" { "]".repeat(size) + "}" } else { String::new() };
    let method = method.map(|method| format!(r#""method":"{method}","#)).unwrap_or_default();
    let id = if id.is_empty() { String::new() } else { format!(r#""id":{id},"#) };
    let comma = if before.is_empty() && part.is_empty() { "" } else { "," };
    format!(r#"{{"jsonrpc":"2.0",{id}{method}"z":0{comma}{before}{parts}{behind}{closing}}}"#)
}

/// The most memory that something takes beyond what is in use.
fn peak<T>(something: impl FnOnce() -> T) -> usize {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let done = something();
    let peak = ALLOCATOR.peak_usage().saturating_sub(before);
    drop(done);
    peak
}

fn child(is_shared: bool) -> Multiplexer {
    let mut multiplexer = Multiplexer::new(1000, is_shared);
    multiplexer.attach(A);
    if is_shared {
        multiplexer.attach(B);
    }
    multiplexer
}

/// A client says it.
fn from_client(multiplexer: &mut Multiplexer, text: &[u8]) {
    assert!(deeper_than(usize::MAX, text).is_none());
    let Ok(envelope) = parse(text) else { return };
    let ask = Ask { envelope: &envelope, exchange: &exchange(), timeout: TIMEOUT, is_own: false };
    match envelope.kind {
        Kind::Request => drop(multiplexer.ask(A, &ask, Instant::now())),
        Kind::Response => drop(multiplexer.answer_to_child(A, &envelope)),
        Kind::Notification => {
            drop(multiplexer.cancellation(A, &envelope));
            drop(multiplexer.notice_of_client(A, &envelope));
        }
    }
}

/// The child says it.
fn from_child(multiplexer: &mut Multiplexer, text: &Bytes) {
    if let Ok(envelope) = parse(text) {
        drop(multiplexer.hear(text, &envelope, Instant::now(), TIMEOUT));
    }
}

#[test]
fn a_message_takes_at_most_four_times_its_size_whatever_it_contains() {
    const SIZE: usize = 128 * 1024;
    for is_shared in [false, true] {
        for (before, part, behind) in SHAPES {
            let is_outcome = before.starts_with(r#""result"#) || before.starts_with(r#""error"#);
            let methods: Vec<Option<&str>> = if is_outcome { vec![None] } else { METHODS.map(Some).to_vec() };
            for method in methods {
                for id in ["1", ""] {
                    let text = Bytes::from(message(before, part, behind, id, method, SIZE));
                    let bound = 4 * text.len() + BESIDE;
                    let what = || format!("{before}{part}… with {method:?}, shared: {is_shared}");
                    let mut multiplexer = child(is_shared);
                    let took = peak(|| from_client(&mut multiplexer, &text));
                    assert!(took <= bound, "a client's {} took {took} bytes for {}", what(), text.len());
                    let took = peak(|| from_child(&mut multiplexer, &text));
                    assert!(took <= bound, "a child's {} took {took} bytes for {}", what(), text.len());
                }
            }
            // The answer to a call.
            for method in ["tools/list", "tasks/list", "tasks/get", "tools/call"].iter().filter(|_| is_outcome) {
                let mut multiplexer = child(is_shared);
                let Ok(super::super::Outgoing::Forward(number, _)) =
                    ask(&mut multiplexer, A, &request(method, r#"{"task":{}}"#))
                else {
                    continue;
                };
                let text = Bytes::from(message(before, part, behind, &number.to_string(), None, SIZE));
                let took = peak(|| from_child(&mut multiplexer, &text));
                let bound = 4 * text.len() + BESIDE;
                assert!(took <= bound, "an answer {before}{part}… to {method} took {took} bytes for {}", text.len());
            }
        }
    }
}

#[test]
fn a_batch_is_cut_as_far_as_it_may_be_long() {
    for part in ["0,", "{},", "[],"] {
        let text = format!("[{}0]", part.repeat(1024 * 1024));
        let took = peak(|| assert!(split_batch(text.as_bytes(), 100).unwrap().is_err()));
        assert!(took < BESIDE, "{took} bytes");
    }
}

/// Nanoseconds that this thread has run.
fn ran() -> u64 {
    let all = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    all.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_message_takes_time_in_proportion_to_its_size() {
    for (before, part, behind) in SHAPES {
        let is_outcome = before.starts_with(r#""result"#) || before.starts_with(r#""error"#);
        let method = Some("tools/call").filter(|_| !is_outcome);
        let time = |size: usize| {
            let text = Bytes::from(message(before, part, behind, "1", method, size));
            let runs = (0..3).map(|_| {
                let (mut multiplexer, begin) = (child(true), ran());
                from_client(&mut multiplexer, &text);
                if is_outcome {
                    let (number, _) = forwarded(ask(&mut multiplexer, A, &request("tools/call", "{}")));
                    let text = Bytes::from(message(before, part, behind, &number.to_string(), None, size));
                    from_child(&mut multiplexer, &text);
                }
                ran() - begin
            });
            runs.min().unwrap()
        };
        // Some ten nanoseconds a byte, unoptimized. What grows with the square takes a thousand times as long.
        let (size, most) = (4 * 1024 * 1024, 200);
        let took = time(size);
        assert!(took <= most * size as u64, "{before}{part}…: {took} ns for {size} bytes");
    }
}
