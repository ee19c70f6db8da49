//! The sandbox holds: what a server must not do fails, as root, as another user and as an ordinary user; and without
//! the sandbox the same succeeds, so that each of these tests can fail.

mod failures;
mod gateway;
mod holes;
mod limits;
mod listed;
mod shell;
mod sockets;
pub(crate) mod stage;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Stdio};

use sluice::config::{SandboxMode, Server};
use sluice::process::sandbox::Kernel;
use stage::{As, SLUICE, is_root, run, script};

use crate::harness::eventually;
use crate::proc;

/// What this machine enforces.
pub(crate) fn kernel() -> Kernel {
    Kernel::probe()
}

/// A folder that every user can enter, with the server's own folder in it and one of another tenant.
pub(crate) struct Scene {
    pub(crate) folder: tempfile::TempDir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o755)).tempdir().unwrap();
        for name in ["own", "other"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let open = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        std::fs::write(folder.path().join("other/secret"), "hunter2").unwrap();
        open(&folder.path().join("other/secret"), 0o666);
        open(&folder.path().join("other"), 0o777);
        Self { folder }
    }

    pub(crate) fn server(&self, mode: SandboxMode, text: &str) -> Server {
        let mut server = script(text, &self.folder.path().join("own"));
        server.sandbox.mode = mode;
        server.env.insert("OTHER".to_owned(), "unset".into());
        let preamble = format!("OTHER={}; SLUICE={SLUICE};\n", self.folder.path().join("other").display());
        server.args[1].insert_str(0, &preamble);
        server
    }

    /// Runs each probe in the three modes; in the sandboxed ones it must fail, in the other it must succeed.
    #[track_caller]
    pub(crate) fn refused(&self, user: As, probes: &[(&str, &str)]) {
        self.refused_unless_impossible(user, probes, |_| false);
    }

    /// The same, where some of them may be impossible to everybody here, in a container for one, and fail always.
    #[track_caller]
    pub(crate) fn refused_unless_impossible(
        &self,
        user: As,
        probes: &[(&str, &str)],
        is_impossible: impl Fn(&str) -> bool,
    ) {
        let text: String = probes.iter().map(|(name, probe)| asked(name, probe)).collect();
        for mode in SandboxMode::ALL {
            let succeeds = |probe: &str| mode == SandboxMode::None && !is_impossible(probe);
            let answer = |probe: &str| if succeeds(probe) { "yes" } else { "no" };
            let answers: String = probes.iter().map(|(name, probe)| format!("{name}: {}\n", answer(probe))).collect();
            let ended = run(self.server(mode, &text), user);
            assert_eq!(ended.stdout, answers, "{user:?} {mode:?} {ended:?}");
        }
    }

    /// Whether a script fails for this user without Sluice.
    pub(crate) fn is_impossible(&self, user: As, script: &str) -> bool {
        let mut command = user.command("sh");
        command.current_dir(self.folder.path().join("own")).args(["-c", script]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        !command.status().unwrap().success()
    }
}

/// The part of a script that says whether a probe succeeds.
pub(crate) fn asked(name: &str, probe: &str) -> String {
    format!("if ( {probe} ) >/dev/null 2>&1; then echo '{name}: yes'; else echo '{name}: no'; fi\n")
}

/// A process beside the server, of the same user, with a secret in its environment.
pub(crate) struct Victim(pub(crate) Child);

impl Victim {
    pub(crate) fn new(user: As) -> Self {
        let mut command = user.command("sh");
        command.args(["-c", "echo here; read end"]).env("SECRET", "hunter2");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // By now it is what it is to be.
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 4]).unwrap();
        Self(child)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn files_of_others_are_out_of_reach() {
    for user in As::all() {
        let scene = Scene::new();
        scene.refused(
            user,
            &[
                ("read", "cat $OTHER/secret"),
                ("list", "ls $OTHER"),
                ("write", "echo x > $OTHER/new"),
                ("overwrite", "echo hunter2 > $OTHER/secret"),
                ("remove", "touch $OTHER/gone 2>/dev/null; rm $OTHER/gone"),
                ("link", "ln -s $OTHER/secret link; cat link"),
                ("temporary", "touch /tmp/sluice-test-$$ && rm /tmp/sluice-test-$$"),
                ("list of temporary files", "ls /tmp"),
            ],
        );
    }
}

