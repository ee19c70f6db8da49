//! No server changes what another tenant's runs: it only reads the folder that it starts in, and where it may change
//! one, that is its owner's alone.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;
use sluice::config::{Isolation, SandboxMode, Server};

use crate::harness::{Gateway, key, named};
use crate::sandbox::Scene;
use crate::sandbox::asked;
use crate::sandbox::stage::{As, SLUICE, run};
use crate::scene::{Client, Wire};

#[test]
fn a_server_only_reads_where_it_starts() {
    let probes = [
        ("rewrite", "echo x >> server.py"),
        ("replace", "echo x > new && mv new server.py"),
        ("plant a module", "echo x > json.py"),
        ("plant a program", "mkdir -p node_modules/.bin && echo x > node_modules/.bin/tool"),
        ("plant settings", "echo x > .npmrc"),
        ("link", "ln -s /bin/sh link"),
        ("remove", "cp server.py kept && rm server.py && mv kept server.py"),
    ];
    let script: String = probes.iter().map(|(name, probe)| asked(name, probe)).collect::<String>() + "cat server.py\n";
    for user in As::all() {
        for mode in SandboxMode::ALL {
            let said = |is_listed: bool| {
                let scene = Scene::new();
                std::fs::write(scene.folder.path().join("own/server.py"), "code\n").unwrap();
                let own = scene.folder.path().join("own/server.py");
                std::fs::set_permissions(own, std::fs::Permissions::from_mode(0o666)).unwrap();
                let mut server = scene.server(mode, &script);
                if !is_listed {
                    server.sandbox.write.clear();
                }
                run(server, user).stdout
            };
            let answers =
                |answer: &str| probes.iter().map(|(name, _)| format!("{name}: {answer}\n")).collect::<String>();
            let is_open = mode == SandboxMode::None;
            assert_eq!(said(false).starts_with(&answers("yes")), is_open, "{user:?} {mode:?}");
            assert_eq!(said(false) == answers("no") + "code\n", !is_open, "{user:?} {mode:?}");
            assert!(said(true).starts_with(&answers("yes")), "{user:?} {mode:?}");
        }
    }
}

/// A gateway whose server keeps files where it starts, and three of its principals: two of one tenant, one of another.
async fn gateway(base: &Path, isolation: Isolation, mode: SandboxMode) -> (Gateway, [String; 3]) {
    let arguments = ["stdio-demo", "--workspace", "."].map(str::to_owned).to_vec();
    let mut server = Server::new("files".parse().unwrap(), SLUICE, arguments);
    server.isolation = isolation;
    server.sandbox.mode = mode;
    server.workspace = Some(base.to_owned());
    let mut keys = Default::default();
    let gateway = Gateway::start_with([named("files", server)], |config| {
        keys =
            [("acme", "alice"), ("acme", "bob"), ("umbrella", "alice")].map(|(tenant, who)| key(config, tenant, who));
    })
    .await;
    (gateway, keys)
}

/// What somebody finds in the file `kept`, in a session of its own; and afterwards it holds the name of `who`.
async fn visit(gateway: &Gateway, key: &str, who: &str) -> String {
    let client = Client::open(&gateway.with_key(key).server("files"), Wire::Streamable).await;
    let list = json!({"command": "sh", "args": ["-c", format!("cat kept 2>/dev/null; echo {who} > kept")]});
    let found = client.text("run_command", list).await;
    client.close().await;
    found
}

#[tokio::test]
async fn a_workspace_is_its_owners_alone() {
    for (isolation, bob_finds) in [(Isolation::Session, ""), (Isolation::Principal, ""), (Isolation::Tenant, "alice\n")]
    {
        for mode in SandboxMode::ALL {
            let base = tempfile::tempdir().unwrap();
            let (gateway, [alice, bob, other]) = gateway(base.path(), isolation, mode).await;
            assert_eq!(visit(&gateway, &alice, "alice").await, "", "{isolation:?} {mode:?}");
            assert_eq!(visit(&gateway, &other, "other").await, "", "{isolation:?} {mode:?}");
            assert_eq!(visit(&gateway, &alice, "alice").await, "alice\n", "kept: {isolation:?} {mode:?}");
            let found = visit(&gateway, &bob, "bob").await;
            assert_eq!(found, bob_finds, "{isolation:?} {mode:?}");
            let folders = std::fs::read_dir(base.path()).unwrap().map(|entry| entry.unwrap());
            let modes: Vec<_> = folders.map(|entry| entry.metadata().unwrap().permissions().mode() & 0o7777).collect();
            assert_eq!(
                modes,
                vec![0o700; if isolation == Isolation::Tenant { 2 } else { 3 }],
                "{isolation:?} {mode:?}"
            );
            gateway.finish().await;
        }
    }
}

