//! Owns a child from its spawn to its reaping. What others hold is a [`Worker`]: a cheap handle to send with.
//!
//! Invariant: when the supervisor's task ends, the child's group is dead and reaped, and no call is left waiting.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::error::{Failure, Refused};
use super::multiplexer::{Ask, Multiplexer};
use super::peer::Peer;
use super::queue::StdinQueue;
use super::reader::read_stdout;
use crate::config::Server;
use crate::jsonrpc::Envelope;
use crate::process::{Child, Exit, Launch, Origin, Pipes, Signal, SpawnError, StderrTail, drain_stderr};
use crate::telemetry::{Direction, DropReason, ExitReason, ServerMetrics};

/// How often time-outs are looked for.
const TICK: Duration = Duration::from_millis(500);
/// How long the pipes of a dead child may still be drained: somebody outside its group may hold them open.
const DRAIN: Duration = Duration::from_secs(1);

/// What a worker is made of.
pub struct Spec {
    /// The server to run.
    pub server: Arc<Server>,
    /// Whose it is, for the log.
    pub origin: Origin,
    /// The session behind it.
    pub peer: Weak<dyn Peer>,
    /// A client that takes nothing for this long is cut.
    pub slow_client_timeout: Duration,
    /// Where it is counted.
    pub metrics: ServerMetrics,
    /// What waits for it at shutdown.
    pub tasks: TaskTracker,
    /// Cancelled when there is no time left to stop politely.
    pub kill: CancellationToken,
}

/// What the handle, the reader and the supervisor share.
pub(super) struct Shared {
    pub(super) server: Arc<Server>,
    pub(super) origin: Origin,
    pub(super) multiplexer: Mutex<Multiplexer>,
    pub(super) metrics: ServerMetrics,
    pub(super) slow_client_timeout: Duration,
    peer: Weak<dyn Peer>,
    stdin: StdinQueue,
    stderr: StderrTail,
    noise: AtomicU64,
    started: AtomicBool,
    /// Why the child went, known before any call fails of it.
    failure: OnceLock<Failure>,
    stop: CancellationToken,
    kill: CancellationToken,
    ended: CancellationToken,
}

impl Shared {
    pub(super) fn peer(&self) -> Option<Arc<dyn Peer>> {
        self.peer.upgrade()
    }

    /// Sends a frame of the gateway's own. If the child is gone or its queue is full, its call times out over there.
    pub(super) fn send(&self, frame: Bytes) {
        if self.stdin.push(frame).is_err() {
            self.metrics.dropped(DropReason::StreamClosed);
        }
    }

    pub(super) fn count_noise(&self, bytes: usize) {
        let lines = self.noise.fetch_add(1, Ordering::Relaxed) + 1;
        self.metrics.dropped(DropReason::NotJson);
        // One line for each power of two: a chatty server does not fill the log.
        if lines.is_power_of_two() {
            let Origin { tenant, server, session } = &self.origin;
            tracing::warn!(%tenant, %server, %session, bytes, lines, "a line on stdout is no JSON-RPC message, and was left out (servers must log to stderr)");
        }
    }
}

/// A handle to a running child; cheap to clone.
#[derive(Clone)]
pub struct Worker(Arc<Shared>);

impl Worker {
    /// Spawns the child and its tasks.
    pub async fn spawn(spec: Spec) -> Result<Self, SpawnError> {
        let server = Arc::clone(&spec.server);
        let runtime = tokio::runtime::Handle::current();
        // Executing a program may wait for a disk: not on a thread that serves others.
        let spawned = tokio::task::spawn_blocking(move || {
            let _entered = runtime.enter();
            Child::spawn(&Launch::of(&server)?)
        });
        let (child, pipes) = match spawned.await {
            Ok(spawned) => spawned?,
            Err(error) => {
                let error = std::io::Error::other(error);
                return Err(SpawnError::System { command: spec.server.command.clone(), error });
            }
        };
        let limits = &spec.server.limits;
        let shared = Arc::new(Shared {
            multiplexer: Mutex::new(Multiplexer::new(limits.max_in_flight)),
            stdin: StdinQueue::new(limits.stdin_queue, spec.metrics.stdin_queue.clone()),
            stderr: StderrTail::new(limits.stderr_tail),
            noise: AtomicU64::new(0),
            started: AtomicBool::new(false),
            failure: OnceLock::new(),
            stop: CancellationToken::new(),
            kill: spec.kill,
            ended: CancellationToken::new(),
            server: spec.server,
            origin: spec.origin,
            metrics: spec.metrics,
            slow_client_timeout: spec.slow_client_timeout,
            peer: spec.peer,
        });
        shared.metrics.spawned.inc();
        shared.metrics.children.inc();
        let Origin { tenant, server, session } = &shared.origin;
        tracing::info!(%tenant, %server, %session, pid = child.pid(), "child started");
        spec.tasks.spawn(supervise(Arc::clone(&shared), child, pipes));
        Ok(Self(shared))
    }

