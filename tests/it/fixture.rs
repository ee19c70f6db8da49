//! The fixture itself: that it does what its table says, or every test that uses it would prove nothing.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

/// The path of the fixture: `cargo test` builds examples beside the tests. (`cargo test --test it` alone does not: it
/// takes the one that is there.)
pub(crate) fn path() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().join("examples/fixture")
}

/// A running fixture, and both ends of its pipes.
struct Fixture {
    process: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Fixture {
    fn start(mode: &[&str]) -> Self {
        let mut process = Command::new(path()).args(mode).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) = (process.stdin.take(), BufReader::new(process.stdout.take().unwrap()));
        Self { process, to, from }
    }

    fn send(&mut self, message: &Value) {
        writeln!(self.to.as_mut().unwrap(), "{message}").unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        self.from.read_until(b'\n', &mut line).unwrap();
        String::from_utf8_lossy(&line).into_owned()
    }

    /// The next line that is a message with this id.
    fn answer(&mut self, id: &Value) -> Value {
        loop {
            let line = self.line();
            assert!(!line.is_empty(), "the output ended");
            match serde_json::from_str::<Value>(&line) {
                Ok(Value::Array(batch)) if batch.len() == 1 => return batch[0].clone(),
                Ok(message) if message["id"] == *id => return message,
                _ => {}
            }
        }
    }

    fn initialize(&mut self) -> Value {
        let params = json!({"protocolVersion": "2025-06-18", "capabilities": {}});
        self.send(&json!({"jsonrpc": "2.0", "id": "i", "method": "initialize", "params": params}));
        self.answer(&json!("i"))
    }

    fn start_call(&mut self, id: &Value, tool: &str, arguments: &Value) {
        let params = json!({"name": tool, "arguments": arguments});
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}));
    }

    fn call(&mut self, tool: &str, arguments: &Value) -> String {
        self.start_call(&json!(41), tool, arguments);
        self.answer(&json!(41))["result"]["content"][0]["text"].as_str().unwrap().to_owned()
    }

    fn close(&mut self) -> Option<i32> {
        drop(self.to.take());
        self.process.wait().unwrap().code()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn every_mode_that_answers_echoes_and_ends_with_its_input() {
    for mode in [
        &["echo"][..],
        &["slow-start", "1"],
        &["slow-reader", "1"],
        &["banner"],
        &["garbage"],
        &["split-utf8"],
        &["crlf"],
        &["id-last"],
        &["long-line", "100000"],
        &["flood", "1000"],
        &["stderr-flood", "1000"],
        &["stderr-long-line", "1000"],
        &["duplicate-answers"],
        &["wrong-ids"],
        &["batch"],
        &["string-ids"],
        &["new-tools"],
        &["no-lists"],
        &["same-lists"],
        &["mute", "x/y"],
        &["never-subscribe"],
        &["refuse", "x/y"],
        &["version", "2024-11-05"],
    ] {
        let mut fixture = Fixture::start(mode);
        let version = if mode[0] == "version" { "2024-11-05" } else { "2025-06-18" };
        assert_eq!(fixture.initialize()["result"]["protocolVersion"], version, "{mode:?}");
        assert_eq!(fixture.call("echo", &json!({"text": "\"hé\" 世界 🦀"})), "\"hé\" 世界 🦀", "{mode:?}");
        assert_eq!(fixture.close(), Some(0), "{mode:?}");
    }
}

#[test]
fn many_requests_at_once_have_each_its_answer() {
    let mut fixture = Fixture::start(&["echo"]);
    let mut to = fixture.to.take().unwrap();
    let writer = std::thread::spawn(move || {
        for number in 0..5000 {
            let params = json!({"name": "echo", "arguments": {"text": format!("text {number}")}});
            writeln!(to, "{}", json!({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}))
                .unwrap();
        }
        to
    });
    for number in 0..5000 {
        let answer = fixture.answer(&json!(number));
        assert_eq!(answer["result"]["content"][0]["text"], format!("text {number}"));
    }
    drop(writer.join().unwrap());
}

#[test]
fn its_own_requests_are_numbered_from_zero_and_their_answers_returned() {
    for (mode, first) in [("echo", json!(0)), ("string-ids", json!("request-0"))] {
        let mut fixture = Fixture::start(&[mode]);
        fixture.start_call(&json!(1), "sample", &json!({"prompt": "hello"}));
        let request: Value = serde_json::from_str(&fixture.line()).unwrap();
        assert_eq!((&request["method"], &request["id"]), (&json!("sampling/createMessage"), &first));
        let content = json!({"type": "text", "text": "good day"});
        fixture.send(&json!({"jsonrpc": "2.0", "id": first, "result": {"content": content}}));
        assert_eq!(fixture.answer(&json!(1))["result"]["content"][0]["text"], "good day");
    }
}

#[test]
fn it_remembers_what_it_was_told() {
    let mut fixture = Fixture::start(&["echo"]);
    fixture.initialize();
    fixture.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    fixture.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}));
    assert_eq!(fixture.call("cancelled", &json!({})), "[7]");
    assert_eq!(
        fixture.call("notifications_received", &json!({})),
        r#"["notifications/initialized","notifications/cancelled"]"#
    );
    let client: Value = serde_json::from_str(&fixture.call("client", &json!({}))).unwrap();
    assert_eq!(client["protocolVersion"], "2025-06-18");
    fixture.send(&json!({"jsonrpc": "2.0", "id": 1, "method": "x/any", "params": {"a": [1.0]}}));
    assert_eq!(fixture.answer(&json!(1))["result"], json!({"echo": {"a": [1.0]}}));
    fixture.send(&json!({"jsonrpc": "2.0", "id": 2, "method": "other", "params": {"b": 2}}));
    assert_eq!(fixture.answer(&json!(2))["error"]["code"], -32601);
}

