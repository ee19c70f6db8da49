//! From serving to stopped: signals to the real binary, and what clients see of a drain.

use std::io::Read as _;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::json;
use tempfile::NamedTempFile;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use crate::harness::{Caller, Gateway, Request, Sse, eventually, fixture, fixture_path, hello, in_time};
use crate::proc;

/// A running `sluice run` with the fixture behind it.
struct Program {
    process: Child,
    caller: Caller,
    pids: NamedTempFile,
}

fn sluice(arguments: &[&str]) -> Command {
    let mut command = program(env!("CARGO_BIN_EXE_sluice"));
    command.args(arguments);
    command
}

fn program(path: &str) -> Command {
    let mut command = Command::new(path);
    command.env_clear().env("PATH", "/usr/bin:/bin").kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Program {
    async fn start() -> Self {
        Self::start_by(sluice(&[])).await
    }

    /// Starts it in the foreground of a terminal, whose other end is returned.
    async fn start_on_a_terminal() -> (OwnedFd, Self) {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let stdin = rustix::fs::open(ptsname(&terminal, Vec::new()).unwrap(), flags, Mode::empty()).unwrap();
        let mut command = program("setsid");
        command.args(["--ctty", env!("CARGO_BIN_EXE_sluice")]).stdin(stdin);
        (terminal, Self::start_by(command).await)
    }

    async fn start_by(mut command: Command) -> Self {
        let pids = NamedTempFile::new().unwrap();
        let noted = format!("FIXTURE_PIDS={}", pids.path().display());
        let fixture = fixture_path();
        let fixture = fixture.to_str().unwrap();
        command.args(["run", "--listen", "127.0.0.1:0", "--no-auth", "--env", &noted, "--", fixture, "echo"]);
        let mut process = command.stderr(Stdio::null()).spawn().unwrap();
        let (mut stdout, mut said) = (process.stdout.take().unwrap(), Vec::new());
        let address: SocketAddr = loop {
            let url = String::from_utf8_lossy(&said).lines().find_map(|line| {
                Some(line.split_once("HTTP+SSE")?.1.trim().strip_prefix("http://")?.strip_suffix("/sse")?.to_owned())
            });
            if let Some(url) = url {
                break url.parse().unwrap();
            }
            assert_ne!(in_time("the address", stdout.read_buf(&mut said)).await.unwrap(), 0, "it has ended");
        };
        Self { process, caller: Caller::new(address), pids }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.process.id().expect("it runs").cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the end; no child may be left.
    async fn ended(mut self) -> ExitStatus {
        let status = in_time("it ends", self.process.wait()).await.unwrap();
        let mut pids = String::new();
        self.pids.as_file_mut().read_to_string(&mut pids).unwrap();
        assert!(!pids.is_empty(), "there was a child");
        for pid in pids.lines() {
            let is_left = std::path::Path::new("/proc").join(pid).exists();
            assert!(!is_left, "the child {pid} is left behind");
        }
        status
    }
}

/// A call that reports its progress, the first report of which has come: it is in flight.
async fn call_in_flight(client: &mut Sse, steps: u64) {
    let params = json!({"name": "progress", "arguments": {"steps": steps, "ms": 50}, "_meta": {"progressToken": 1}});
    client.post(json!({"jsonrpc": "2.0", "id": "last", "method": "tools/call", "params": params})).await;
    assert_eq!(client.message().await["params"]["progress"], 1);
}

#[tokio::test]
async fn a_signal_lets_calls_finish_and_tells_streams_when_to_come_back() {
    for signal in [Signal::TERM, Signal::INT] {
        let program = Program::start().await;
        let address = program.caller.address;
        let mut client = program.caller.sse().await;
        let streamable = program.caller.streamable().await;
        let mut get = streamable.stream().await;
        call_in_flight(&mut client, 8).await;
        program.signal(signal);
        eventually("it accepts no more", async || TcpStream::connect(address).await.is_err().then_some(())).await;
        let answer = loop {
            let message = client.message().await;
            if message["id"] == "last" {
                break message;
            }
            assert_eq!(message["method"], "notifications/progress");
        };
        assert_eq!(answer["result"]["content"][0]["text"], "8 steps", "the call in flight has finished");
        for stream in [&mut client.stream, &mut get] {
            assert_eq!(stream.event().await.unwrap().raw, "retry: 3000\n\n");
            assert_eq!(stream.event().await, None);
        }
        assert_eq!(program.ended().await.code(), Some(0), "{signal:?}");
    }
}

#[tokio::test]
async fn a_second_signal_hurries_it() {
    let program = Program::start().await;
    let address = program.caller.address;
    let mut client = program.caller.sse().await;
    call_in_flight(&mut client, 10_000).await;
    program.signal(Signal::TERM);
    eventually("it drains", async || TcpStream::connect(address).await.is_err().then_some(())).await;
    assert_eq!(client.message().await["method"], "notifications/progress", "the call goes on meanwhile");
    let before = Instant::now();
    program.signal(Signal::TERM);
    assert_eq!(program.ended().await.code(), Some(0));
    assert!(before.elapsed() < Duration::from_secs(10), "the drain may take 20 s; this took {:?}", before.elapsed());
}

#[tokio::test]
async fn a_terminal_that_is_gone_lets_calls_finish_however_often_that_is_said() {
    for is_asked_before in [false, true] {
        let (terminal, program) = Program::start_on_a_terminal().await;
        let address = program.caller.address;
        let mut client = program.caller.sse().await;
        call_in_flight(&mut client, 20).await;
        if is_asked_before {
            program.signal(Signal::TERM);
            eventually("it drains", async || TcpStream::connect(address).await.is_err().then_some(())).await;
        }
        drop(terminal);
        eventually("it drains", async || TcpStream::connect(address).await.is_err().then_some(())).await;
        // A shell says it too.
        program.signal(Signal::HUP);
        let answer = loop {
            let message = client.message().await;
            if message["id"] == "last" {
                break message;
            }
        };
        assert_eq!(answer["result"]["content"][0]["text"], "20 steps", "the call in flight has finished");
        assert_eq!(program.ended().await.code(), Some(0));
    }
}

#[tokio::test]
async fn a_signal_that_means_nothing_here_ends_nothing() {
    let program = Program::start().await;
    let mut client = program.caller.sse().await;
    for signal in [Signal::HUP, Signal::USR1, Signal::USR2, Signal::ALARM, Signal::PIPE, Signal::PROF, Signal::IO] {
        program.signal(signal);
        let answer = client.call("echo", json!({"text": "still here"})).await;
        assert_eq!(answer, "still here", "{signal:?}");
    }
    program.signal(Signal::TERM);
    assert_eq!(program.ended().await.code(), Some(0));
}

#[tokio::test]
async fn quit_stops_at_once_and_leaves_nothing() {
    let program = Program::start().await;
    let mut client = program.caller.sse().await;
    call_in_flight(&mut client, 10_000).await;
    let before = Instant::now();
    program.signal(Signal::QUIT);
    assert_eq!(program.ended().await.code(), Some(0));
    assert!(before.elapsed() < Duration::from_secs(10), "a drain may take 20 s; this took {:?}", before.elapsed());
}

#[tokio::test]
async fn a_signal_to_all_processes_of_that_name_does_not_end_the_guardian() {
    let program = Program::start().await;
    let mut client = program.caller.sse().await;
    let gateway = program.process.id().expect("it runs");
    let guardian = || proc::descendants(gateway).into_iter().find(|pid| proc::arguments(*pid).contains("guardian"));
    let before = guardian().expect("there is one");
    for signal in [Signal::HUP, Signal::USR1, Signal::INT, Signal::QUIT, Signal::TERM] {
        proc::signal(before, signal);
        assert_eq!(client.call("echo", json!({"text": "still here"})).await, "still here", "{signal:?}");
    }
    assert_eq!(guardian(), Some(before));
    program.signal(Signal::TERM);
    assert_eq!(program.ended().await.code(), Some(0));
}

/// Runs the binary to its end: exit code and stderr.
async fn failed(arguments: &[&str]) -> (Option<i32>, String) {
    let process = sluice(arguments).spawn().unwrap();
    let output = in_time("it ends", process.wait_with_output()).await.unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn a_port_in_use_is_named_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, said) = failed(&["run", "--listen", &address, "--no-auth", "--", "/bin/cat"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("cannot listen on {address} (http.listen)")), "{said}");
    assert!(said.contains("another program listens there: stop it, or choose another port"), "{said}");
}

#[tokio::test]
async fn no_auth_is_refused_where_others_can_reach_it() {
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let (code, said) = failed(&["run", "--listen", listen, "--no-auth", "--", "/bin/cat"]).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("would let anybody on the network call; listen on 127.0.0.1"), "{said}");
    }
}

