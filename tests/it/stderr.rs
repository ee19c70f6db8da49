//! What children write to stderr: logged with its origin, within bounds, and shown to nobody but their own client.

use std::time::Duration;

use serde_json::{Value, json};
use sluice::config::Isolation;

use crate::binary::{Binary, OTHER_KEY};
use crate::harness::{Gateway, eventually, key, named};
use crate::scene::{BOTH, Client, Scene, Wire, fixture, program};

/// The log lines that are a child's.
fn of_children(log: &[String]) -> Vec<Value> {
    let parse = |line: &String| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
    let parsed = log.iter().map(parse);
    parsed.filter(|line| line["target"] == "sluice::child").collect()
}

#[tokio::test]
async fn every_line_is_logged_with_tenant_server_and_session() {
    let binary = Binary::start(&[("echo", vec!["echo"])], "").await;
    let caller = binary.caller.server("echo");
    let mut sessions = Vec::new();
    for name in ["one", "two"] {
        let client = Client::open(&caller, Wire::Streamable).await;
        client.text("stderr", json!({"text": format!("this is {name}")})).await;
        let line = binary.logged(&format!("this is {name}")).await;
        assert_eq!(line["message"], format!("this is {name}"));
        assert_eq!((&line["tenant"], &line["server"]), (&json!("acme"), &json!("echo")));
        let id = client.session_id().unwrap();
        let session = line["session"].as_str().unwrap().to_owned();
        assert!(id.starts_with(&session) && session.len() < id.len() / 2, "the id's public part: {session}");
        sessions.push((client, session));
    }
    assert_ne!(sessions[0].1, sessions[1].1);
    for (client, _) in sessions {
        client.close().await;
    }
    binary.stop().await;
}

#[tokio::test]
async fn a_flood_is_thinned_and_a_long_line_left_out() {
    const LINES: usize = 10_000;
    let bytes = (LINES * 100).to_string();
    let servers = [("flood", vec!["stderr-flood", &bytes]), ("long", vec!["stderr-long-line", "1000000"])];
    let binary = Binary::start(&servers, "").await;
    for (server, _) in &servers {
        let client = Client::open(&binary.caller.server(server), Wire::Sse).await;
        assert_eq!(client.text("echo", json!({"text": "well"})).await, "well");
        client.close().await;
    }
    eventually("the children end", async || (binary.metrics().await.children() == 0.0).then_some(())).await;
    let dropped = binary.metrics().await.dropped("stderr_flood") as usize;
    let log = of_children(&binary.stop().await);
    let logged = log.iter().filter(|line| line["message"].as_str().unwrap().starts_with("eeee")).count();
    assert_eq!(logged + dropped, LINES, "every line is logged or counted");
    assert!(logged < LINES / 4, "{logged} lines of a flood were logged");
    let notes = log.iter().filter(|line| line["message"].as_str().unwrap().contains("lines left out")).count();
    assert!(notes >= 1, "the log says that lines are missing");
    let cut = log.iter().filter(|line| line["server"] == "long").collect::<Vec<_>>();
    assert_eq!(cut.len(), 1);
    assert_eq!(cut[0]["message"], "(a line of 1000000 bytes, left out)");
}

#[tokio::test]
async fn control_characters_reach_neither_the_terminal_nor_the_client() {
    let nasty = "\u{1b}[31mred\u{1b}[0m \u{7}bell \u{9b}31m \rstart\u{202e}";
    let binary = Binary::start(&[("echo", vec!["echo"])], "[log]\nformat = \"human\"\n").await;
    let client = Client::open(&binary.caller.server("echo"), Wire::Sse).await;
    client.text("stderr", json!({"text": nasty})).await;
    let line = eventually("it is logged", async || binary.log().into_iter().find(|line| line.contains("bell"))).await;
    let is_bad = |c: char| c.is_control() && c != '\t';
    assert!(!line.contains(is_bad), "{line:?}");
    let answer = client.call("crash", json!({})).await;
    let said = answer["error"]["data"]["stderr"][0].as_str().unwrap();
    assert!(said.contains("bell") && !said.contains(is_bad), "{said:?}");
    assert!(!answer["error"]["message"].as_str().unwrap().contains(is_bad), "{answer}");
    client.close().await;
    binary.stop().await;
}