#[test]
fn it_refuses_what_it_is_told_to_and_wants_to_know_roots_first() {
    let mut fixture = Fixture::start(&["refuse", "x/y"]);
    fixture.send(&json!({"jsonrpc": "2.0", "id": 1, "method": "x/y"}));
    assert_eq!(fixture.answer(&json!(1))["error"]["code"], -32000);
    assert_eq!(fixture.call("heard", &json!({})), r#"["x/y","tools/call"]"#);
    let mut fixture = Fixture::start(&["roots-first"]);
    fixture.initialize();
    fixture.send(&json!({"jsonrpc": "2.0", "id": 2, "method": "resources/subscribe", "params": {"uri": "x://y"}}));
    fixture.start_call(&json!(3), "first_roots", &json!({}));
    assert_eq!(fixture.call("echo", &json!({"text": "both wait"})), "both wait");
    fixture.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    let asked: Value = serde_json::from_str(&fixture.line()).unwrap();
    assert_eq!((&asked["method"], &asked["id"]), (&json!("roots/list"), &json!(0)));
    fixture.send(&json!({"jsonrpc": "2.0", "id": 0, "result": {"roots": []}}));
    let both = [fixture.line(), fixture.line()].map(|line| serde_json::from_str::<Value>(&line).unwrap());
    let answer = |id: u64| both.iter().find(|answer| answer["id"] == id).unwrap();
    assert_eq!(answer(2)["result"], json!({}));
    let roots = answer(3)["result"]["content"][0]["text"].as_str().unwrap();
    assert!(roots.contains(r#""result":{"roots":[]}"#), "{roots}");
}

#[test]
fn slow_calls_block_nobody_and_report_their_progress() {
    let mut fixture = Fixture::start(&["echo"]);
    fixture.start_call(&json!("slow"), "sleep", &json!({"ms": 200}));
    fixture.start_call(&json!("quick"), "echo", &json!({"text": "quick"}));
    assert!(fixture.line().contains("quick"));
    assert!(fixture.line().contains("slept 200 ms"));
    let params = json!({"name": "progress", "arguments": {"steps": 2}, "_meta": {"progressToken": "t"}});
    fixture.send(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}));
    for step in 1..=2 {
        let progress: Value = serde_json::from_str(&fixture.line()).unwrap();
        assert_eq!(progress["params"], json!({"progressToken": "t", "progress": step, "total": 2}));
    }
    assert_eq!(fixture.answer(&json!(1))["result"]["content"][0]["text"], "2 steps");
}

#[test]
fn it_ends_as_it_is_told() {
    for mode in ["exit", "exit-after-initialize", "exit-after-subscribe"] {
        let mut fixture = Fixture::start(&[mode, "7"]);
        if mode != "exit" {
            fixture.initialize();
        }
        if mode == "exit-after-subscribe" {
            fixture.send(&json!({"jsonrpc": "2.0", "id": 1, "method": "resources/subscribe"}));
            assert_eq!(fixture.answer(&json!(1))["result"], json!({}));
        }
        assert_eq!(fixture.process.wait().unwrap().code(), Some(7), "{mode}");
    }
    let mut fixture = Fixture::start(&["echo"]);
    fixture.start_call(&json!(1), "crash", &json!({"code": 9}));
    assert_eq!(fixture.process.wait().unwrap().code(), Some(9));
    assert_eq!(fixture.line(), "");
    let mut fixture = Fixture::start(&["half-line"]);
    fixture.start_call(&json!(1), "echo", &json!({"text": "x"}));
    assert_eq!(fixture.line(), r#"{"jsonrpc":"2.0","id":1,"result":{"con"#);
}

#[test]
fn a_line_without_an_end_is_as_long_as_asked() {
    let mut fixture = Fixture::start(&["never-newline", "300000"]);
    fixture.initialize();
    fixture.start_call(&json!(1), "echo", &json!({"text": "x"}));
    drop(fixture.to.take());
    let mut rest = Vec::new();
    fixture.from.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, "x".repeat(300_000).into_bytes());
}

#[test]
fn some_stay_when_they_should_go() {
    use std::os::unix::process::ExitStatusExt as _;
    for (mode, term_ends) in [("deaf-eof", true), ("no-read", true), ("ignore-term", false)] {
        let mut fixture = Fixture::start(&[mode]);
        fixture.initialize();
        drop(fixture.to.take());
        Command::new("kill").arg(fixture.process.id().to_string()).status().unwrap();
        if !term_ends {
            // What is killed next shows that TERM had not ended it: the first signal to end a process is its status.
            fixture.process.kill().unwrap();
        }
        let signal = if term_ends { 15 } else { 9 };
        assert_eq!(fixture.process.wait().unwrap().signal(), Some(signal), "{mode}");
    }
}

#[test]
fn a_closed_stdout_is_closed_though_the_process_lives() {
    let mut fixture = Fixture::start(&["close-stdout"]);
    fixture.initialize();
    assert_eq!(fixture.line(), "");
    assert!(fixture.process.try_wait().unwrap().is_none());
    assert_eq!(fixture.close(), Some(0));
}

#[test]
fn grandchildren_are_left_behind() {
    let mut fixture = Fixture::start(&["echo"]);
    let pids: Vec<u32> =
        serde_json::from_str(&fixture.call("fork_grandchild", &json!({"setsid": true, "orphan": true}))).unwrap();
    assert_eq!(fixture.close(), Some(0));
    assert_eq!(pids.len(), 3);
    for pid in pids {
        assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success(), "{pid} lived on");
    }
}