#[test]
fn the_memory_and_environment_of_others_are_out_of_reach() {
    for user in As::all() {
        let scene = Scene::new();
        let victim = Victim::new(user);
        let pid = victim.0.id();
        let probes = [
            ("environment", format!("grep -q hunter2 /proc/{pid}/environ")),
            ("memory map", format!("test -n \"$(cat /proc/{pid}/maps)\"")),
            ("memory", format!("exec 3< /proc/{pid}/mem")),
            ("descriptors", format!("readlink /proc/{pid}/fd/0")),
            ("root", format!("ls /proc/{pid}/root/")),
            ("signal", format!("kill -0 {pid}")),
        ];
        scene.refused(user, &probes.each_ref().map(|(name, probe)| (*name, probe.as_str())));
    }
}

#[test]
fn privileges_cannot_be_raised() {
    for user in As::all() {
        let scene = Scene::new();
        // Only the first process may read about itself in `strict`: this is done by the shell, not by a program.
        let status = |key: &str, good: &str| {
            format!("while read k v; do test $k = {key}: -a $v != {good} && exit 0; done < /proc/$$/status; exit 1")
        };
        let (new, bounding) = (status("NoNewPrivs", "1"), status("CapBnd", "0000000000000000"));
        let effective = status("CapEff", "0000000000000000");
        let mut probes = vec![("more privileges", new.as_str())];
        if is_root() && user != As::Ordinary {
            probes.push(("bounding set", &bounding));
        }
        if is_root() && user == As::Tester {
            probes.extend([
                ("capabilities", effective.as_str()),
                ("mount", "mount -t tmpfs none . && umount ."),
                ("change of owner", "touch mine && chown 65534 mine"),
                ("user namespace", "unshare --user true"),
                ("mount namespace", "unshare --mount true"),
            ]);
        }
        scene.refused_unless_impossible(user, &probes, |probe| scene.is_impossible(user, probe));
    }
}

#[test]
fn a_setuid_program_gains_nothing() {
    for user in As::all().into_iter().filter(|user| *user != As::Tester) {
        let scene = Scene::new();
        let id = scene.folder.path().join("own/id");
        std::fs::copy("/usr/bin/id", &id).unwrap();
        std::fs::set_permissions(&id, std::fs::Permissions::from_mode(0o4755)).unwrap();
        let effective = |mode| run(scene.server(mode, "./id -u"), user).stdout;
        assert_eq!(effective(SandboxMode::None), "0\n", "{user:?}");
        assert_eq!(effective(SandboxMode::Standard), "65534\n", "{user:?}");
        assert_eq!(effective(SandboxMode::Strict), "65534\n", "{user:?}");
    }
}

#[test]
fn the_network_is_closed_where_it_is_off() {
    for user in As::all() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        // A program of the system: another user may not reach the folder of this build.
        let probe = format!("bash -c 'cat </dev/tcp/127.0.0.1/{}'; true", listener.local_addr().unwrap().port());
        let (connected, connections) = std::sync::mpsc::sync_channel(8);
        // Each connection is closed at once, so that the probe ends.
        std::thread::spawn(move || listener.incoming().for_each(|stream| drop((stream, connected.send(())))));
        for (mode, network, reached) in [
            (SandboxMode::None, None, true),
            (SandboxMode::Standard, None, true),
            (SandboxMode::Standard, Some(false), false),
            (SandboxMode::Strict, None, false),
            (SandboxMode::Strict, Some(true), true),
        ] {
            let scene = Scene::new();
            let mut server = scene.server(mode, &probe);
            server.sandbox.network = network;
            let ended = run(server, user);
            // The probe has ended: had it connected, the connection would have been accepted before it was closed.
            assert_eq!(connections.try_recv().is_ok(), reached, "{user:?} {mode:?} {network:?} {ended:?}");
        }
    }
}

#[test]
fn limits_of_a_process_hold() {
    for user in As::all() {
        let scene = Scene::new();
        let mut server = scene.server(
            SandboxMode::Standard,
            "sed -n 's/Max core file size *//p' /proc/self/limits; ulimit -n; ulimit -H -n; head -c 2000000 /dev/zero > big; wc -c < big",
        );
        server.limits.resources.open_files = Some(64);
        server.limits.resources.file_size = Some(1 << 20);
        let ended = run(server, user);
        assert_eq!(
            ended.stdout, "1                    1                    bytes     \n64\n64\n1048576\n",
            "{user:?} {ended:?}"
        );
    }
}

