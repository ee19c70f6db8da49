//! What a child in the place of another is asked for again: what the one before it has agreed to, in a fixed order,
//! before anything else reaches it.

use std::time::Duration;

use serde_json::{Value, json};
use sluice::config::{Isolation, Server};

use crate::binary::Binary;
use crate::harness::eventually;
use crate::scene::{BOTH, Client, Mode, Scene, Wire, fixture, switchable};

const NOTE: &str = "fixture://note";

/// Each way of having a child, with its own copy of a server.
fn each_way(server: &Server) -> [Server; 2] {
    [Isolation::Session, Isolation::Shared].map(|isolation| Server { isolation, ..server.clone() })
}

async fn crash(client: &Client) {
    let answer = client.call("crash", json!({})).await;
    assert_eq!(answer["error"]["data"]["type"], "server_exited", "{answer}");
}

async fn subscriptions(client: &Client) -> Value {
    serde_json::from_str(&client.text("subscriptions", json!({})).await).unwrap()
}

fn code(answer: &Value) -> &Value {
    &answer["error"]["code"]
}

/// A client of a server that does nothing out of the ordinary yet.
async fn begin(server: &Server, mode: &Mode, wire: Wire) -> (Scene, Client) {
    mode.set(&["echo"]);
    let scene = Scene::of(server.clone()).await;
    let client = scene.open(wire).await;
    (scene, client)
}

#[tokio::test]
async fn what_a_server_has_refused_is_not_asked_of_the_next() {
    let (server, mode) = switchable(&["refuse", "resources/subscribe"]);
    for server in each_way(&server) {
        for wire in BOTH {
            mode.set(&["refuse", "resources/subscribe"]);
            let scene = Scene::of(server.clone()).await;
            let client = scene.open(wire).await;
            assert_eq!(code(&client.request("resources/subscribe", json!({"uri": NOTE})).await), -32000);
            mode.set(&["refuse", "logging/setLevel"]);
            crash(&client).await;
            assert_eq!(subscriptions(&client).await, json!([]), "{:?}", server.isolation);
            assert_eq!(code(&client.request("logging/setLevel", json!({"level": "error"})).await), -32000);
            client.request("resources/subscribe", json!({"uri": NOTE})).await;
            mode.set(&["refuse", "resources/unsubscribe"]);
            crash(&client).await;
            assert_eq!(client.text("levels", json!({})).await, "[]", "{:?}", server.isolation);
            // One that cannot be given back is still had.
            assert_eq!(code(&client.request("resources/unsubscribe", json!({"uri": NOTE})).await), -32000);
            mode.set(&["echo"]);
            crash(&client).await;
            assert_eq!(subscriptions(&client).await, json!([NOTE]), "{:?}", server.isolation);
            client.request("resources/unsubscribe", json!({"uri": NOTE})).await;
            crash(&client).await;
            assert_eq!(subscriptions(&client).await, json!([]), "{:?}", server.isolation);
            assert_eq!(scene.counts().await.value("sluice_replay_refusals_total"), 0);
            client.close().await;
            scene.finish().await;
        }
    }
}

#[tokio::test]
async fn what_the_next_child_refuses_is_counted_and_logged_and_the_session_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let first = folder.path().join("first");
    // The first instance takes it, the others do not.
    let script = format!(
        "if mkdir {first:?} 2>&-; then exec {fixture:?} echo; fi; exec {fixture:?} refuse resources/subscribe",
        fixture = crate::harness::fixture_path()
    );
    let more = format!("[servers.once]\ncommand = \"sh\"\nargs = [\"-c\", {script:?}]\nsandbox = \"none\"\n");
    let binary = Binary::start(&[("echo", vec!["echo"])], &more).await;
    let client = Client::open(&binary.caller.server("once"), Wire::Sse).await;
    for uri in ["fixture://private-a", "fixture://private-b"] {
        assert_eq!(client.request("resources/subscribe", json!({"uri": uri})).await["result"], json!({}));
    }
    crash(&client).await;
    assert_eq!(subscriptions(&client).await, json!([]));
    let line = binary.logged("another child refuses").await;
    assert_eq!((&line["server"], &line["method"]), (&json!("once"), &json!("resources/subscribe")), "{line}");
    assert_eq!(line["code"], -32000, "{line}");
    assert_eq!(binary.metrics().await.sum("sluice_replay_refusals_total", "server=\"once\""), 2.0);
    assert!(!binary.log().iter().any(|line| line.contains("private-")), "what it subscribes to is its own");
    client.close().await;
    binary.stop().await;
}

