//! The file of the binary is replaced while it runs: what it starts is of its own version all the same.

use std::path::Path;

use rustix::process::Signal;
use serde_json::json;

use super::program::{Program, Setup, gone, signal};

const SERVERS: &str = "[servers.own]\ncommand = \"sluice\"\nargs = [\"stdio-demo\"]\n\
                       [servers.confined]\ncommand = \"sluice\"\nargs = [\"stdio-demo\"]\nsandbox = \"standard\"\n";

#[tokio::test]
async fn a_gateway_whose_binary_is_replaced_goes_on_with_its_own() {
    let mut setup = Setup { configuration: SERVERS.to_owned(), ..Setup::default() };
    let binary = setup.folder.path().join("sluice");
    std::fs::copy(&setup.binary, &binary).unwrap();
    setup.binary.clone_from(&binary);
    let program = Program::start_as(setup);
    let session = program.open("own").await;
    assert_eq!(session.call("add", json!({"a": 2, "b": 5})).await, "7");
    // As package managers do: the old file is unlinked, and a new one gets its name.
    let next = binary.with_extension("new");
    std::fs::write(&next, "#!/bin/sh\nexit 1\n").unwrap();
    std::fs::set_permissions(&next, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::rename(&next, &binary).unwrap();
    let first = program.guardian().await;
    signal(first, Signal::KILL);
    gone(&[first]).await;
    let second = program.guardian().await;
    let runs = |pid| std::fs::read(Path::new("/proc").join(format!("{pid}/exe"))).unwrap();
    assert!(runs(second) == runs(program.pid()), "it is of the version of the gateway");
    for server in ["own", "confined"] {
        let session = program.open(server).await;
        assert_eq!(session.call("add", json!({"a": 2, "b": 5})).await, "7", "{server}");
        let ran = session.call("run_command", json!({"command": "echo", "args": ["hello"]})).await;
        assert!(ran.contains("hello"), "{server}: {ran}");
    }
    assert_eq!(session.call("add", json!({"a": 2, "b": 5})).await, "7");
    program.finish().await;
}
