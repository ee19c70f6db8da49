//! `sandbox.open = "listed"`: the gateway opens nothing to a server by guessing what the server needs.

use sluice::config::{SandboxMode, SandboxOpen, Server};
use sluice::process::sandbox::{exposure, unopened_cwd};

use super::stage::{As, run};
use super::{Scene, asked};

const SANDBOXED: [SandboxMode; 2] = [SandboxMode::Standard, SandboxMode::Strict];

/// A server whose arguments name the file `other/secret`, and that starts in `own` without the right to change it.
fn server(scene: &Scene, mode: SandboxMode) -> Server {
    let probes = [("named", "cat $OTHER/secret"), ("start", "cat data"), ("temporary", "echo x >$TMPDIR/new")];
    let script: String = probes.iter().map(|(name, probe)| asked(name, probe)).collect();
    std::fs::write(scene.folder.path().join("own/data"), "").unwrap();
    let mut server = scene.server(mode, &script);
    let secret = scene.folder.path().join("other/secret");
    server.args.extend(["sh".to_owned(), format!("--token-file={}", secret.display())]);
    server.sandbox.write.clear();
    server
}

#[test]
fn a_file_that_inference_opens_is_closed_unless_it_is_listed() {
    for (user, mode) in As::all().into_iter().flat_map(|user| SANDBOXED.map(|mode| (user, mode))) {
        let scene = Scene::new();
        let mut server = server(&scene, mode);
        assert_eq!(run(server.clone(), user).stdout, "named: yes\nstart: yes\ntemporary: yes\n", "{user:?} {mode:?}");
        server.sandbox.open = SandboxOpen::Listed;
        assert_eq!(run(server.clone(), user).stdout, "named: no\nstart: no\ntemporary: yes\n", "{user:?} {mode:?}");
        server.sandbox.read.push(scene.folder.path().join("other/secret").canonicalize().unwrap());
        assert_eq!(run(server, user).stdout, "named: yes\nstart: no\ntemporary: yes\n", "{user:?} {mode:?}");
    }
}

#[test]
fn a_folder_that_a_variable_names_is_changed_only_if_it_is_listed() {
    let scene = Scene::new();
    let other = scene.folder.path().join("other");
    let mut server = scene.server(SandboxMode::Standard, &asked("write", "echo x >$OTHER/new"));
    server.env.insert("DATA_DIR".to_owned(), other.to_string_lossy().into_owned().into());
    assert_eq!(run(server.clone(), As::Tester).stdout, "write: yes\n");
    server.sandbox.open = SandboxOpen::Listed;
    assert_eq!(run(server.clone(), As::Tester).stdout, "write: no\n");
    server.sandbox.write.push(other.canonicalize().unwrap());
    assert_eq!(run(server, As::Tester).stdout, "write: yes\n");
}

#[test]
fn a_working_directory_that_is_not_listed_is_a_warning() {
    let scene = Scene::new();
    let mut server = server(&scene, SandboxMode::Standard);
    assert_eq!(unopened_cwd(&server), None);
    server.sandbox.open = SandboxOpen::Listed;
    let exposure = exposure(&server, &[], 1).unwrap();
    let own = scene.folder.path().join("own").canonicalize().unwrap();
    let start = format!("starts in {}, which its sandbox does not open", own.display());
    assert!(exposure.warnings.iter().any(|warning| warning.starts_with(&start)), "{exposure:?}");
    assert_eq!(exposure.open, "reads the system; changes its temporary folder");
    server.sandbox.read.push(own);
    assert_eq!(unopened_cwd(&server), None);
}
