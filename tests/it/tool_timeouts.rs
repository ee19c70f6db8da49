//! A tool may have a time-out of its own; progress extends it like that of all calls.

use std::time::{Duration, Instant};

use serde_json::json;
use sluice::config::{Server, Tool};

use crate::scene::{BOTH, Scene, fixture};

fn with_timeout(tool: &str, timeout: Duration) -> Server {
    let mut server = fixture(&["echo"]);
    server.tools.insert(tool.to_owned(), Tool { timeout: Some(timeout), resend: None });
    server
}

#[tokio::test]
async fn a_tool_has_its_own_time_and_others_have_theirs() {
    for wire in BOTH {
        let scene = Scene::of(with_timeout("hang", Duration::from_millis(200))).await;
        let client = scene.open(wire).await;
        let before = client.pid().await;
        let other = client.start_call("sleep", json!({"ms": 1500}));
        let late = client.call("hang", json!({})).await;
        let error = &late["error"];
        assert_eq!((&error["code"], &error["data"]["type"]), (&json!(-32001), &json!("call_timeout")), "{late}");
        let text = error["message"].as_str().unwrap();
        assert!(text.contains("200ms") && text.contains("the timeout of this tool"), "{text}");
        let cancelled = client.text("cancelled", json!({})).await;
        assert_ne!(cancelled, "[]", "the server has been told");
        assert_eq!(crate::harness::text_of(&other.await.unwrap()), "slept 1500 ms");
        assert_eq!(client.pid().await, before);
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn progress_starts_the_time_of_a_tool_anew() {
    for wire in BOTH {
        let scene = Scene::of(with_timeout("progress", Duration::from_millis(1500))).await;
        let client = scene.open(wire).await;
        let call = |meta| {
            let arguments = json!({"steps": 4, "ms": 700});
            client.start("tools/call", json!({"name": "progress", "arguments": arguments, "_meta": meta}))
        };
        let (told, silent) = (call(json!({"progressToken": "p"})), call(json!({})));
        assert_eq!(silent.await.unwrap()["error"]["data"]["type"], "call_timeout");
        assert_eq!(crate::harness::text_of(&told.await.unwrap()), "4 steps");
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn a_time_out_comes_when_it_is_due() {
    let timeout = Duration::from_millis(200);
    let scene = Scene::of(with_timeout("hang", timeout)).await;
    for wire in BOTH {
        let client = scene.open(wire).await;
        let mut late = Vec::new();
        for _ in 0..6 {
            let begin = Instant::now();
            let answer = client.call("hang", json!({})).await;
            assert_eq!(answer["error"]["data"]["type"], "call_timeout", "{answer}");
            late.push(begin.elapsed().checked_sub(timeout).expect("it comes too early"));
        }
        // The machine may be busy, but not each time. The first one may be luck, were they looked for now and then.
        let least = late[1..].iter().min().unwrap();
        assert!(*least < Duration::from_millis(100), "{late:?}");
        client.close().await;
    }
    scene.finish().await;
}
