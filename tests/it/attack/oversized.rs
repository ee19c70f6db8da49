//! A message of a child that is over `limits.max_line` ends the call that it answers, at once, and no other.

use serde_json::{Value, json};
use sluice::config::Server;

use crate::scene::{BOTH, Client, Scene, Wire, fixture, program};

/// The limit in these tests.
const LIMIT: usize = 4096;

fn small(mode: &[&str]) -> Server {
    let mut server = fixture(mode);
    server.limits.max_line = LIMIT;
    server
}

fn assert_too_large(answer: &Value, limit: usize) {
    let error = &answer["error"];
    assert_eq!(error["data"]["type"], "message_too_large", "{answer}");
    let text = error["message"].as_str().unwrap();
    assert!(text.contains("limits.max_line") && text.contains(&limit.to_string()), "{text}");
}

/// The session goes on with the same child, and answers are still its own.
async fn assert_goes_on(client: &Client, pid: u32) {
    assert_eq!(client.text("echo", json!({"text": "next"})).await, "next");
    assert_eq!(client.pid().await, pid);
}

#[tokio::test]
async fn an_answer_over_the_limit_ends_its_call_at_once_wherever_the_id_stands() {
    for mode in ["echo", "id-last", "batch", "crlf", "split-utf8"] {
        for wire in BOTH {
            let scene = Scene::of(small(&[mode])).await;
            let client = scene.open(wire).await;
            let pid = client.pid().await;
            // Just over the limit, in one piece, and more than is read at a time.
            for bytes in [LIMIT, 20_000, 300_000] {
                let other = client.start_call("sleep", json!({"ms": 50}));
                let answer = client.call("big", json!({"bytes": bytes})).await;
                assert_too_large(&answer, LIMIT);
                let size = answer["error"]["message"].as_str().unwrap().split(' ').filter_map(|word| word.parse().ok());
                assert!(size.into_iter().any(|size: usize| size > bytes && size < bytes + 200), "{answer}");
                assert_eq!(crate::harness::text_of(&other.await.unwrap()), "slept 50 ms");
            }
            assert_goes_on(&client, pid).await;
            assert_eq!(scene.counts().await.dropped("oversized"), 3);
            client.close().await;
            scene.finish().await;
        }
    }
}

#[tokio::test]
async fn an_answer_over_the_default_limit_ends_its_call_at_once() {
    for mode in ["echo", "id-last"] {
        let scene = Scene::of(fixture(&[mode])).await;
        let client = scene.open(BOTH[0]).await;
        let pid = client.pid().await;
        assert_too_large(&client.call("big", json!({"bytes": 40 << 20})).await, 16 << 20);
        assert_goes_on(&client, pid).await;
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn a_server_that_answers_initialize_with_too_much_says_so_at_once() {
    let mut server = fixture(&["id-last"]);
    server.limits.max_line = 100;
    for wire in BOTH {
        let scene = Scene::of(server.clone()).await;
        let client = scene.connect(wire).await;
        let answer = client.initialize().await;
        let text = answer["error"]["message"].as_str().unwrap();
        assert!(text.contains("limits.max_line is 100 bytes"), "{answer}");
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn a_request_of_the_server_over_the_limit_is_refused_to_the_server() {
    for mode in ["echo", "string-ids"] {
        for wire in BOTH {
            let scene = Scene::of(small(&[mode])).await;
            let client = scene.open(wire).await;
            let params = json!({"method": "x/large", "params": {"text": "x".repeat(2 * LIMIT)}});
            let heard = client.call("unknown_request", params).await;
            // The tool returns the answer that it got; that is small.
            let heard: Value = serde_json::from_str(&crate::harness::text_of(&heard)).unwrap();
            assert_too_large(&heard, LIMIT);
            assert_eq!(client.unsolicited(), Vec::<Value>::new());
            client.close().await;
            scene.finish().await;
        }
    }
}

#[tokio::test]
async fn a_line_over_the_limit_that_answers_nothing_ends_no_call() {
    let scene = Scene::of(small(&["echo"])).await;
    let client = scene.open(BOTH[0]).await;
    let pid = client.pid().await;
    let padding = "x".repeat(2 * LIMIT);
    let lines = [
        json!({"jsonrpc": "2.0", "method": "notifications/x", "params": {"id": 1, "text": padding}}).to_string(),
        format!(r#"{{"jsonrpc":"2.0","result":{{"id":1}},"text":"{padding}"}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":1,"id":2,"result":"{padding}"}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":987654321,"result":"{padding}"}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":null,"result":"{padding}"}}"#),
        format!("[{}]", "0,".repeat(LIMIT)),
        "[".repeat(2 * LIMIT),
        padding,
    ];
    let waits = client.start_call("wait_for", json!({"path": "/proc/self/never"}));
    for line in &lines {
        assert_eq!(client.text("raw", json!({"line": line})).await, "written");
    }
    assert_eq!(scene.counts().await.dropped("oversized"), lines.len() as u64);
    assert!(!waits.is_finished(), "no other call is ended");
    waits.abort();
    assert_goes_on(&client, pid).await;
    client.close().await;
    scene.finish().await;
}

/// The answer to `initialize` is kept, and read again for each session: it is bounded.
#[tokio::test]
async fn an_answer_to_initialize_that_is_too_large_is_an_error_and_a_large_one_is_taken() {
    for (filling, is_taken) in [(200_000, true), (300_000, false)] {
        let script = format!(
            r#"while read -r line; do id=$(expr "$line" : '.*"id":\([0-9]*\)'); [ "$id" ] || continue
               printf '{{"jsonrpc":"2.0","id":%s,"result":{{"protocolVersion":"2025-11-25","capabilities":{{}},' "$id"
               printf '"serverInfo":{{"name":"x","version":"1"}},"instructions":"'
               head -c {filling} /dev/zero | tr '\0' x; printf '"}}}}\n'; done"#
        );
        let scene = Scene::of(program("/bin/sh", &["-c", &script])).await;
        let client = scene.connect(Wire::Streamable).await;
        let answer = client.start_initialize().await.unwrap();
        match is_taken {
            true => assert_eq!(answer["result"]["instructions"].as_str().map(str::len), Some(filling)),
            false => assert!(answer["error"]["message"].as_str().unwrap().contains("262144 bytes"), "{answer}"),
        }
        client.close().await;
        scene.finish().await;
    }
}
