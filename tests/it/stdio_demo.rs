//! The built-in server as a process: what its commands can reach, and what they leave behind.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A running `sluice stdio-demo`, in the folder `inside` of a temporary one.
struct Demo {
    around: tempfile::TempDir,
    server: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Demo {
    fn start() -> Self {
        let around = tempfile::tempdir().unwrap();
        std::fs::write(around.path().join("secret"), "top secret").unwrap();
        let mut server = Command::new(env!("CARGO_BIN_EXE_sluice"))
            .args(["stdio-demo", "--workspace"])
            .arg(around.path().join("inside"))
            .env("TOKEN", "a secret of the environment")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (server.stdin.take(), BufReader::new(server.stdout.take().unwrap()));
        let mut demo = Self { around, server, to, from };
        demo.send(&json!({"jsonrpc": "2.0", "id": 0, "method": "ping"}));
        assert_eq!(demo.receive()["result"], json!({}), "it has started, and made its workspace");
        demo
    }

    fn send(&mut self, message: &Value) {
        writeln!(self.to.as_mut().unwrap(), "{message}").unwrap();
    }

    fn receive(&mut self) -> Value {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn start_command(&mut self, id: i64, arguments: Value) {
        let params = json!({"name": "run_command", "arguments": arguments});
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}));
    }

    /// The result of a `run_command`.
    fn run(&mut self, command: &str, args: &[&str]) -> Value {
        self.start_command(1, json!({"command": command, "args": args}));
        self.receive()["result"].take()
    }

    /// What `script` writes, which must succeed.
    fn shell(&mut self, script: &str) -> String {
        let result = self.run("sh", &["-c", script]);
        assert_eq!(result["isError"], false, "{script}: {result}");
        result["structuredContent"]["stdout"].as_str().unwrap().to_owned()
    }

    /// What `script` complains about, which must fail.
    fn failing(&mut self, script: &str) -> String {
        let result = self.run("sh", &["-c", script]);
        assert_eq!(result["isError"], true, "{script} should fail: {result}");
        assert_eq!(result["structuredContent"]["stdout"], "", "{script} should show nothing: {result}");
        let complaint = result["structuredContent"]["stderr"].as_str().unwrap().to_owned();
        assert!(!complaint.contains("not found"), "the program is missing, so nothing was tried: {complaint}");
        complaint
    }

    fn outside(&self, name: &str) -> String {
        self.around.path().join(name).display().to_string()
    }

    fn inside(&self, name: &str) -> std::path::PathBuf {
        self.around.path().join("inside").join(name)
    }

    /// Waits until the file `name` of the workspace has a line, and returns it.
    fn line_of(&self, name: &str) -> String {
        eventually(|| std::fs::read_to_string(self.inside(name)).ok().filter(|text| text.ends_with('\n')))
    }

    fn close(mut self) -> ExitStatus {
        drop(self.to.take());
        self.server.wait().unwrap()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Asks until there is an answer; a test that gets none in ten seconds fails.
#[expect(clippy::disallowed_methods, reason = "asks again and again about processes that tell nobody; no runtime")]
fn eventually<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begin.elapsed() < Duration::from_secs(10), "it did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process runs: neither gone nor a zombie that nobody has reaped yet.
fn runs(pid: &str) -> bool {
    std::fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().starts_with(" Z"))
}

fn gone(pids: &str) {
    for pid in pids.split_whitespace() {
        eventually(|| (!runs(pid)).then_some(()));
    }
}

/// A script that starts a grandchild, writes both process ids to `pids`, and waits long.
const FAMILY: &str = "sleep 300 & echo $$ $! > pids.tmp; mv pids.tmp pids; wait";