#[tokio::test]
async fn a_server_reaches_no_workspace_of_others() {
    let base = tempfile::tempdir().unwrap();
    std::fs::set_permissions(base.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    for mode in [SandboxMode::None, SandboxMode::Standard, SandboxMode::Strict] {
        let folder = base.path().join(mode.as_str());
        std::fs::create_dir(&folder).unwrap();
        let script =
            "mkdir -p ../tenant.umbrella; echo x 2>/dev/null > ../tenant.umbrella/planted; echo own > own; ls .. >&2";
        let mut server = Server::new("s".parse().unwrap(), "/bin/sh", vec!["-c".to_owned(), script.to_owned()]);
        server.isolation = Isolation::Tenant;
        server.sandbox.mode = mode;
        server.workspace = Some(folder.clone());
        let mut alice = String::new();
        let gateway = Gateway::start_with([named("s", server)], |config| alice = key(config, "acme", "alice")).await;
        let client = Client::connect(&gateway.with_key(&alice).server("s"), Wire::Streamable).await;
        assert!(client.initialize().await["error"].is_object());
        client.close().await;
        gateway.finish().await;
        assert!(folder.join("tenant.acme/own").exists(), "{mode:?}");
        assert_eq!(folder.join("tenant.umbrella/planted").exists(), mode == SandboxMode::None, "{mode:?}");
    }
}

/// What `sluice check` says of a configuration with one server in a folder with `server.py`, and its exit code.
fn check(folder: &Path, server: &str, tenants: &[&str]) -> (String, i32) {
    let key = |name: &&str| {
        format!(
            "[tenants.{name}]\n[[auth.keys]]\nprefix = \"{name}\"\nsha256 = \"{}\"\ntenant = \"{name}\"\nsubject = \"a\"\n",
            "0".repeat(64)
        )
    };
    let keys: String = tenants.iter().map(key).collect();
    let text = format!("admin.listen = \"off\"\n{keys}[servers.s]\n{server}");
    let path = folder.join("sluice.toml");
    std::fs::write(&path, text).unwrap();
    let mut command = Command::new(SLUICE);
    command.args(["check", "--config"]).arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let said = command.spawn().unwrap().wait_with_output().unwrap();
    (String::from_utf8_lossy(&said.stderr).into_owned(), said.status.code().unwrap())
}

#[test]
fn check_refuses_code_that_several_tenants_run_and_change() {
    let folder = tempfile::tempdir().unwrap();
    let code = folder.path().join("code");
    for name in ["code/data", "base", "state"] {
        std::fs::create_dir_all(folder.path().join(name)).unwrap();
    }
    std::fs::write(code.join("server.py"), "").unwrap();
    let run = "command = \"sh\"\nargs = [\"server.py\"]\ncwd = \"code\"\n";
    let listed = |write: &str| format!("{run}sandbox = {{ write = [\"{write}\"] }}\n");
    let elsewhere = format!("command = \"sh\"\nargs = [\"{}/code/server.py\"]\n", folder.path().display());
    let named = format!("{elsewhere}env = {{ DATA = \"{}/code\" }}\n", folder.path().display());
    let base = format!("{elsewhere}workspace = \"base\"\n");
    let two = ["acme", "umbrella"];
    for (server, key) in [
        (listed("code"), "servers.s.sandbox.write"),
        (listed("."), "servers.s.sandbox.write"),
        (named, "servers.s.args or servers.s.env"),
        (format!("{base}sandbox = {{ write = [\"base\"] }}\n"), "servers.s.sandbox.write"),
    ] {
        let (said, code) = check(folder.path(), &server, &two);
        assert!(
            code == 78 && said.contains("one tenant's child could change") && said.contains(key),
            "{code} {said}\n{server}"
        );
        let (said, code) = check(folder.path(), &server, &["acme"]);
        assert!(code == 0 && !said.contains("one tenant's child"), "{code} {said}");
    }
    for server in [run.to_owned(), listed("code/data"), listed("state"), base.clone()] {
        let (said, code) = check(folder.path(), &server, &two);
        assert!(code == 0 && !said.contains("one tenant's child"), "{code} {said}\n{server}");
    }
    for (more, text) in
        [("cwd = \"code\"\n", "keep one of the two"), ("pool = { mode = \"static\" }\n", "nobody's yet")]
    {
        let (said, code) = check(folder.path(), &format!("{base}{more}"), &two);
        assert!(code == 78 && said.contains(text), "{code} {said}");
    }
}