#[test]
fn a_server_has_its_folders_and_they_go_with_it() {
    for user in As::all() {
        for mode in [SandboxMode::Standard, SandboxMode::Strict] {
            let scene = Scene::new();
            let text = "echo a > own && cat own && echo b > $TMPDIR/file && cat $TMPDIR/file && echo $TMPDIR && mktemp >/dev/null && echo c";
            let ended = run(scene.server(mode, text), user);
            let folder = ended.folder.clone().unwrap();
            assert_eq!(ended.stdout, format!("a\nb\n{}\nc\n", folder.display()), "{user:?} {mode:?} {ended:?}");
            let begin = std::time::Instant::now();
            while folder.exists() {
                assert!(begin.elapsed() < crate::harness::PATIENCE, "{user:?} {mode:?}: it is not removed");
                std::thread::yield_now();
            }
        }
    }
}

#[test]
fn what_is_listed_is_allowed() {
    for user in As::all() {
        for mode in [SandboxMode::Standard, SandboxMode::Strict] {
            let scene = Scene::new();
            let mut server = scene.server(mode, "cat $OTHER/secret; echo x > $OTHER/new || echo no");
            server.sandbox.read.push(scene.folder.path().join("other"));
            let ended = run(server.clone(), user);
            assert_eq!(ended.stdout, "hunter2no\n", "{user:?} {mode:?} {ended:?}");
            server.sandbox.write.push(scene.folder.path().join("other"));
            let ended = run(server, user);
            assert_eq!(ended.stdout, "hunter2", "{user:?} {mode:?} {ended:?}");
        }
    }
}

#[test]
fn code_that_is_named_is_not_changed() {
    for user in As::all() {
        let scene = Scene::new();
        let other = scene.folder.path().join("other");
        for (name, text) in [("server.js", "code"), ("data.json", "data"), ("script", "#!/bin/sh\n")] {
            std::fs::write(other.join(name), text).unwrap();
            std::fs::set_permissions(other.join(name), std::fs::Permissions::from_mode(0o666)).unwrap();
        }
        let text = "for file; do cat $file >/dev/null && echo x >> $file && echo $(basename $file); done";
        let mut server = scene.server(SandboxMode::Standard, text);
        server.args.push("sh".to_owned());
        server.args.extend(["server.js", "data.json", "script"].map(|name| other.join(name).display().to_string()));
        assert_eq!(run(server.clone(), user).stdout, "data.json\n", "{user:?}");
        server.sandbox.mode = SandboxMode::None;
        assert_eq!(run(server, user).stdout, "server.js\ndata.json\nscript\n", "{user:?}");
    }
}

#[tokio::test]
async fn the_gateways_own_processes_cannot_be_looked_into() {
    // root may look into all processes; for him there is the sandbox.
    for user in As::all().into_iter().filter(|user| *user != As::Switched && !(is_root() && *user == As::Tester)) {
        let scene = Scene::new();
        let mut command = user.command(SLUICE);
        command.args(["run", "--no-auth", "--listen", "127.0.0.1:0", "--", "true"]);
        command.env("SECRET", "hunter2").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut gateway = Victim(command.spawn().unwrap());
        let mut said = [0; 16];
        std::io::Read::read_exact(gateway.0.stdout.as_mut().unwrap(), &mut said).unwrap();
        let id = gateway.0.id();
        // The guardian, and the two that are to become the next children.
        let below = async || Some(proc::descendants(id)).filter(|below| below.len() >= 3);
        for pid in [id].into_iter().chain(eventually("the guardian is ready", below).await) {
            let look = format!("cat /proc/{pid}/environ >/dev/null && echo read; ls /proc/{pid}/fd; echo looked");
            let server = scene.server(SandboxMode::None, &look);
            // One that has just been started has no secret yet.
            eventually("it is closed", async || (run(server.clone(), user).stdout == "looked\n").then_some(())).await;
        }
    }
}

#[test]
fn a_path_that_cannot_be_opened_is_a_fault() {
    let scene = Scene::new();
    let mut server = scene.server(SandboxMode::Standard, "echo started");
    server.sandbox.write.push("/nonexistent/folder".into());
    let ended = run(server, As::Tester);
    assert_eq!(ended.stdout, "");
    assert!(ended.fault.contains("the sandbox path /nonexistent/folder cannot be opened"), "{ended:?}");
}