#[test]
fn programs_run_in_the_workspace_with_an_empty_environment() {
    let mut demo = Demo::start();
    assert_eq!(
        demo.shell("echo hello > a && cat a && pwd -P"),
        format!("hello\n{}\n", demo.inside("").canonicalize().unwrap().display())
    );
    assert_eq!(demo.shell("mkdir -p d/e && mv a d/e/b && ls d/e && touch d/e/b"), "b\n");
    let environment = demo.run("env", &[])["structuredContent"]["stdout"].as_str().unwrap().to_owned();
    let mut names: Vec<_> = environment.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    names.sort_unstable();
    assert_eq!(names, ["HOME", "PATH"]);
    let failed = demo.run("sh", &["-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!(failed["content"][0]["text"], "out\n[stderr]\nerr\n[exit code 3]");
    assert_eq!(
        failed["structuredContent"],
        json!({"exitCode": 3, "timedOut": false, "stdout": "out\n", "stderr": "err\n"})
    );
    assert_eq!(demo.run("cat", &[])["isError"], false, "stdin is empty");
    std::fs::write(demo.inside("script"), "#!/bin/sh\necho from $1").unwrap();
    Command::new("chmod").arg("+x").arg(demo.inside("script")).status().unwrap();
    assert_eq!(demo.run("./script", &["there"])["content"][0]["text"], "from there\n");
    assert_eq!(demo.close().code(), Some(0));
}

#[test]
fn nothing_outside_is_read() {
    let mut demo = Demo::start();
    let (secret, around, server) = (demo.outside("secret"), demo.outside("."), demo.server.id());
    std::os::unix::fs::symlink(&secret, demo.inside("link")).unwrap();
    for script in [
        format!("cat {secret}"),
        "cat ../secret".to_owned(),
        "cat link".to_owned(),
        "ln -s ../secret other; cat other".to_owned(),
        "ln ../secret hard; cat hard".to_owned(),
        format!("cp {secret} copy; cat copy"),
        format!("mv {secret} moved; cat moved"),
        format!("ls {around}"),
        "cat /etc/passwd".to_owned(),
        "ls /".to_owned(),
        "ls /tmp".to_owned(),
        "ls /proc".to_owned(),
        format!("cat /proc/{server}/environ"),
        "cat /proc/self/environ".to_owned(),
        format!("cat /proc/{server}/cwd/Cargo.toml"),
        format!("readlink /proc/{server}/cwd"),
        format!("cat /proc/{server}/root/etc/passwd"),
    ] {
        let complaint = demo.failing(&script);
        assert!(
            complaint.contains("denied") || complaint.contains("No such file") || script.starts_with("readlink"),
            "{script}: {complaint}"
        );
    }
    assert_eq!(std::fs::read_to_string(demo.outside("secret")).unwrap(), "top secret");
}

#[test]
fn nothing_outside_is_changed() {
    let mut demo = Demo::start();
    let secret = demo.outside("secret");
    let before = std::fs::metadata(&secret).unwrap();
    for script in [
        format!("echo x > {secret}"),
        format!("echo x >> {secret}"),
        format!("rm -f {secret}"),
        format!("truncate -s 0 {secret}"),
        format!("chmod 777 {secret}"),
        format!("chown 1 {secret}"),
        format!("touch -d 2000-01-01 {secret}"),
        format!("touch {}", demo.outside("new")),
        format!("mkdir {}", demo.outside("new")),
        format!("mv {} {}", demo.inside("").display(), demo.outside("moved")),
        "touch /usr/bin/sluice-was-here".to_owned(),
        "mknod device b 1 0".to_owned(),
        "/usr/sbin/chroot . /bin/true".to_owned(),
        "setsid true && setsid -f true".to_owned(),
    ] {
        demo.failing(&script);
    }
    use std::os::unix::fs::MetadataExt as _;
    let after = std::fs::metadata(&secret).unwrap();
    assert_eq!(
        (before.mode(), before.uid(), before.mtime_nsec(), before.len(), before.ino()),
        (after.mode(), after.uid(), after.mtime_nsec(), after.len(), after.ino())
    );
    assert_eq!(std::fs::read_dir(demo.around.path()).unwrap().count(), 2);
}

#[test]
fn nobody_outside_is_talked_to() {
    let mut demo = Demo::start();
    let mut bystander = Command::new("sleep").arg("300").spawn().unwrap();
    demo.failing(&format!("kill -9 {}", bystander.id()));
    let survived = bystander.try_wait().unwrap().is_none();
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    assert!(survived);
    demo.failing(&format!("kill -9 {}", demo.server.id()));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // The same line works unconfined, so that the failure below is the confinement's.
    let connect = format!("exec 3<>/dev/tcp/127.0.0.1/{port}");
    assert!(Command::new("bash").args(["-c", &connect]).status().unwrap().success());
    let refused = demo.run("bash", &["-c", &connect]);
    assert_eq!(refused["isError"], true, "{refused}");
    assert!(refused.to_string().contains("not permitted"), "{refused}");
}

#[test]
fn output_is_bounded_and_says_so() {
    let mut demo = Demo::start();
    let result =
        demo.run("sh", &["-c", "head -c 1000000 /dev/zero | tr '\\0' x; head -c 70000 /dev/zero | tr '\\0' y >&2"]);
    assert_eq!(result["isError"], false);
    for (stream, letter, more) in [("stdout", 'x', 1_000_000 - 65_536), ("stderr", 'y', 70_000 - 65_536)] {
        let text = result["structuredContent"][stream].as_str().unwrap();
        let note = format!("\n[cut after 65536 bytes; {more} more were written]\n");
        assert_eq!(text.strip_suffix(&note).unwrap().matches(letter).count(), 65_536);
    }
}

#[test]
fn a_command_is_killed_at_its_time_with_all_that_it_started() {
    let mut demo = Demo::start();
    demo.start_command(
        1,
        json!({"command": "sh", "args": ["-c", format!("echo begun; {FAMILY}")], "timeout_seconds": 1}),
    );
    let pids = demo.line_of("pids");
    assert!(pids.split_whitespace().all(runs));
    let result = demo.receive()["result"].take();
    assert_eq!(
        result["structuredContent"],
        json!({"exitCode": null, "timedOut": true, "stdout": "begun\n", "stderr": ""})
    );
    assert_eq!(result["content"][0]["text"], "begun\n[killed after 1 s, with all that it started]");
    gone(&pids);
}

#[test]
fn a_command_that_ends_leaves_nothing_running() {
    let mut demo = Demo::start();
    let pids = demo.shell("sleep 300 & echo $!");
    gone(&pids);
    // Killing its own group is no way out either.
    let result = demo.run("sh", &["-c", "kill -9 0"]);
    assert_eq!(result["content"][0]["text"], "[ended by signal 9]");
}

#[test]
fn cancelling_a_command_kills_it() {
    let mut demo = Demo::start();
    demo.start_command(7, json!({"command": "sh", "args": ["-c", FAMILY]}));
    let pids = demo.line_of("pids");
    demo.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}));
    gone(&pids);
    assert_eq!(demo.shell("echo next"), "next\n", "the first answer is that of the next call");
}

