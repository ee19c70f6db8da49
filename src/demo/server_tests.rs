//! Drives the server over in-memory pipes, line by line.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods, reason = "tests")]

use tokio::io::{AsyncBufReadExt as _, DuplexStream, Lines as Received, ReadHalf, WriteHalf};
use tokio::task::JoinHandle;

use super::*;
use crate::demo::{Runner, Workspace};
use crate::mcp::revision::SPOKEN;

/// A client of a running server.
struct Client {
    to: Option<WriteHalf<DuplexStream>>,
    from: Received<BufReader<ReadHalf<DuplexStream>>>,
    server: JoinHandle<Result<(), Error>>,
}

impl Client {
    fn start() -> Self {
        let toolbox =
            Toolbox { workspace: Workspace::private().unwrap(), runner: Runner::new("/nonexistent".into(), &[]) };
        let (near, far) = tokio::io::duplex(4096);
        let (input, output) = tokio::io::split(far);
        let server = tokio::spawn(serve(input, output, Arc::new(toolbox)));
        let (from, to) = tokio::io::split(near);
        Self { to: Some(to), from: BufReader::new(from).lines(), server }
    }

    async fn send(&mut self, line: &str) {
        self.to.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    async fn receive(&mut self) -> Value {
        serde_json::from_str(&self.from.next_line().await.unwrap().unwrap()).unwrap()
    }

    async fn ask(&mut self, line: Value) -> Value {
        self.send(&line.to_string()).await;
        self.receive().await
    }

    async fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let params = json!({"name": tool, "arguments": arguments});
        self.ask(json!({"jsonrpc": "2.0", "id": "c", "method": "tools/call", "params": params})).await["result"].take()
    }

    async fn initialize(&mut self, version: &str) -> Value {
        let params =
            json!({"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
        let answer = self.ask(json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})).await;
        self.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
        answer["result"]["protocolVersion"].clone()
    }

    /// Closes the server's input, and waits for its end.
    async fn close(mut self) {
        drop(self.to.take());
        // Both halves of a duplex stream must go before its other end sees the end of the input.
        drop(self.from);
        self.server.await.unwrap().unwrap();
    }
}

fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap()
}

#[tokio::test]
async fn the_version_asked_for_is_spoken_or_else_the_latest() {
    for version in SPOKEN {
        assert_eq!(Client::start().initialize(version).await, version);
    }
    assert_eq!(Client::start().initialize("2026-07-28").await, "2025-11-25");
}

