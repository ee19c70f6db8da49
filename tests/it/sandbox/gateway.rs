//! What a server of a real gateway learns of that gateway and of another tenant's server, and can do to them: in a
//! sandbox nothing, though all of these processes are the same user's.

use std::fmt::Write as _;

use rustix::thread::CapabilitySet;
use serde_json::{Value, json};
use sluice::config::SandboxMode;

use super::asked;
use super::stage::{NOBODY, is_root};
use crate::binary::{Binary, CANARY, OTHER_KEY};
use crate::proc;
use crate::scene::{Client, Wire};

/// What the servers try, by name.
const PROBES: [(&str, &str); 8] = [
    ("environment of the gateway", "tr '\\0' '\\n' </proc/$GATEWAY/environ | grep -q $CANARY"),
    ("memory of the gateway", "exec 3</proc/$GATEWAY/mem"),
    ("descriptors of the gateway", "readlink /proc/$GATEWAY/fd/0"),
    ("configuration of the gateway", "grep -q sha256 $CONFIG"),
    ("end of the gateway", "kill -0 $GATEWAY"),
    ("environment of a server", "tr '\\0' '\\n' </proc/$OTHER/environ | grep -q hunter2"),
    ("files of a server", "cat $FOLDER/file"),
    ("end of a server", "kill -0 $OTHER"),
];

/// Those of them that the gateway refuses to every process of its user.
const CONCEALED: [&str; 3] = ["environment of the gateway", "memory of the gateway", "descriptors of the gateway"];

/// The answers to the probes, in their order.
fn answers(is_possible: impl Fn(&str) -> bool) -> Vec<String> {
    let answer = |name: &str| format!("{name}: {}", if is_possible(name) { "yes" } else { "no" });
    PROBES.iter().map(|(name, _)| answer(name)).collect()
}

#[tokio::test]
async fn neither_the_gateway_nor_its_other_servers_are_within_reach() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let facts = folder.path().join("facts");
    std::fs::write(&facts, "").unwrap();
    let script: String = PROBES.iter().map(|(name, probe)| asked(name, probe)).collect();
    // The answers go to stderr, whose last lines are in the error of a start that fails.
    let command = format!("command = \"sh\"\nargs = [\"-c\", {:?}, {facts:?}]", format!(". $0; exec >&2\n{script}"));
    let mut more = "[servers.neighbour.env]\nSECRET = \"literal:hunter2\"\n".to_owned();
    for mode in SandboxMode::ALL.map(SandboxMode::as_str) {
        writeln!(more, "[servers.{mode}]\nsandbox = {mode:?}\n{command}").unwrap();
    }
    if is_root() {
        let user = format!("user = \"{NOBODY}\"\ngroup = \"{NOBODY}\"");
        writeln!(more, "[servers.nobody]\n{command}\n[servers.nobody.sandbox]\n{user}").unwrap();
    }
    let binary = Binary::start(&[("neighbour", vec!["echo"])], &more).await;
    let neighbour = Client::open(&binary.caller.with_key(OTHER_KEY).server("neighbour"), Wire::Streamable).await;
    let (gateway, other) = (binary.pid(), neighbour.pid().await);
    std::fs::write(proc::cwd(other).join("file"), "hunter2").unwrap();
    let config = proc::arguments(gateway).split_whitespace().last().unwrap().to_owned();
    let text = format!(
        "GATEWAY={gateway} CANARY={} CONFIG={config} OTHER={other} FOLDER={}\n",
        CANARY.0,
        proc::cwd(other).display()
    );
    std::fs::write(&facts, text).unwrap();

    let said = async |server: &str| -> Vec<String> {
        let client = Client::connect(&binary.caller.server(server), Wire::Streamable).await;
        let answer: Value = client.initialize().await;
        client.close().await;
        serde_json::from_value(answer["error"]["data"]["stderr"].clone()).unwrap_or_else(|_| panic!("{answer}"))
    };
    // Even without a sandbox, only who may trace every process looks into the gateway.
    let traces_all = rustix::thread::capabilities(None).unwrap().effective.contains(CapabilitySet::SYS_PTRACE);
    let without = answers(|name| traces_all || !CONCEALED.contains(&name));
    assert_eq!(said("none").await, without);
    for server in ["standard", "strict"].into_iter().chain(is_root().then_some("nobody")) {
        assert_eq!(said(server).await, answers(|_| false), "{server}");
    }
    assert_eq!(neighbour.text("echo", json!({"text": "unharmed"})).await, "unharmed");
    neighbour.close().await;
    binary.stop().await;
}