#[tokio::test]
async fn a_gateway_that_drains_is_not_ready_and_takes_nothing_new() {
    let gateway = Gateway::start_with([fixture("echo")], |config| config.drain_timeout = Duration::from_secs(20)).await;
    let mut client = gateway.sse().await;
    call_in_flight(&mut client, 10_000).await;
    // A request that has begun before the drain is still read, and answered.
    let initialize = json!({"jsonrpc": "2.0", "id": "late", "method": "initialize", "params": hello("2025-11-25")});
    let request = Request::post("/mcp", initialize).bytes(gateway.address);
    let (start, rest) = request.split_at(request.len() - 10);
    let mut begun = gateway.connect().await;
    begun.write(start).await;
    gateway.until("both connections", |metrics| metrics.sum("sluice_connections", "") == 2.0).await;
    let mut probe = gateway.connect().await;
    probe.write(&Request::get("/healthz").bytes(gateway.address)).await;
    assert_eq!(probe.response().await.reply().await.text, "ok\n", "what came before has been read");

    gateway.shutdown.drain.cancel();
    let not_ready = eventually("it is not ready", async || {
        let reply = gateway.admin().send(Request::get("/readyz")).await;
        (reply.status != 200).then_some(reply)
    })
    .await;
    not_ready.assert_problem(503, "not ready: draining");
    assert_eq!(gateway.admin().send(Request::get("/healthz")).await.status, 200, "it is alive");
    eventually("it accepts no more", async || TcpStream::connect(gateway.address).await.is_err().then_some(())).await;

    begun.write(rest).await;
    let late = begun.response().await.reply().await;
    let error = late.assert_error(200, -32003, "the gateway is stopping; try again in a moment");
    let data = &error["error"]["data"];
    assert_eq!((&data["type"], &data["retryable"], &error["id"]), (&json!("draining"), &json!(true), &json!("late")));
    let retry_after = data["retryAfter"].as_u64().unwrap();
    assert!((10..=20).contains(&retry_after), "the drain takes up to 20 s: {data}");
    assert_eq!(client.message().await["method"], "notifications/progress", "the call in flight goes on");
    gateway.kill().await;
}