#[test]
fn commands_end_with_the_server_however_it_ends() {
    type End = fn(&mut Demo) -> Option<i32>;
    let ends: [End; 3] = [
        |demo| {
            drop(demo.to.take());
            demo.server.wait().unwrap().code()
        },
        |demo| {
            Command::new("kill").arg(demo.server.id().to_string()).status().unwrap();
            demo.server.wait().unwrap().code()
        },
        |demo| {
            demo.server.kill().unwrap();
            demo.server.wait().unwrap().code()
        },
    ];
    for (end, code) in ends.into_iter().zip([Some(0), Some(0), None]) {
        let mut demo = Demo::start();
        demo.start_command(1, json!({"command": "sh", "args": ["-c", FAMILY], "timeout_seconds": 60}));
        let pids = demo.line_of("pids");
        let begin = Instant::now();
        assert_eq!(end(&mut demo), code);
        assert!(begin.elapsed() < Duration::from_secs(5));
        gone(&pids);
    }
}

#[test]
fn the_helper_refuses_to_be_run_by_hand() {
    let mut helper = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(["confine", "--", "/bin/true"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut complaint = String::new();
    helper.stderr.take().unwrap().take(4096).read_to_string(&mut complaint).unwrap();
    assert!(complaint.contains("not by hand"), "{complaint}");
    assert!(!helper.wait().unwrap().success());
}
