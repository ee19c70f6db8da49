//! What a child is given: the environment, descriptors, folder and group that are its own, and nothing of the gateway.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::binary::{Binary, CANARY, KEY, OTHER_KEY};
use crate::harness::eventually;
use crate::proc;
use crate::scene::{BOTH, Client, Scene, Wire, fixture, program};

#[tokio::test]
async fn the_environment_is_what_is_configured_and_nothing_else() {
    let more = "[servers.echo.env]\nGIVEN = \"literal:a=b c\"\n";
    let binary = Binary::start(&[("echo", vec!["echo"]), ("bare", vec!["echo"])], more).await;
    let path = format!("PATH={}", sluice::config::CHILD_PATH);
    for (server, given) in [("echo", Some("GIVEN=a=b c")), ("bare", None)] {
        for wire in BOTH {
            let client = Client::open(&binary.caller.server(server), wire).await;
            let expected: Vec<String> = given.map(str::to_owned).into_iter().chain([path.clone()]).collect();
            let pid = client.pid().await;
            let (private, others): (Vec<_>, Vec<_>) =
                proc::environment(pid).into_iter().partition(|entry| entry.starts_with("TMPDIR="));
            assert_eq!(others, expected);
            let folder = private.first().unwrap().strip_prefix("TMPDIR=").unwrap();
            assert_eq!((private.len(), proc::cwd(pid)), (1, folder.into()), "it starts in a folder of its own");
            let env = client.text("env", json!({})).await;
            for secret in [CANARY.0, CANARY.1, KEY, OTHER_KEY] {
                assert!(!env.contains(secret), "{secret} has reached the child: {env}");
            }
            let arguments = client.text("args", json!({})).await;
            assert!(!arguments.contains(KEY), "{arguments}");
            client.close().await;
        }
    }
    binary.stop().await;
}

#[tokio::test]
async fn a_variable_is_passed_on_only_where_it_is_asked_for() {
    let more =
        format!("[servers.passed]\ncommand = \"sluice\"\nargs = [\"stdio-demo\"]\npass_env = [{:?}]\n", CANARY.0);
    let binary = Binary::start(&[("echo", vec!["echo"])], &more).await;
    let client = Client::open(&binary.caller.server("passed"), Wire::Streamable).await;
    let child = binary.child("stdio-demo").await;
    assert!(proc::environment(child).contains(&format!("{}={}", CANARY.0, CANARY.1)));
    let other = Client::open(&binary.caller.server("echo"), Wire::Streamable).await;
    assert!(!proc::environment(other.pid().await).iter().any(|entry| entry.contains(CANARY.0)));
    client.close().await;
    other.close().await;
    binary.stop().await;
}

#[tokio::test]
async fn a_child_has_its_three_pipes_and_no_other_descriptor() {
    // What any child of this process has that is started with three pipes: what runs the tests may have left it more.
    let piped = || Stdio::piped();
    let mut standard = Command::new("sleep").arg("300").stdin(piped()).stdout(piped()).stderr(piped()).spawn().unwrap();
    eventually("it sleeps", async || proc::is_running_program(standard.id(), "sleep").then_some(())).await;
    let inherited: Vec<_> = proc::descriptors(standard.id()).into_iter().filter(|(number, _)| *number > 2).collect();
    // It opens nothing itself, and never answers: what it has is what it was given.
    let scene = Scene::of(program("sleep", &["300"])).await;
    // Many sessions, so that there are descriptors that could leak.
    let healthy = scene.alice.server("healthy");
    let mut others = Vec::new();
    for number in 0..20 {
        others.push(Client::open(&healthy, BOTH[number % 2]).await);
    }
    let mut waiting = Vec::new();
    for _ in 0..5 {
        let client = scene.connect(Wire::Sse).await;
        waiting.push((client.start_initialize(), client));
    }
    let sleepers = eventually("five of them sleep", async || {
        let mut sleepers = proc::descendants(std::process::id());
        sleepers.retain(|pid| proc::is_running_program(*pid, "sleep") && *pid != standard.id());
        (sleepers.len() == 5).then_some(sleepers)
    })
    .await;
    let mut pipes = BTreeSet::new();
    for pid in sleepers {
        let (own, more): (Vec<_>, Vec<_>) = proc::descriptors(pid).into_iter().partition(|(number, _)| *number <= 2);
        assert!(more.iter().all(|descriptor| inherited.contains(descriptor)), "{more:?} beyond {inherited:?}");
        assert_eq!(own.len(), 3);
        for (_, target) in own {
            assert!(target.starts_with("pipe:"), "{target}");
            assert!(pipes.insert(target), "a pipe is shared");
        }
    }
    for (start, client) in waiting {
        start.abort();
        client.close().await;
    }
    for client in others {
        let descriptors = proc::descriptors(client.pid().await);
        for (_, target) in descriptors.into_iter().filter(|descriptor| !inherited.contains(descriptor)) {
            // The fixture has the same pipes under more than one number.
            assert!(target.starts_with("pipe:"), "{target}");
            assert!(!pipes.contains(&target), "another child's pipe");
        }
        client.close().await;
    }
    standard.kill().unwrap();
    standard.wait().unwrap();
    scene.finish().await;
}

#[tokio::test]
async fn folder_and_process_group_are_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = fixture(&["echo"]);
    server.cwd = Some(folder.path().to_owned());
    let scene = Scene::of(server).await;
    for wire in BOTH {
        let client = scene.open(wire).await;
        let pid = client.pid().await;
        assert_eq!(proc::cwd(pid), folder.path().canonicalize().unwrap());
        assert_eq!(proc::stat(pid).unwrap().group, pid);
        client.close().await;
    }
    scene.finish().await;
}
