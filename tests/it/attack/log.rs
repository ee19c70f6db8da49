//! Whoever reads the log, or does not, holds nobody up; and whoever has no credential does not write it.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use serde_json::json;

use crate::binary::Binary;
use crate::harness::{Caller, Request, eventually, fixture_path};
use crate::proc;
use crate::scene::{Client, Wire};

/// Nothing that a client asks for takes so long.
const SOON: Duration = Duration::from_secs(1);
/// More than the drain may take, and less than anybody would wait.
const AT_THE_END: Duration = Duration::from_secs(8);
const SLUICE: &str = env!("CARGO_BIN_EXE_sluice");

/// A pipe with no room left: both ends.
pub(super) fn full_pipe(flags: PipeFlags) -> (OwnedFd, OwnedFd) {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
    while rustix::io::write(&theirs, &[b'x'; 4096]).is_ok() {}
    while rustix::io::write(&theirs, b"x").is_ok() {}
    let kept = if flags.contains(PipeFlags::NONBLOCK) { OFlags::NONBLOCK } else { OFlags::empty() };
    fcntl_setfl(&theirs, kept).unwrap();
    (ours, theirs)
}

/// Waits for the end of a process that has been told to.
async fn ended(process: &mut Child) -> ExitStatus {
    let start = Instant::now();
    let status = eventually("it ends", async || process.try_wait().unwrap()).await;
    assert!(start.elapsed() < AT_THE_END, "it took {:?}", start.elapsed());
    status
}

/// Serves clients with everything logged that can be, until `enough`, and 40 times at least.
async fn serves_on(binary: &Binary, what: &str, enough: impl Fn(f64) -> bool) {
    let caller = binary.caller.server("echo");
    let (one, two) = (Client::open(&caller, Wire::Streamable).await, Client::open(&caller, Wire::Sse).await);
    let mut rounds = 0;
    while rounds < 40 || !enough(binary.metrics().await.sum("sluice_log_lines_lost_total", "")) {
        rounds += 1;
        assert!(rounds < 20_000, "{what}: no line is lost");
        for client in [&one, &two] {
            let start = Instant::now();
            let text = "e".repeat(4000);
            assert!(client.text("stderr", json!({"text": text})).await.len() < 4000, "{what}");
            assert!(start.elapsed() < SOON, "{what}: a call took {:?}", start.elapsed());
        }
        let start = Instant::now();
        assert_eq!(caller.send(Request::get("/healthz")).await.status, 200, "{what}");
        assert!(start.elapsed() < SOON, "{what}: /healthz took {:?}", start.elapsed());
    }
    // Sessions are left open: the drain ends them.
    std::mem::forget((one, two));
}

const NOISY: &str = "[log]\nfilter = \"trace\"\n[shutdown]\ndrain_timeout = \"2s\"\n";

#[tokio::test]
async fn a_stderr_that_takes_nothing_holds_up_neither_calls_nor_the_end() {
    let (unread, blocking) = full_pipe(PipeFlags::empty());
    let (unread_too, nonblocking) = full_pipe(PipeFlags::NONBLOCK);
    let (gone, broken) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    drop(gone);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let kinds = [
        ("nobody reads the pipe", Stdio::from(blocking)),
        ("nobody reads the pipe, and it is non-blocking", Stdio::from(nonblocking)),
        ("the reader is gone", Stdio::from(broken)),
        ("the disk is full", Stdio::from(full)),
    ];
    for (what, stderr) in kinds {
        let mut binary = Binary::start_as(Command::new(SLUICE), stderr, &[("echo", vec!["echo"])], NOISY).await;
        serves_on(&binary, what, |lost| lost > 0.0).await;
        let children = proc::descendants(binary.pid());
        proc::signal(binary.pid(), Signal::TERM);
        assert!(ended(binary.process_mut()).await.success(), "{what}");
        for child in children {
            proc::gone(child).await;
        }
    }
    drop((unread, unread_too));
}

#[tokio::test]
async fn a_closed_stderr_ends_nothing() {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec \"$0\" \"$@\" 2>&-", SLUICE]);
    let mut binary = Binary::start_as(command, Stdio::null(), &[("echo", vec!["echo"])], NOISY).await;
    serves_on(&binary, "stderr is closed", |_| true).await;
    proc::signal(binary.pid(), Signal::TERM);
    assert!(ended(binary.process_mut()).await.success());
}

#[tokio::test]
async fn a_reader_that_comes_back_hears_how_many_lines_were_lost() {
    let (ours, theirs) = full_pipe(PipeFlags::empty());
    let servers = [("echo", vec!["echo"])];
    let mut binary = Binary::start_as(Command::new(SLUICE), Stdio::from(theirs), &servers, NOISY).await;
    serves_on(&binary, "nobody reads the pipe", |lost| lost > 0.0).await;
    fcntl_setfl(&ours, OFlags::empty()).unwrap();
    let reader = std::thread::spawn(move || {
        let mut log = Vec::new();
        std::fs::File::from(ours).read_to_end(&mut log).unwrap();
        String::from_utf8(log).unwrap()
    });
    proc::signal(binary.pid(), Signal::TERM);
    assert!(ended(binary.process_mut()).await.success());
    let log = reader.join().unwrap();
    let lines: Vec<serde_json::Value> = log
        .trim_start_matches('x')
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let lost: u64 =
        lines.iter().filter(|line| line["target"] == "sluice::log").filter_map(|l| l["lines"].as_u64()).sum();
    assert!(lost > 0, "the log says that lines were lost");
    assert_eq!(lines.last().unwrap()["message"], "stopped", "and goes on to the end");
}