    /// Sends a request; its answer goes to the exchange, whatever happens.
    pub fn call(&self, ask: &Ask<'_>) -> Result<(), Refused> {
        let mut multiplexer = self.0.multiplexer.lock();
        let frame = multiplexer.ask(ask, Instant::now())?;
        self.0.metrics.carried(Direction::ToServer, frame.len());
        self.0.stdin.push(frame).inspect_err(|_| multiplexer.forget_last())
    }

    /// Sends a notification of the client.
    pub fn notify(&self, message: &[u8], envelope: &Envelope<'_>) -> Result<(), Refused> {
        if envelope.method.as_deref() == Some("notifications/cancelled") {
            return self.cancel(message, envelope);
        }
        self.push(Multiplexer::pass(message))
    }

    fn cancel(&self, message: &[u8], envelope: &Envelope<'_>) -> Result<(), Refused> {
        let cancelled = self.0.multiplexer.lock().cancel(message, envelope);
        // What is not in flight cannot be cancelled, and that is no error: the answer may just have left.
        let Some((frame, call)) = cancelled else { return Ok(()) };
        call.exchange.settle();
        self.push(frame)
    }

    /// Sends the client's answer to a request of the server. An answer to nothing is dropped and counted.
    pub fn answer(&self, message: &[u8], envelope: &Envelope<'_>) -> Result<(), Refused> {
        let frame = self.0.multiplexer.lock().answered_by_client(message, envelope);
        match frame {
            Some(frame) => self.push(frame),
            None => {
                self.0.metrics.dropped(DropReason::UnknownResponse);
                Ok(())
            }
        }
    }

    fn push(&self, frame: Bytes) -> Result<(), Refused> {
        self.0.metrics.carried(Direction::ToServer, frame.len());
        self.0.stdin.push(frame)
    }

    /// The child has answered `initialize`: from now on its end is a crash, and no failed start.
    pub fn mark_started(&self) {
        self.0.started.store(true, Ordering::Relaxed);
    }

    /// Whether messages can still be sent.
    pub fn is_alive(&self) -> bool {
        !self.0.ended.is_cancelled() && !self.0.stop.is_cancelled()
    }

    /// Why the child went, or is about to go.
    pub fn failure(&self) -> Option<Failure> {
        self.0.failure.get().cloned()
    }

    /// Whether nothing is in flight, either way.
    pub fn is_idle(&self) -> bool {
        self.0.multiplexer.lock().is_idle()
    }

    /// Stops the child: closes stdin, waits, TERM, waits, KILL. Returns at once.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }

    /// Waits until the child is reaped.
    pub async fn ended(&self) {
        self.0.ended.cancelled().await;
    }
}

struct Tasks {
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
    stderr: JoinHandle<()>,
}

fn start_tasks(shared: &Arc<Shared>, pipes: Pipes) -> Tasks {
    let Pipes { stdin, stdout, stderr } = pipes;
    let queue = shared.stdin.clone();
    Tasks {
        reader: tokio::spawn(read_stdout(Arc::clone(shared), stdout)),
        writer: tokio::spawn(async move {
            // A child that reads no more is about to end: its exit says why.
            let _ = queue.write_to(stdin).await;
        }),
        stderr: tokio::spawn(drain_stderr(
            stderr,
            shared.origin.clone(),
            shared.stderr.clone(),
            shared.metrics.clone(),
        )),
    }
}

/// Runs the child's whole life.
async fn supervise(shared: Arc<Shared>, child: Child, pipes: Pipes) {
    let mut tasks = start_tasks(&shared, pipes);
    let failure = run(&shared, &child, &mut tasks.reader).await;
    shared.stop.cancel();
    if failure.is_some() || !is_gone(&child, Duration::ZERO).await {
        stop(&shared, &child, &mut tasks.writer).await;
    }
    // The pipes first: what the child said before it ended still counts. Its group dies before it is reaped, so that
    // grandchildren do not hold the pipes open.
    child.signal(Signal::Kill);
    for task in [&mut tasks.reader, &mut tasks.stderr] {
        wait_for(task, DRAIN).await;
    }
    [tasks.reader, tasks.writer, tasks.stderr].iter().for_each(JoinHandle::abort);
    shared.stdin.close(true);
    let pid = child.pid();
    let exit = child.reap().inspect_err(|error| tracing::error!(pid, %error, "a child could not be reaped")).ok();
    finish(&shared, pid, exit, failure);
}