#[tokio::test]
async fn ids_come_back_with_their_type() {
    let mut client = Client::start();
    for id in ["1", "\"1\"", "1.0", "-7", "18446744073709551615"] {
        client.send(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#)).await;
        let line = client.from.next_line().await.unwrap().unwrap();
        assert!(line.contains(&format!("\"id\":{id},")), "{line}");
    }
}

#[tokio::test]
async fn bad_messages_are_answered_and_the_conversation_goes_on() {
    let mut client = Client::start();
    let deep = "[".repeat(100_000);
    for (line, id, code) in [
        ("no json", json!(null), -32700),
        (r#"{"jsonrpc":"2.0","id":1,"#, json!(null), -32700),
        (deep.as_str(), json!(null), -32700),
        ("7", json!(null), -32600),
        ("[]", json!(null), -32600),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, json!(null), -32600),
        (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, json!(null), -32600),
        (r#"{"id":1,"method":"ping"}"#, json!(1), -32600),
        (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, json!(1), -32600),
        (r#"{"jsonrpc":"2.0","id":1}"#, json!(1), -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, json!(1), -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"nope"}"#, json!(1), -32601),
        (r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete"}"#, json!(1), -32601),
        (r#"{"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{"level":"info"}}"#, json!(1), -32601),
        (r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#, json!(1), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}"#, json!(1), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":"x"}}"#, json!(1), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#, json!(1), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"nope"}}"#, json!(1), -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","arguments":[]}}"#, json!(1), -32602),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","_meta":{"progressToken":[]}}}"#,
            json!(1),
            -32602,
        ),
        (r#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"demo://x"}}"#, json!(1), -32002),
        (r#"{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"name":"greet"}}"#, json!(1), -32602),
    ] {
        client.send(line).await;
        let answer = client.receive().await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&id, &json!(code)), "{line:.80}: {answer}");
    }
    // Not answered at all: answers, notifications, empty lines.
    client.send(r#"{"jsonrpc":"2.0","id":9,"result":{}}"#).await;
    client.send(r#"{"jsonrpc":"2.0","method":"notifications/unknown"}"#).await;
    client.send("").await;
    assert_eq!(client.ask(json!({"jsonrpc": "2.0", "id": 2, "method": "ping"})).await["id"], 2);
}

#[tokio::test]
async fn add_keeps_whole_numbers_whole() {
    let mut client = Client::start();
    for (a, b, sum) in [
        ("2", "5", "7"),
        ("2.5", "4.5", "7"),
        ("0.5", "0.25", "0.75"),
        ("-3", "1", "-2"),
        ("9223372036854775807", "1", "9223372036854775808"),
        ("1e300", "1", "1e+300"),
    ] {
        let arguments = serde_json::from_str(&format!(r#"{{"a":{a},"b":{b}}}"#)).unwrap();
        let result = client.call("add", arguments).await;
        assert_eq!(text(&result), sum);
        assert_eq!(result["structuredContent"]["sum"].to_string(), sum);
    }
}

#[tokio::test]
async fn arguments_that_do_not_fit_are_tool_errors_that_say_why() {
    let mut client = Client::start();
    for (tool, arguments, why) in [
        ("add", json!({"a": 2}), "missing field `b`"),
        ("add", json!({"a": 2, "b": "5"}), "invalid type: string"),
        ("add", json!({"a": 2, "b": 5, "c": 1}), "unknown field `c`"),
        ("echo", json!({}), "missing field `text`"),
        ("slow", json!({"seconds": 61}), "`seconds` must be from 0 to 60, not 61"),
        ("slow", json!({"seconds": -1}), "`seconds` must be from 0 to 60"),
        ("slow", json!({"steps": 0}), "`steps` must be from 1 to 1000"),
        ("run_command", json!({"command": "ls", "timeout_seconds": 0}), "`timeout_seconds` must be from 0.001 to 60"),
        ("run_command", json!({"command": ""}), "must name a program"),
        ("run_command", json!({"command": "no-such-program"}), "no such program"),
        ("run_command", json!({"command": "../x"}), "`..`"),
        ("run_command", json!({"command": "/etc/passwd"}), "neither in the workspace nor"),
        ("run_command", json!({"command": "ls", "args": ["a\0"]}), "NUL"),
        ("write_file", json!({"path": "../x", "content": ""}), "`..`"),
        ("read_file", json!({"path": "/etc/passwd"}), "absolute"),
    ] {
        let result = client.call(tool, arguments.clone()).await;
        assert_eq!(result["isError"], true, "{tool} {arguments}");
        assert!(text(&result).contains(why), "{tool} {arguments}: {}", text(&result));
    }
}

#[tokio::test]
async fn files_go_in_and_come_out() {
    let mut client = Client::start();
    let written = client.call("write_file", json!({"path": "a/b.txt", "content": "grüezi"})).await;
    assert_eq!(text(&written), "Wrote 7 bytes to a/b.txt.");
    assert_eq!(text(&client.call("read_file", json!({"path": "a/b.txt"})).await), "grüezi");
    let params = json!({"uri": "demo://workspace"});
    let listed = client.ask(json!({"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": params})).await;
    assert_eq!(listed["result"]["contents"][0]["text"], "a/\na/b.txt\t7\n");
}

#[tokio::test]
async fn what_is_listed_exists() {
    let mut client = Client::start();
    let list = |method: &str| json!({"jsonrpc": "2.0", "id": 1, "method": method});
    let tools = client.ask(list("tools/list")).await["result"]["tools"].take();
    let names: Vec<_> = tools.as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["add", "echo", "slow", "run_command", "write_file", "read_file"]);
    for tool in tools.as_array().unwrap() {
        assert_eq!(tool["inputSchema"]["type"], "object");
        assert!(tool["title"].is_string() && tool["description"].is_string());
        assert!(tool["annotations"]["readOnlyHint"].is_boolean());
    }
    for resource in client.ask(list("resources/list")).await["result"]["resources"].as_array().unwrap() {
        let params = json!({"uri": resource["uri"]});
        let read = client.ask(json!({"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": params})).await;
        assert!(read["result"]["contents"][0]["text"].is_string(), "{read}");
    }
    assert_eq!(client.ask(list("resources/templates/list")).await["result"], json!({"resourceTemplates": []}));
    assert_eq!(client.ask(list("prompts/list")).await["result"]["prompts"][0]["name"], "greet");
    let params = json!({"name": "greet", "arguments": {"name": "Ada"}});
    let prompt = client.ask(json!({"jsonrpc": "2.0", "id": 1, "method": "prompts/get", "params": params})).await;
    assert_eq!(prompt["result"]["messages"][0]["content"]["text"], "Please greet Ada warmly.");
}

#[tokio::test(start_paused = true)]
async fn slow_reports_progress_under_its_token_and_blocks_nobody() {
    for token in [json!(7), json!("7")] {
        let mut client = Client::start();
        let params =
            json!({"name": "slow", "arguments": {"seconds": 3, "steps": 3}, "_meta": {"progressToken": token}});
        client.send(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string()).await;
        assert_eq!(text(&client.call("add", json!({"a": 2, "b": 5})).await), "7");
        for step in 1..=3 {
            let progress = client.receive().await;
            assert_eq!(progress["method"], "notifications/progress");
            assert_eq!(progress["params"]["progressToken"], token);
            assert_eq!((&progress["params"]["progress"], &progress["params"]["total"]), (&json!(step), &json!(3)));
        }
        assert_eq!(client.receive().await["id"], 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_is_not_answered() {
    let mut client = Client::start();
    let begin = tokio::time::Instant::now();
    let params = json!({"name": "slow", "arguments": {"seconds": 60}});
    client.send(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string()).await;
    // The same id of another type is another request.
    for id in [json!("1"), json!(1)] {
        let params = json!({"requestId": id});
        client
            .send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}).to_string())
            .await;
    }
    assert_eq!(text(&client.call("echo", json!({"text": "after"})).await), "after");
    client.close().await;
    assert!(begin.elapsed() < Duration::from_millis(1), "the call was still running at the end");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_input_ends_calls_that_run() {
    let mut client = Client::start();
    let begin = tokio::time::Instant::now();
    let params = json!({"name": "slow", "arguments": {"seconds": 60}});
    for id in 0..3 {
        client.send(&json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}).to_string()).await;
    }
    client.close().await;
    assert!(begin.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn calls_at_once_are_bounded() {
    let mut client = Client::start();
    let params = json!({"name": "slow", "arguments": {"seconds": 1}});
    for id in 0..=MAX_CALLS {
        client.send(&json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}).to_string()).await;
    }
    let refused = client.receive().await;
    assert_eq!((&refused["id"], &refused["result"]["isError"]), (&json!(MAX_CALLS), &json!(true)));
    for _ in 0..MAX_CALLS {
        assert!(text(&client.receive().await["result"]).starts_with("Waited"));
    }
}

#[tokio::test]
async fn batches_belong_to_the_revisions_that_have_them() {
    let batch = json!([
        {"jsonrpc": "2.0", "id": 1, "method": "ping"},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "slow", "arguments": {"seconds": 0.01}}},
        {"jsonrpc": "2.0", "id": 3, "method": "nope"},
        5,
    ]);
    let mut client = Client::start();
    client.initialize("2025-03-26").await;
    let answers = client.ask(batch.clone()).await;
    let ids: Vec<_> = answers.as_array().unwrap().iter().map(|answer| answer["id"].clone()).collect();
    assert_eq!(ids, [json!(1), json!(2), json!(3), json!(null)]);
    // Nothing to answer, so no empty array.
    client.send(r#"[{"jsonrpc":"2.0","method":"notifications/initialized"}]"#).await;
    assert_eq!(client.ask(json!({"jsonrpc": "2.0", "id": 4, "method": "ping"})).await["id"], 4);

    let mut client = Client::start();
    client.initialize("2025-06-18").await;
    assert_eq!(client.ask(batch).await["error"]["code"], -32600);
}
