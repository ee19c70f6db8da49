//! An answer reaches the exchange that asked, or nobody: ids and progress tokens, the same ones from everybody at once.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Gateway, Response, Sse, Streamable, fixture, text_of};

/// Ids as clients may write them. Each is another id than the others.
const IDS: [&str; 14] = [
    "1",
    "\"1\"",
    "1.0",
    "1e2",
    "-0",
    "-7",
    "9007199254740993",
    "123456789012345678901234567890",
    "0.1000000000000000055511151231257827",
    "\"\"",
    "\"\\u0041\"",
    "\"A\"",
    "\"quotes \\\" and \\\\ and \\n and \u{1f980} and \\ud83e\\udd80\"",
    "\"},\\\"id\\\":2,{\"",
];

fn echo(id: &str, text: &str) -> String {
    // The arguments and names that look like an id must stay as they are.
    format!(
        r#"{{"params": {{"name":"echo","id":{id},"arguments":{{"text":"{text}","id":1}}}}, "id" : {id} ,"method":"tools/call","jsonrpc":"2.0"}}"#
    )
}

fn answer(id: &str, text: &str) -> String {
    let content = format!(r#"{{"content":[{{"type":"text","text":"{text}"}}],"isError":false}}"#);
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{content}}}"#)
}

#[tokio::test]
async fn ids_come_back_byte_for_byte() {
    let gateway = Gateway::start(fixture("echo")).await;
    let (client, mut sse) = (gateway.streamable().await, gateway.sse().await);
    for id in IDS {
        assert_eq!(client.send(echo(id, "x")).await.text, answer(id, "x"));
        sse.post(echo(id, "y")).await;
        assert_eq!(sse.stream.message_text().await, Some(answer(id, "y")));
        // So they do when the server answers with an error.
        let unknown = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"made/up"}}"#);
        let error = client.send(unknown).await.text;
        assert!(error.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601"#)), "{error}");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn an_unknown_method_passes_as_it_is() {
    let gateway = Gateway::start(fixture("echo")).await;
    let client = gateway.streamable().await;
    let params = r#"{"deep":[[[{"a":null}]]],"big":12345678901234567890.5e-400,"é":"\ud83e\udd80\/"}"#;
    let request = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x/custom","params":{params}}}"#);
    // The fixture decodes what it gets; what the gateway hands on is compared byte for byte in the echo of a text.
    let reply = client.send(request).await.json();
    assert_eq!(reply["result"]["echo"]["deep"], json!([[[{"a": null}]]]));
    for text in [r"\ud83e\udd80\/\u0000", "\u{1f980}é\u{2028}", r"line\r\nbreak", " \t "] {
        let escaped = text.replace('\t', "\\t");
        assert_eq!(client.send(echo("1", &escaped)).await.text, answer("1", &escaped));
    }
    gateway.finish().await;
}

#[tokio::test]
async fn one_id_many_times_at_once_in_one_session_has_each_its_own_answer() {
    let gateway = Gateway::start(fixture("echo")).await;
    let (client, mut sse) = (gateway.streamable().await, gateway.sse().await);
    let calls = (0..100).map(|number| {
        let client = &client;
        async move {
            // Some are answered late, and so out of their order.
            let (tool, arguments) = match number % 4 {
                0 => ("sleep", json!({"ms": 20 + number})),
                _ => ("echo", json!({"text": format!("slept {} ms", 20 + number)})),
            };
            let params = json!({"name": tool, "arguments": arguments});
            let reply = client.send(json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})).await;
            let answer = reply.json();
            assert_eq!((&answer["id"], text_of(&answer)), (&json!(1), format!("slept {} ms", 20 + number)));
        }
    });
    join_all(calls).await;

    join_all((0..100).map(|number| sse.post(echo("1", &number.to_string())))).await;
    let mut texts = Vec::new();
    for _ in 0..100 {
        let answer = sse.message().await;
        assert_eq!(answer["id"], 1);
        texts.push(text_of(&answer).parse::<u64>().unwrap());
    }
    texts.sort_unstable();
    assert_eq!(texts, (0..100).collect::<Vec<_>>());
    gateway.finish().await;
}