/// Watches the child until it has to go: `Some` is why calls in flight fail, where it is not the child's own exit.
async fn run(shared: &Shared, child: &Child, reader: &mut JoinHandle<()>) -> Option<Failure> {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = child.exited() => return None,
            _ = &mut *reader => {
                // A server may end by closing stdout; one that only closed it can answer nobody any more.
                is_gone(child, shared.server.limits.stdin_grace).await;
                return None;
            }
            () = shared.stop.cancelled() => return Some(Failure::stopped(&shared.server.name)),
            _ = ticks.tick() => {
                if let Some(failure) = expire(shared) {
                    return Some(failure);
                }
            }
        }
    }
}

async fn is_gone(child: &Child, wait: Duration) -> bool {
    timeout(wait, child.exited()).await.is_ok()
}

async fn wait_for(task: &mut JoinHandle<()>, wait: Duration) {
    // A finished task may have been awaited already, and must not be again.
    if !task.is_finished() {
        let _ = timeout(wait, task).await;
    }
}

/// Fails what has run out of time. `Some` if that was `initialize`: the child has to go.
fn expire(shared: &Shared) -> Option<Failure> {
    let expired = shared.multiplexer.lock().expire(Instant::now());
    expired.frames.into_iter().for_each(|frame| shared.send(frame));
    let mut fatal = None;
    for call in expired.calls {
        let failure = if call.is_initialize {
            let noise = shared.noise.load(Ordering::Relaxed);
            let failure = Failure::start_timeout(&shared.server.name, call.timeout(), shared.stderr.lines(), noise);
            shared.failure.get_or_init(|| failure).clone()
        } else {
            Failure::call_timeout(&shared.server.name, call.timeout())
        };
        tracing::warn!(server = %shared.server.name, session = %shared.origin.session, method = call.method, "{}", failure.message());
        fail(shared, &call, &failure);
        fatal = fatal.or(call.is_initialize.then_some(failure));
    }
    fatal
}

/// The polite way out, step by step.
async fn stop(shared: &Shared, child: &Child, writer: &mut JoinHandle<()>) {
    let limits = &shared.server.limits;
    shared.stdin.close(false);
    let ladder = async {
        // The writer drops stdin when the queue is empty; a child that does not read it gets the same time.
        wait_for(writer, limits.stdin_grace).await;
        writer.abort();
        if is_gone(child, limits.stdin_grace).await {
            return;
        }
        child.signal(Signal::Term);
        is_gone(child, limits.term_grace).await;
    };
    tokio::select! {
        () = ladder => {}
        () = shared.kill.cancelled() => {}
    }
    child.signal(Signal::Kill);
    // A killed process ends as soon as the system lets it.
    let _ = child.exited().await;
}

/// The child is gone: counts it, fails the calls that were in flight, tells the session.
fn finish(shared: &Shared, pid: u32, exit: Option<Exit>, failure: Option<Failure>) {
    let started = shared.started.load(Ordering::Relaxed);
    let reason = match (&failure, started, exit.is_some_and(Exit::is_success)) {
        (Some(_), true, _) => ExitReason::Stopped,
        (None, true, true) => ExitReason::Finished,
        (None, true, false) => ExitReason::Crashed,
        (_, false, _) => ExitReason::StartFailed,
    };
    shared.metrics.children.dec();
    shared.metrics.exited(reason);
    let Origin { tenant, server, session } = &shared.origin;
    let status = exit.map_or_else(|| "unknown".to_owned(), |exit| exit.to_string());
    match reason {
        ExitReason::Crashed => tracing::warn!(%tenant, %server, %session, pid, status, "child crashed"),
        _ => tracing::info!(%tenant, %server, %session, pid, status, "child ended"),
    }
    let failure = failure.unwrap_or_else(|| {
        let noise = shared.noise.load(Ordering::Relaxed);
        Failure::exited(server, exit, started, shared.stderr.lines(), noise)
    });
    let failure = shared.failure.get_or_init(|| failure);
    let calls = shared.multiplexer.lock().drain();
    for call in calls {
        fail(shared, &call, failure);
    }
    shared.ended.cancel();
    if let Some(peer) = shared.peer() {
        peer.exited();
    }
}

/// Answers a call with an error. This must not wait: a client that does not read loses it with its stream.
fn fail(shared: &Shared, call: &super::multiplexer::Call, failure: &Failure) {
    if call.exchange.answer(failure.response(&call.original)).is_err() {
        shared.metrics.dropped(DropReason::StreamClosed);
        call.exchange.settle();
    }
}