#[tokio::test]
async fn the_handshake_is_replayed_in_order_and_nothing_overtakes_it() {
    let (server, mode) = switchable(&["echo"]);
    for server in each_way(&server) {
        for wire in BOTH {
            let (scene, client) = begin(&server, &mode, wire).await;
            for uri in ["fixture://c", "fixture://a", "fixture://b"] {
                client.request("resources/subscribe", json!({"uri": uri})).await;
            }
            client.request("logging/setLevel", json!({"level": "debug"})).await;
            client.request("logging/setLevel", json!({"level": "notice"})).await;
            // Slow, so that there is time to overtake.
            mode.set(&["slow-reader", "20"]);
            crash(&client).await;
            scene.until("another child starts", |m| m.spawned() == 2).await;
            let calls: Vec<_> = (0..5).map(|_| client.start_call("pid", json!({}))).collect();
            client.notify("notifications/of/its/own", json!({})).await;
            for call in calls {
                call.await.unwrap();
            }
            let heard: Vec<String> = serde_json::from_str(&client.text("heard", json!({})).await).unwrap();
            let replayed = [
                "initialize",
                "notifications/initialized",
                "logging/setLevel",
                "resources/subscribe",
                "resources/subscribe",
                "resources/subscribe",
            ];
            assert_eq!(heard[..6], replayed, "{:?}", server.isolation);
            assert!(!heard[6..].iter().any(|method| replayed.contains(&method.as_str())), "{heard:?}");
            assert_eq!(client.text("levels", json!({})).await, r#"["notice"]"#);
            client.close().await;
            scene.finish().await;
        }
    }
}

#[tokio::test]
async fn what_a_client_says_right_behind_initialize_is_said_again() {
    for wire in BOTH {
        let scene = Scene::of(fixture(&["slow-start", "200"])).await;
        let client = scene.connect(wire).await;
        let initialized = client.start_initialize();
        if wire == Wire::Sse {
            // It has its session already.
            scene.until("it starts", |m| m.spawned() == 1).await;
            client.notify("notifications/initialized", json!({})).await;
        }
        assert!(initialized.await.unwrap()["result"].is_object());
        if wire == Wire::Streamable {
            client.notify("notifications/initialized", json!({})).await;
        }
        for _ in 0..2 {
            let heard = client.text("heard", json!({})).await;
            assert!(heard.starts_with(r#"["initialize","notifications/initialized","tools/call""#), "{heard}");
            crash(&client).await;
        }
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn a_child_that_is_too_busy_for_all_of_it_at_once_gets_all_of_it() {
    let (mut server, mode) = switchable(&["echo"]);
    server.isolation = Isolation::Shared;
    server.limits.max_in_flight = 1;
    let scene = Scene::of(server).await;
    let mut clients = Vec::new();
    for number in 0..8 {
        let client = scene.open(BOTH[number % 2]).await;
        let uri = format!("fixture://{number}");
        assert_eq!(client.request("resources/subscribe", json!({"uri": uri})).await["result"], json!({}));
        clients.push(client);
    }
    mode.set(&["slow-reader", "10"]);
    crash(&clients[0]).await;
    // Each of them as soon as it is its turn, while others are still asking.
    let mut all: Vec<String> = eventually("all are subscribed", async || {
        let answer = clients[0].call("subscriptions", json!({})).await;
        let text = answer["result"]["content"][0]["text"].as_str()?;
        let all: Vec<String> = serde_json::from_str(text).unwrap();
        (all.len() >= clients.len()).then_some(all)
    })
    .await;
    all.sort();
    assert_eq!(all, (0..8).map(|number| format!("fixture://{number}")).collect::<Vec<_>>());
    assert_eq!(scene.counts().await.value("sluice_replay_refusals_total"), 0);
    for client in clients {
        client.close().await;
    }
    scene.finish().await;
}

#[tokio::test]
async fn a_child_that_ends_in_the_middle_of_it_is_followed_by_one_that_hears_all_of_it() {
    let (server, mode) = switchable(&["echo"]);
    for server in each_way(&server) {
        for wire in BOTH {
            let (scene, client) = begin(&server, &mode, wire).await;
            client.request("resources/subscribe", json!({"uri": NOTE})).await;
            client.request("logging/setLevel", json!({"level": "error"})).await;
            mode.set(&["exit-after-initialize", "4"]);
            crash(&client).await;
            scene.until("the next one ends as well", |m| m.exits("crashed") >= 2).await;
            mode.set(&["echo"]);
            let goes_on = async || client.call("pid", json!({})).await["result"].is_object().then_some(());
            eventually("the session goes on", goes_on).await;
            assert_eq!(subscriptions(&client).await, json!([NOTE]), "{:?}", server.isolation);
            assert_eq!(client.text("levels", json!({})).await, r#"["error"]"#);
            client.close().await;
            scene.finish().await;
        }
    }
}

/// Answers the next request of the server with these roots.
async fn tell_roots(client: &Client, roots: &Value) {
    let asked = client.next_but_lists().await;
    assert_eq!(asked["method"], "roots/list", "{asked}");
    client.send(&json!({"jsonrpc": "2.0", "id": asked["id"], "result": roots})).await;
}

/// Waits until the child has heard these roots.
async fn until_known(client: &Client, roots: &Value) {
    eventually("it knows the roots", async || {
        let known: Value = serde_json::from_str(&client.text("first_roots", json!({})).await).unwrap();
        (known["result"] == *roots).then_some(())
    })
    .await;
}

fn roots(path: &str) -> Value {
    json!({"roots": [{"uri": format!("file:///{path}")}]})
}

#[tokio::test]
async fn the_next_child_learns_the_roots_though_it_wants_them_before_it_takes_anything() {
    for wire in BOTH {
        let scene = Scene::of(fixture(&["roots-first"])).await;
        let mut client = scene.open(wire).await;
        client.listen().await;
        tell_roots(&client, &roots("old")).await;
        client.request("resources/subscribe", json!({"uri": NOTE})).await;
        crash(&client).await;
        tell_roots(&client, &roots("new")).await;
        until_known(&client, &roots("new")).await;
        until_subscribed(&client, &[NOTE.to_owned()]).await;
        assert_eq!(client.unsolicited_but_lists(), Vec::<Value>::new(), "it was asked once");
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn the_next_child_learns_the_roots_of_a_client_that_was_not_listening() {
    let scene = Scene::of(fixture(&["roots-first"])).await;
    let mut client = scene.open(Wire::Streamable).await;
    client.listen().await;
    tell_roots(&client, &roots("old")).await;
    client.request("resources/subscribe", json!({"uri": NOTE})).await;
    client.hang_up().await;
    crash(&client).await;
    scene.until("another child", |m| m.spawned() == 2).await;
    scene.until("it has heard of the handshake", |m| m.to_server() >= 8).await;
    client.listen().await;
    tell_roots(&client, &roots("new")).await;
    until_known(&client, &roots("new")).await;
    until_subscribed(&client, &[NOTE.to_owned()]).await;
    client.close().await;
    scene.finish().await;
}

#[tokio::test]
async fn what_a_child_that_is_being_replaced_is_just_granting_is_asked_of_its_successor() {
    for wire in BOTH {
        let mut server = fixture(&["roots-first"]);
        server.pool.max_requests = Some(2);
        let scene = Scene::of(server).await;
        let mut client = scene.open(wire).await;
        client.listen().await;
        client.pid().await;
        let subscribed = client.start("resources/subscribe", json!({"uri": NOTE}));
        scene.until("it is in flight, and the last that the child takes", |m| m.to_server() == 4).await;
        let call = client.start_call("heard", json!({}));
        scene.until("a successor", |m| m.spawned() == 2).await;
        tell_roots(&client, &roots("old")).await;
        assert_eq!(subscribed.await.unwrap()["result"], json!({}));
        tell_roots(&client, &roots("new")).await;
        let heard: Value = serde_json::from_str(&crate::harness::text_of(&call.await.unwrap())).unwrap();
        let in_order = ["initialize", "notifications/initialized", "resources/subscribe", "tools/call"];
        assert_eq!(heard, json!(in_order), "the successor is asked before it gets the next call ({wire:?})");
        // Nothing waits for its consent, which it gives after it has the roots, on a thread of its own. Not asked for
        // again and again: it takes one call more.
        scene.until("each has said four things, the last its consent", |m| m.to_client() == 8).await;
        assert_eq!(subscriptions(&client).await, json!([NOTE]), "{wire:?}");
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn an_initialize_that_is_too_large_to_be_kept_is_refused() {
    for wire in BOTH {
        let scene = Scene::of(fixture(&["echo"])).await;
        let client = scene.connect(wire).await;
        let padding = "x".repeat(256 * 1024);
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"_meta": {"x": padding}}});
        let answer: Value = serde_json::from_str(&client.exchange_raw(&message.to_string(), "1").await).unwrap();
        assert_eq!(code(&answer), -32600, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("larger than 262144 bytes"), "{answer}");
        assert_eq!(scene.counts().await.spawned(), 0);
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn what_a_child_does_not_get_to_in_time_is_counted_as_refused() {
    let (mut server, mode) = switchable(&["echo"]);
    server.limits.start_timeout = Duration::from_secs(1);
    for server in each_way(&server) {
        let (scene, client) = begin(&server, &mode, Wire::Sse).await;
        for uri in [NOTE, "fixture://more", "fixture://most"] {
            client.request("resources/subscribe", json!({"uri": uri})).await;
        }
        mode.set(&["never-subscribe"]);
        crash(&client).await;
        assert_eq!(client.text("echo", json!({"text": "on"})).await, "on");
        scene.until("all are given up", |m| m.value("sluice_replay_refusals_total") == 3).await;
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn nothing_that_a_new_child_is_asked_again_holds_up_the_next_call() {
    let (mut server, mode) = switchable(&["echo"]);
    // Less than any of the time-outs in question.
    let quick = Duration::from_secs(5);
    server.restart.resend = sluice::config::Resend::ReadOnly;
    for server in each_way(&server) {
        for wire in BOTH {
            for mute in ["resources/subscribe", "logging/setLevel", "tools/list", "prompts/list", "resources/list"] {
                let (scene, client) = begin(&server, &mode, wire).await;
                for list in ["tools/list", "prompts/list", "resources/list"] {
                    client.request(list, json!({})).await;
                }
                client.request("resources/subscribe", json!({"uri": NOTE})).await;
                client.request("logging/setLevel", json!({"level": "error"})).await;
                mode.set(&["mute", mute]);
                crash(&client).await;
                let begin = std::time::Instant::now();
                assert_eq!(client.text("echo", json!({"text": "on"})).await, "on");
                assert!(begin.elapsed() < quick, "{mute}, {wire:?}, {:?}: {:?}", server.isolation, begin.elapsed());
                client.close().await;
                scene.finish().await;
            }
        }
    }
}

/// Subscribes to more than a child is asked again at once.
async fn subscribe_to_many(client: &Client) -> Vec<String> {
    let uris: Vec<String> = (0..150).map(|number| format!("fixture://{number:03}")).collect();
    for uri in &uris {
        assert_eq!(client.request("resources/subscribe", json!({"uri": uri})).await["result"], json!({}));
    }
    uris
}

/// Waits until the child is subscribed to these, and to nothing else.
async fn until_subscribed(client: &Client, uris: &[String]) {
    eventually("it has what the session has", async || {
        let all: Vec<String> = serde_json::from_value(subscriptions(client).await).unwrap();
        assert!(all.iter().all(|uri| uris.contains(uri)), "too many: {all:?}");
        (all.len() == uris.len()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_a_client_says_while_a_child_is_asked_again_holds() {
    let (server, mode) = switchable(&["echo"]);
    for server in each_way(&server) {
        let (scene, client) = begin(&server, &mode, Wire::Streamable).await;
        let mut uris = subscribe_to_many(&client).await;
        mode.set(&["slow-reader", "5"]);
        crash(&client).await;
        // One that it has been asked for already, and one that it has not.
        for uri in [uris.remove(149), uris.remove(0)] {
            assert!(client.request("resources/unsubscribe", json!({"uri": uri})).await["result"].is_object());
        }
        until_subscribed(&client, &uris).await;
        assert_eq!(scene.counts().await.value("sluice_replay_refusals_total"), 0);
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn what_a_child_was_still_to_be_asked_when_it_crashed_is_asked_of_the_next() {
    let (server, mode) = switchable(&["echo"]);
    for server in each_way(&server) {
        let (scene, client) = begin(&server, &mode, Wire::Streamable).await;
        let uris = subscribe_to_many(&client).await;
        mode.set(&["slow-reader", "5"]);
        crash(&client).await;
        crash(&client).await;
        until_subscribed(&client, &uris).await;
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn a_child_that_speaks_another_version_than_the_one_before_it_is_not_put_to_the_client() {
    let (server, mode) = switchable(&["version", "2025-06-18"]);
    for server in each_way(&server) {
        for wire in BOTH {
            mode.set(&["version", "2025-06-18"]);
            let scene = Scene::of(server.clone()).await;
            let client = scene.open(wire).await;
            mode.set(&["version", "2024-11-05"]);
            crash(&client).await;
            let answer = client.call("echo", json!({"text": "?"})).await;
            assert_eq!(answer["error"]["data"]["type"], "server_version_changed", "{answer}");
            let text = answer["error"]["message"].as_str().unwrap();
            assert!(text.contains("2024-11-05") && text.contains("2025-06-18"), "{text}");
            mode.set(&["version", "2025-06-18"]);
            // One that is shared stays for others, who may have negotiated that.
            if server.isolation == Isolation::Session {
                let goes_on = async || client.call("pid", json!({})).await["result"].is_object().then_some(());
                eventually("the session goes on with one that speaks it", goes_on).await;
            }
            client.close().await;
            scene.finish().await;
        }
    }
}