/// A client's calls, all at once, with the ids 1, 2, …: every answer must be its own.
async fn converse(client: &str, mut sse: Sse, streamable: Streamable) {
    let text = |number: u64| format!("{client} asked {number}");
    let numbers = 1..=40_u64;
    join_all(numbers.clone().map(|number| sse.post(echo(&number.to_string(), &text(number))))).await;
    let posts = numbers.clone().map(|number| {
        let (id, text, streamable) = (number.to_string(), text(number), &streamable);
        async move { assert_eq!(streamable.send(echo(&id, &text)).await.text, answer(&id, &text)) }
    });
    join_all(posts).await;
    let mut seen = Vec::new();
    for _ in numbers.clone() {
        let message = sse.message().await;
        let id = message["id"].as_u64().unwrap();
        assert_eq!(text_of(&message), text(id));
        seen.push(id);
    }
    seen.sort_unstable();
    assert_eq!(seen, numbers.collect::<Vec<_>>());
    // Nothing else is there: the next message is the answer to this.
    assert_eq!(sse.call("echo", json!({"text": "the end"})).await, "the end");
    assert!(sse.unsolicited.is_empty(), "{:?}", sse.unsolicited);
}

#[tokio::test]
async fn sixteen_clients_with_the_same_ids_get_their_own_answers_only() {
    let gateway = Gateway::start(fixture("echo")).await;
    let clients = (0..8).map(|number| {
        let gateway = &gateway;
        async move {
            let (sse, streamable) = (gateway.sse().await, gateway.streamable().await);
            converse(&format!("client {number}"), sse, streamable).await;
        }
    });
    join_all(clients).await;
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("sluice_children_spawned_total", ""), 16.0, "a child each");
    assert_eq!(metrics.sum("sluice_dropped_messages_total", ""), 0.0);
    gateway.finish().await;
}

/// Calls the tool `progress` with a token, written as in JSON.
fn progress(id: u64, token: &str, steps: u64, ms: u64) -> String {
    let arguments = json!({"steps": steps, "ms": ms});
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"progress","_meta":{{"progressToken":{token}}},"arguments":{arguments}}}}}"#
    )
}

async fn all(mut response: Response) -> Vec<String> {
    let mut messages = Vec::new();
    while let Some(message) = response.message_text().await {
        messages.push(message);
    }
    messages
}

