//! What children write, in whatever pieces and with whatever between: each message arrives whole, once, unchanged.

use serde_json::{Value, json};

use crate::binary::Binary;
use crate::harness::eventually;
use crate::proc;
use crate::scene::{BOTH, Client, Scene, Wire, fixture};

/// Text that breaks what is careless: four-byte characters, separators that are line ends elsewhere, escapes.
const AWKWARD: &str = r#"é ✓ 😀 \u2028 \u0000 \ud83d\ude00 \" \\ \/ \n \r"#;

#[tokio::test]
async fn any_way_of_writing_is_read() {
    for mode in ["split-utf8", "crlf", "garbage", "batch", "wrong-ids", "duplicate-answers", "string-ids"] {
        for wire in BOTH {
            let scene = Scene::of(fixture(&[mode])).await;
            let client = scene.open(wire).await;
            let text = "pieces: é ✓ 😀 \u{2028}\u{2029}\u{85} \u{feff} end";
            for _ in 0..3 {
                assert_eq!(client.text("echo", json!({"text": text})).await, text, "{mode} {wire:?}");
            }
            client.close().await;
            scene.finish().await;
        }
    }
}

#[tokio::test]
async fn a_second_answer_and_answers_to_nothing_are_dropped_and_counted() {
    for wire in BOTH {
        let scene = Scene::of(fixture(&["duplicate-answers"])).await;
        let client = scene.open(wire).await;
        for _ in 0..5 {
            client.text("echo", json!({"text": "once"})).await;
        }
        // Initialize and five calls: each second answer goes to nobody.
        scene.until("six answers are dropped", |m| m.dropped("unknown_id") == 6).await;
        assert_eq!(client.unsolicited(), Vec::<Value>::new());
        client.close().await;
        scene.finish().await;

        let scene = Scene::of(fixture(&["wrong-ids"])).await;
        let client = scene.open(wire).await;
        client.text("echo", json!({"text": "mine"})).await;
        // As a string, as a fraction, never asked, and null, for each of two answers.
        scene.until("answers are dropped", |m| m.dropped("unknown_id") == 8).await;
        assert_eq!(client.unsolicited(), Vec::<Value>::new());
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn what_is_said_passes_byte_for_byte() {
    for wire in BOTH {
        let scene = Scene::of(fixture(&["echo"])).await;
        let client = scene.open(wire).await;
        let raw = format!(
            r#"{{"jsonrpc":"2.0","id":"a\u0062é","method":"tools/call","params":{{"name":"echo","arguments":{{"text":"{AWKWARD}"}}}}}}"#
        );
        let expected = format!(
            r#"{{"jsonrpc":"2.0","id":"a\u0062é","result":{{"content":[{{"type":"text","text":"{AWKWARD}"}}],"isError":false}}}}"#
        );
        assert_eq!(client.exchange_raw(&raw, r#""a\u0062é""#).await, expected);
        // U+2028 as it is, and not as an escape.
        let raw = raw.replace("\\u2028", "\u{2028}");
        assert_eq!(client.exchange_raw(&raw, r#""a\u0062é""#).await, expected.replace("\\u2028", "\u{2028}"));
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn what_is_not_known_passes() {
    for wire in BOTH {
        let scene = Scene::of(fixture(&["echo"])).await;
        let client = scene.open(wire).await;
        let params = json!({"any": [1, "two", {"three": null}], "_meta": {"x/y": 1}});
        assert_eq!(client.request("x/unknown", params.clone()).await["result"]["echo"], params);
        client.notify("x/notified", params).await;
        let received = client.text("notifications_received", json!({})).await;
        assert_eq!(received, r#"["notifications/initialized","x/notified"]"#);
        // And from the server to the client.
        client.text("raw", json!({"line": r#"{"jsonrpc":"2.0","method":"x/said","params":{"n":1.0}}"#})).await;
        let said = client.next_unsolicited().await;
        assert_eq!(said["method"], "x/said");
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn raw_newlines_of_the_client_become_one_line() {
    for wire in BOTH {
        let scene = Scene::of(fixture(&["echo"])).await;
        let client = scene.open(wire).await;
        let raw = "{\r\n  \"jsonrpc\": \"2.0\",\n  \"id\": 7,\n  \"method\": \"tools/call\",\r\n\t\"params\": {\n\"name\": \"echo\",\n \"arguments\": {\"text\": \"line\\nline\"}\n}\n}\n";
        let answer: Value = serde_json::from_str(&client.exchange_raw(raw, "7").await).unwrap();
        assert_eq!(answer["result"]["content"][0]["text"], "line\nline");
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn ten_mebibytes_each_way_arrive_whole() {
    let text: String = "0123456789abcde✓".chars().cycle().take(10 << 20).collect();
    for wire in BOTH {
        let scene = Scene::of(fixture(&["echo"])).await;
        let client = scene.open(wire).await;
        assert!(client.text("echo", json!({"text": text})).await == text);
        assert_eq!(client.text("big", json!({"bytes": 10 << 20})).await.len(), 10 << 20);
        assert_eq!(client.text("echo", json!({"text": "small again"})).await, "small again");
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn lines_without_an_end_cost_bounded_memory() {
    const LINE: usize = 64 << 20;
    let line = LINE.to_string();
    let servers = ["long-line", "never-newline"].map(|mode| (mode, vec![mode, line.as_str()]));
    let binary = Binary::start(&servers, "").await;
    let before = proc::status(binary.pid(), "VmHWM");
    let client = Client::open(&binary.caller.server("long-line"), Wire::Sse).await;
    for _ in 0..3 {
        assert_eq!(client.text("echo", json!({"text": "after the line"})).await, "after the line");
    }
    assert_eq!(binary.metrics().await.dropped("oversized"), 3.0);
    let endless = Client::open(&binary.caller.server("never-newline"), Wire::Streamable).await;
    let stuck = binary.child("never-newline").await;
    let call = endless.start_call("echo", json!({"text": "never"}));
    eventually("all of it is read", async || (proc::bytes_written(stuck) > LINE as u64).then_some(())).await;
    let grown = proc::status(binary.pid(), "VmHWM") - before;
    // Twice the longest line that is taken, in KiB: a buffer grows by doubling.
    assert!(grown < 2 * 16 * 1024 + 8 * 1024, "the gateway has grown by {grown} KiB");
    proc::signal(stuck, rustix::process::Signal::KILL);
    let answer = call.await.unwrap();
    assert_eq!(answer["error"]["data"]["type"], "server_exited", "{answer}");
    client.close().await;
    endless.close().await;
    binary.stop().await;
}
