//! Servers that do not start: the client learns why, on both transports, and nobody else is touched.

use serde_json::{Value, json};

use crate::scene::{BOTH, Scene, Wire, fixture, program, switchable};

/// Initializes a session with `server`, which must fail, on each transport; hands the error to `check`.
async fn fails(server: sluice::config::Server, check: impl Fn(&Value)) {
    for wire in BOTH {
        let scene = Scene::of(server.clone()).await;
        let client = scene.connect(wire).await;
        // HTTP+SSE has its session already: it goes on, and initialize may be tried again.
        for _ in 0..2 {
            let answer = client.initialize().await;
            let error = &answer["error"];
            assert!(error.is_object(), "{wire:?}: {answer}");
            assert!(error["message"].as_str().unwrap().contains("\"subject\""), "it names the server: {answer}");
            check(error);
            if wire == Wire::Streamable {
                assert_eq!(client.session_id(), None, "a failed start hands out no session");
                scene.until("no session is left", |m| m.sessions() == 0).await;
            } else {
                assert_eq!(scene.counts().await.sessions(), 1);
            }
        }
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn a_command_that_does_not_exist() {
    fails(program("/nonexistent/mcp-server", &[]), |error| {
        assert_eq!(error["code"], -32000);
        assert_eq!(error["data"]["type"], "server_start_failed");
        assert!(error["message"].as_str().unwrap().contains("\"/nonexistent/mcp-server\" was not found"), "{error}");
    })
    .await;
    fails(program("no-such-mcp-server", &[]), |error| {
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("\"no-such-mcp-server\" was not found in its PATH (/usr/local/sbin:"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_command_that_cannot_be_executed() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain.txt");
    std::fs::write(&plain, "this is no program").unwrap();
    for path in [plain.as_path(), folder.path()] {
        fails(program(path.to_str().unwrap(), &[]), |error| {
            assert_eq!(error["data"]["type"], "server_start_failed");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains(&format!("\"{}\" is not an executable file", path.display())), "{error}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_file_that_the_system_cannot_run() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script");
    std::fs::write(&script, "#!/nonexistent/interpreter\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    fails(program(script.to_str().unwrap(), &[]), |error| {
        assert_eq!(error["data"]["type"], "server_start_failed");
        assert!(error["message"].as_str().unwrap().contains("could not be started"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_working_directory_that_does_not_exist() {
    let mut server = fixture(&["echo"]);
    server.cwd = Some("/nonexistent/folder".into());
    fails(server, |error| {
        assert_eq!(error["data"]["type"], "server_start_failed");
        assert!(error["message"].as_str().unwrap().contains("directory /nonexistent/folder does not exist"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_server_that_exits_at_once() {
    fails(fixture(&["exit", "3"]), |error| {
        assert_eq!(error["code"], -32000);
        assert_eq!(error["data"]["type"], "server_start_failed");
        assert_eq!(error["data"]["exitCode"], 3);
        assert_eq!(error["data"]["retryable"], false);
        let lines = json!(["fixture: cannot open the database", "fixture: giving up"]);
        assert_eq!(error["data"]["stderr"], lines, "its last lines, and nobody else's");
        assert!(error["message"].as_str().unwrap().contains("exit code 3"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_server_that_never_answers_initialize() {
    let mut server = fixture(&["never-initialize"]);
    server.limits.start_timeout = std::time::Duration::from_millis(100);
    fails(server, |error| {
        assert_eq!(error["code"], -32001);
        assert_eq!(error["data"]["type"], "server_start_timeout");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("no answer to initialize within 100ms (limits.start_timeout)"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_program_that_is_no_mcp_server() {
    // It reads nothing and prints prose: the error says what it did wrong.
    fails(program("sh", &["-c", "echo Usage: server; echo '  --stdio'; exit 2"]), |error| {
        assert_eq!(error["data"]["exitCode"], 2);
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("2 line(s) to stdout that are no JSON-RPC messages"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_server_that_refuses_initialize() {
    for wire in BOTH {
        let scene = Scene::of(fixture(&["initialize-error"])).await;
        let client = scene.connect(wire).await;
        for _ in 0..2 {
            let answer = client.initialize().await;
            assert_eq!(answer["error"]["message"], "this server is out of order", "the server's own words: {answer}");
        }
        // Each attempt had a child of its own: none hears a second initialize.
        scene.until("both children have ended", |m| m.children() == 0).await;
        assert_eq!(scene.counts().await.spawned(), 2);
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn a_start_that_fails_after_the_answer_became_a_stream_leaves_no_session() {
    let mut server = fixture(&["never-initialize"]);
    // Longer than the response waits for the status that a full pool would give it.
    server.pool.queue_timeout = std::time::Duration::ZERO;
    server.limits.start_timeout = std::time::Duration::from_millis(1500);
    let scene = Scene::with(server, |config| config.http.keep_alive = std::time::Duration::from_millis(50)).await;
    let client = scene.connect(Wire::Streamable).await;
    let answer = client.initialize().await;
    assert_eq!(answer["error"]["data"]["type"], "server_start_timeout", "{answer}");
    assert!(client.session_id().is_some(), "the stream began, and gave an id, before it was known");
    scene.until("the session has ended", |m| m.sessions() == 0).await;
    assert_eq!(client.post(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).await.status, 404);
    scene.finish().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_during_a_slow_start_leaves_nothing() {
    for keep_alive in [30_000, 20] {
        let mut server = fixture(&["never-initialize"]);
        // The start goes on for so long, as the client may come back.
        server.limits.start_timeout = std::time::Duration::from_secs(1);
        let keep_alive = std::time::Duration::from_millis(keep_alive);
        let scene = Scene::with(server, |config| config.http.keep_alive = keep_alive).await;
        for wire in BOTH {
            let mut client = scene.connect(wire).await;
            let started = client.start_initialize();
            scene.until("the child runs", |m| m.children() == 1).await;
            started.abort();
            client.hang_up().await;
            scene.until("the session is gone", |m| m.sessions() == 0).await;
            scene.until("its child is gone", |m| m.children() == 0).await;
        }
        scene.finish().await;
    }
}

#[tokio::test]
async fn a_banner_on_stdout_is_left_out_and_counted() {
    for wire in BOTH {
        let scene = Scene::of(fixture(&["banner"])).await;
        let client = scene.open(wire).await;
        assert_eq!(client.text("echo", json!({"text": "still here"})).await, "still here");
        assert_eq!(scene.counts().await.dropped("not_json"), 2);
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn a_server_that_exits_after_initialize_is_started_again_for_each_call() {
    for wire in BOTH {
        let mut server = fixture(&["exit-after-initialize", "0"]);
        // The child is also restarted while no call is made, and each of these restarts ends in a crash.
        server.restart.max_crashes = 1000;
        let scene = Scene::of(server).await;
        let client = scene.open(wire).await;
        for _ in 0..2 {
            let answer = client.call("echo", json!({"text": "?"})).await;
            assert_eq!(answer["error"]["code"], -32000, "{answer}");
            assert_eq!(answer["error"]["data"]["type"], "server_exited", "{answer}");
        }
        assert!(scene.counts().await.restarts() >= 1);
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn a_slow_start_works_and_holds_nobody_up() {
    for wire in BOTH {
        let scene = Scene::of(fixture(&["slow-start", "500"])).await;
        let before = scene.bystander_calls();
        let client = scene.open(wire).await;
        assert!(scene.bystander_calls() > before + 3, "others are served meanwhile");
        assert_eq!(client.text("echo", json!({"text": "late"})).await, "late");
        client.close().await;
        scene.finish().await;
    }
}

#[tokio::test]
async fn what_waits_for_a_start_is_bounded() {
    for wire in BOTH {
        let (mut server, mode) = switchable(&["echo"]);
        server.limits.max_in_flight = 2;
        let scene = Scene::of(server).await;
        let client = scene.open(wire).await;
        mode.set(&["slow-start", "500"]);
        client.call("crash", json!({})).await;
        let calls: Vec<_> = (0..5).map(|_| client.start("ping", json!({}))).collect();
        let mut busy = 0;
        for call in calls {
            let answer = call.await.unwrap();
            if answer["error"]["code"] == -32003 {
                busy += 1;
            } else {
                assert_eq!(answer["result"], json!({}), "{answer}");
            }
        }
        assert_eq!(busy, 3, "two wait, the others are told to come back");
        client.close().await;
        scene.finish().await;
    }
}