#[tokio::test]
async fn the_tail_is_bounded_and_its_own() {
    for wire in BOTH {
        let mut server = fixture(&["echo"]);
        server.limits.stderr_tail = 3;
        let scene = Scene::of(server).await;
        let (one, two) = (scene.open(wire).await, scene.open(wire).await);
        for number in 0..10 {
            one.text("stderr", json!({"text": format!("one {number} {}", "x".repeat(2000))})).await;
            two.text("stderr", json!({"text": format!("two {number}")})).await;
        }
        let answer = two.call("crash", json!({})).await;
        assert_eq!(answer["error"]["data"]["stderr"], json!(["two 7", "two 8", "two 9"]));
        let answer = one.call("crash", json!({})).await;
        let lines = answer["error"]["data"]["stderr"].as_array().unwrap();
        assert_eq!(lines.len(), 3);
        for (line, number) in lines.iter().zip(7..) {
            let line = line.as_str().unwrap();
            assert!(line.starts_with(&format!("one {number} xxx")) && line.len() <= 512, "{line}");
        }
        one.close().await;
        two.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn what_a_child_that_tenants_share_has_written_is_for_the_operator_alone() {
    let binary = Binary::start(&[("echo", vec!["echo"])], "isolation = \"shared\"\n").await;
    let acme = Client::open(&binary.caller, Wire::Sse).await;
    let umbrella = Client::open(&binary.caller.with_key(OTHER_KEY), Wire::Streamable).await;
    assert_eq!(acme.pid().await, umbrella.pid().await, "they share it");
    acme.text("stderr", json!({"text": "what acme is about to buy"})).await;
    let line = binary.logged("what acme is about to buy").await;
    assert_eq!((&line["tenant"], &line["server"], &line["session"]), (&json!("-"), &json!("echo"), &json!("-")));
    let hanging = acme.start_call("hang", json!({}));
    acme.pid().await;
    for answer in [umbrella.call("crash", json!({"code": 9})).await, hanging.await.unwrap()] {
        let (error, data) = (&answer["error"], &answer["error"]["data"]);
        assert_eq!((&data["type"], &data["exitCode"]), (&json!("server_exited"), &json!(9)), "{answer}");
        assert!(error["message"].as_str().unwrap().contains("exit code 9"), "{answer}");
        assert!(data.get("stderr").is_none() && !answer.to_string().contains("about to buy"), "{answer}");
    }
    for client in [acme, umbrella] {
        client.close().await;
    }
    binary.stop().await;
}

#[tokio::test]
async fn a_start_that_tenants_wait_for_fails_with_its_exit_code_and_without_its_stderr() {
    for (isolation, has_lines) in [(Isolation::Shared, false), (Isolation::Tenant, true), (Isolation::Principal, true)]
    {
        let mut exits = fixture(&["exit", "3"]);
        let mut hangs = program("sh", &["-c", "echo a complaint >&2; exec sleep 300"]);
        hangs.limits.start_timeout = Duration::from_secs(1);
        hangs.limits.stdin_grace = Duration::from_millis(50);
        (exits.isolation, hangs.isolation) = (isolation, isolation);
        let mut keys = Vec::new();
        let gateway = Gateway::start_with([named("exits", exits), named("hangs", hangs)], |config| {
            keys = vec![key(config, "acme", "ann"), key(config, "umbrella", "bob")];
        })
        .await;
        let started = |key: &str, server: &str| {
            let caller = gateway.with_key(key).server(server);
            async move {
                let client = Client::connect(&caller, Wire::Sse).await;
                let answer = client.initialize().await;
                client.close().await;
                answer
            }
        };
        for (server, kind) in [("exits", "server_start_failed"), ("hangs", "server_start_timeout")] {
            // At the same time, so that both wait for one child where they share it.
            let (ann, bob) = tokio::join!(started(&keys[0], server), started(&keys[1], server));
            for answer in [ann, bob] {
                let data = &answer["error"]["data"];
                assert_eq!(data["type"], kind, "{isolation:?}: {answer}");
                assert_eq!(data["exitCode"], if server == "exits" { json!(3) } else { Value::Null }, "{answer}");
                assert_eq!(data["stderr"].is_array(), has_lines, "{isolation:?}: {answer}");
                let text = answer.to_string();
                assert_eq!(text.contains("giving up") || text.contains("complaint"), has_lines, "{answer}");
            }
        }
        gateway.finish().await;
    }
}