/// A gateway by `sluice run` at an address that was free, whose output nobody reads.
fn unread(stdout: OwnedFd, stderr: OwnedFd) -> (Child, Caller) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let process = Command::new(SLUICE)
        .args(["run", "--no-auth", "--listen", &free.to_string(), "--"])
        .arg(fixture_path())
        .arg("echo")
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .unwrap();
    (process, Caller::new(free))
}

#[tokio::test]
async fn a_banner_that_nobody_reads_holds_nobody_up() {
    let ((out, stdout), (err, stderr)) = (full_pipe(PipeFlags::empty()), full_pipe(PipeFlags::empty()));
    let (mut process, caller) = unread(stdout, stderr);
    eventually("it listens", async || std::net::TcpStream::connect(caller.address).ok()).await;
    let client = Client::open(&caller, Wire::Streamable).await;
    assert_eq!(client.text("echo", json!({"text": "well"})).await, "well");
    client.close().await;
    proc::signal(process.id(), Signal::TERM);
    assert!(ended(&mut process).await.success());
    drop((out, err));
}

#[tokio::test]
async fn a_start_that_fails_ends_though_nobody_reads_why() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ((out, stdout), (err, stderr)) = (full_pipe(PipeFlags::empty()), full_pipe(PipeFlags::empty()));
    let mut process = Command::new(SLUICE)
        .args(["run", "--no-auth", "--listen", &taken.local_addr().unwrap().to_string(), "--", "/bin/cat"])
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .unwrap();
    assert_eq!(ended(&mut process).await.code(), Some(1));
    drop((out, err));
}

#[tokio::test]
async fn the_guardian_ends_though_nobody_reads_its_stderr() {
    let (err, stderr) = full_pipe(PipeFlags::empty());
    // stdin is no socket: it says so, and goes.
    let mut process =
        Command::new(SLUICE).arg("guardian").stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
    assert_eq!(ended(&mut process).await.code(), Some(1));
    drop(err);
}

#[tokio::test]
async fn requests_without_a_credential_do_not_write_the_log() {
    const REQUESTS: usize = 300;
    let binary = Binary::start(&[("echo", vec!["echo"])], "").await;
    let stranger = binary.caller.with_key("slk_nobody_knows-this-key");
    let start = Instant::now();
    for _ in 0..REQUESTS {
        assert_eq!(stranger.send(Request::post("/servers/echo/mcp", "{}")).await.status, 401);
    }
    let periods = start.elapsed().as_secs() / 10 + 1;
    let log = binary.stop().await;
    let lines: Vec<serde_json::Value> = log
        .iter()
        .filter(|line| line.contains("a request was refused"))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    // One for the first, and one for each period with others.
    assert!(lines.len() as u64 <= 2 + periods, "{lines:?}");
    let told: u64 = lines.iter().map(|line| line["times"].as_u64().unwrap_or(1)).sum();
    assert_eq!(told as usize, REQUESTS, "all are told: {lines:?}");
}

#[tokio::test]
async fn sessions_without_end_do_not_fill_the_log() {
    let binary = Binary::start(&[("echo", vec!["echo"])], "").await;
    let caller = binary.caller.server("echo");
    let start = Instant::now();
    for _ in 0..150 {
        let mut connection = caller.ask(Request::get("/servers/echo/sse")).await;
        connection.write(b"").await;
        assert_eq!(connection.response().await.status, 200);
    }
    eventually("all have ended", async || (binary.metrics().await.sessions() == 0.0).then_some(())).await;
    let periods = start.elapsed().as_secs() as usize / 10 + 1;
    let log = binary.stop().await;
    let opened = log.iter().filter(|line| line.contains("\"message\":\"session opened\"")).count();
    assert!((100..=100 * periods).contains(&opened), "{opened} lines in {periods} periods");
}

#[tokio::test]
async fn what_misleads_a_reader_is_an_escape_in_the_log() {
    let nasty =
        "a\u{202e}b\u{2066}c\u{1b}[31md\u{9b}e\u{2028}f\u{200f}g\u{200b}h\u{200d}i\u{ad}j\u{3164}k\u{fe0f}l\u{e01ef}m";
    for format in ["human", "json"] {
        let binary =
            Binary::start(&[("echo", vec!["echo"])], &format!("[log]\nformat = {format:?}\nfilter = \"trace\"\n"))
                .await;
        let client = Client::open(&binary.caller.server("echo"), Wire::Sse).await;
        client.text("stderr", json!({"text": nasty})).await;
        // The foreign text of a path, and of a refused method.
        let path = "/servers/%E2%80%AE/\u{202e}x";
        binary.caller.ask(Request::get(path)).await.until_closed().await;
        client.close().await;
        let log = binary.stop().await;
        // Nothing is taken away.
        for escape in ["u{1b}[31m", "u{202e}", "u{200b}", "u{200d}", "u{3164}", "u{e01ef}"] {
            assert!(log.iter().any(|line| line.contains("31m") && line.contains(escape)), "{escape}: {log:?}");
        }
        let bad = log.iter().find(|line| line.contains(sluice::text::is_misleading));
        assert_eq!(bad, None, "{format}");
    }
}