#[tokio::test]
async fn equal_progress_tokens_of_calls_at_once_are_kept_apart() {
    let gateway = Gateway::start(fixture("echo")).await;
    let client = gateway.streamable().await;
    for token in ["1", "\"1\"", "\"\\u0041\""] {
        let calls = (2..8_u64).map(|steps| {
            let client = &client;
            async move {
                let messages = all(client.open(progress(1, token, steps, 3)).await).await;
                assert_eq!(messages.len() as u64, steps + 1, "{messages:?}");
                let (answer, reports) = messages.split_last().unwrap();
                assert!(answer.contains(&format!("{steps} steps")), "{answer}");
                for (number, report) in (1..).zip(reports) {
                    assert!(report.contains(&format!(r#""progressToken":{token}"#)), "{report}");
                    let report: Value = serde_json::from_str(report).unwrap();
                    assert_eq!(report["params"]["total"], steps, "progress of another call: {report}");
                    assert_eq!(report["params"]["progress"], number);
                }
            }
        });
        join_all(calls).await;
    }
    gateway.finish().await;
}

#[tokio::test]
async fn progress_that_is_late_or_was_not_asked_for_is_dropped_and_counted() {
    let gateway = Gateway::start(fixture("echo")).await;
    let mut bystander = gateway.bystander().await;
    let mut sse = gateway.sse().await;
    for token in ["987654", "1", "\"1\"", "null", "{}"] {
        let line = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":1}}}}"#
        );
        assert_eq!(sse.call("raw", json!({"line": line})).await, "written");
    }
    assert!(sse.unsolicited.is_empty(), "{:?}", sse.unsolicited);
    assert_eq!(gateway.metrics().await.dropped("late_progress"), 5.0);
    bystander.unharmed().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_cancelled_call_ends_without_an_answer_and_the_child_hears_its_own_id() {
    let gateway =
        Gateway::start_with([fixture("echo")], |config| config.http.keep_alive = Duration::from_millis(20)).await;
    let mut bystander = gateway.bystander().await;
    let mut client = gateway.streamable().await;
    let mut response = client.open(progress(7, "\"t\"", 4, 50)).await;
    assert_eq!(response.message().await.unwrap()["params"]["progress"], 1);
    let params = json!({"requestId": 7, "reason": "enough"});
    client.notify(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})).await;
    assert_eq!(response.message().await, None, "no more progress, no answer");

    let cancelled: Vec<Value> = serde_json::from_str(&client.call("cancelled", json!({})).await).unwrap();
    assert!(matches!(cancelled.as_slice(), [Value::Number(_)]), "{cancelled:?}");
    let late = |metrics: &crate::harness::Metrics| {
        metrics.dropped("late_progress") == 3.0 && metrics.dropped("unknown_id") == 1.0
    };
    gateway.until("what comes late is dropped", late).await;

    // The child's own number of a call: it answers under it, so an answer with that id reaches nobody else either.
    let line = json!({"jsonrpc": "2.0", "id": cancelled[0], "result": {"late": true}}).to_string();
    assert_eq!(client.call("raw", json!({"line": line})).await, "written");
    assert_eq!(gateway.metrics().await.dropped("unknown_id"), 2.0);
    bystander.unharmed().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_cancelled_call_over_sse_has_no_answer() {
    let gateway = Gateway::start(fixture("echo")).await;
    let mut sse = gateway.sse().await;
    // Much longer than it takes to cancel it, on a machine that is busy.
    let sleep = json!({"name": "sleep", "arguments": {"ms": 1000}});
    sse.post(json!({"jsonrpc": "2.0", "id": "gone", "method": "tools/call", "params": sleep})).await;
    let cancel = json!({"requestId": "gone"});
    sse.post(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancel})).await;
    gateway.until("its answer is dropped", |metrics| metrics.dropped("unknown_id") == 1.0).await;
    assert_eq!(sse.call("echo", json!({"text": "next"})).await, "next");
    assert!(sse.unsolicited.is_empty(), "{:?}", sse.unsolicited);
    gateway.finish().await;
}

#[tokio::test]
async fn what_is_not_in_flight_cannot_be_cancelled_nor_what_is_anothers() {
    let gateway = Gateway::start(fixture("echo")).await;
    let (mine, mut yours) = (gateway.streamable().await, gateway.streamable().await);
    let sleep = json!({"name": "sleep", "arguments": {"ms": 100}});
    let call = mine.open(json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": sleep}));
    let cancel = async {
        for id in [json!(1), json!("1"), json!(null), json!({}), json!(9)] {
            let params = json!({"requestId": id});
            yours.notify(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})).await;
        }
        yours.notify(json!({"jsonrpc": "2.0", "method": "notifications/cancelled"})).await;
        assert_eq!(yours.call("cancelled", json!({})).await, "[]", "the child is not bothered");
    };
    let (response, ()) = tokio::join!(call, cancel);
    assert_eq!(text_of(&response.reply().await.json()), "slept 100 ms");
    gateway.finish().await;
}

#[tokio::test]
async fn answers_with_strange_ids_reach_nobody() {
    for mode in ["wrong-ids", "duplicate-answers"] {
        let gateway = Gateway::start(fixture(mode)).await;
        let (mut client, mut sse) = (gateway.streamable().await, gateway.sse().await);
        for number in 0..5 {
            let text = format!("{mode} {number}");
            assert_eq!(client.call("echo", json!({"text": text})).await, text);
            assert_eq!(sse.call("echo", json!({"text": text})).await, text);
        }
        assert!(sse.unsolicited.is_empty(), "{mode}: {:?}", sse.unsolicited);
        let dropped = if mode == "wrong-ids" { 48.0 } else { 12.0 };
        gateway.until("each is counted", |metrics| metrics.dropped("unknown_id") == dropped).await;
        gateway.finish().await;
    }
}