#[tokio::test]
async fn a_drain_has_a_deadline_and_what_it_cuts_off_is_told() {
    let gateway = Gateway::start_with([fixture("echo")], |config| {
        config.drain_timeout = Duration::from_millis(300);
        config.http.keep_alive = Duration::from_millis(20);
    })
    .await;
    let (client, mut sse) = (gateway.streamable().await, gateway.sse().await);
    let hang = json!({"jsonrpc": "2.0", "id": "hung", "method": "tools/call", "params": {"name": "hang"}});
    let mut post = client.open(&hang).await;
    sse.post(&hang).await;
    let before = Instant::now();
    gateway.shutdown.drain.cancel();
    let error = post.message().await.unwrap();
    assert!(before.elapsed() >= Duration::from_millis(300), "{:?}", before.elapsed());
    assert_eq!((&error["id"], &error["error"]["code"]), (&json!("hung"), &json!(-32000)), "{error}");
    assert_eq!(error["error"]["data"], json!({"type": "session_ended", "retryable": true}));
    assert_eq!(post.message().await, None);
    let error = sse.stream.message().await.expect("the error comes before the end of the stream");
    assert_eq!((&error["id"], &error["error"]["data"]["type"]), (&json!("hung"), &json!("session_ended")), "{error}");
    assert_eq!(sse.stream.message().await, None);
    gateway.finish().await;
}

#[tokio::test]
async fn a_session_that_ends_before_its_server_has_started_is_told_on_its_stream() {
    let gateway = Gateway::start_with([fixture("never-initialize")], |config| {
        config.drain_timeout = Duration::from_millis(300);
    })
    .await;
    let mut sse = Sse::open(&gateway).await;
    sse.post(json!({"jsonrpc": "2.0", "id": "first", "method": "initialize", "params": hello("2024-11-05")})).await;
    // This waits for the same child.
    sse.post(json!({"jsonrpc": "2.0", "id": "second", "method": "tools/list"})).await;
    gateway.until("the child has started", |metrics| metrics.children() == 1.0).await;
    gateway.shutdown.drain.cancel();
    let mut told = [sse.stream.message().await.unwrap(), sse.stream.message().await.unwrap()];
    told.sort_by_key(|error| error["id"].to_string());
    for (error, id) in told.iter().zip(["first", "second"]) {
        assert_eq!((&error["id"], &error["error"]["data"]["type"]), (&json!(id), &json!("session_ended")), "{error}");
    }
    assert_eq!(sse.stream.message().await, None);
    gateway.finish().await;
}
