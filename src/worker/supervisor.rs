//! Owns a child from its spawn to its reaping. Others hold a [`Worker`], a cheap handle.
//!
//! Invariant: when the supervisor's task ends, the child's group is dead and reaped, and no call is left waiting.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::calls::Multiplexer;
use super::{End, Failure, HealthAction, SandboxHint, Shared, Spec, Worker, keep_watch, read_stdout, rescue};
use crate::config::Isolation;
use crate::heavy;
use crate::mcp::method;
use crate::process::{Brake, Child, Excess, Exit, Launch, Pipes, Signal, SpawnError, drain_stderr};
use crate::telemetry::{Cause, ExitReason};

/// The most starts, and the most ends, of one server's children that are logged in a period.
const CHILDREN_LOGGED: u32 = 100;

#[cfg(test)]
mod tests;

/// How long the pipes of a dead child are still read: a process outside its group may hold them open.
const DRAIN: Duration = Duration::from_secs(1);

/// Spawns a child and its tasks.
///
/// # Errors
/// The program is not found, or the child does not start.
pub async fn spawn(spec: Spec) -> Result<Worker, SpawnError> {
    let (server, reach, guardian) = (Arc::clone(&spec.server), Arc::clone(&spec.reach), spec.guardian.clone());
    // Looking for the program may wait for a disk, or for ever: not on a thread that serves others.
    let owner = spec.owner.clone();
    let launch = move || Launch::of(&server, guardian.folders(), &reach, &owner);
    let launch = spec.lookups.run(&spec.server.command, launch).await?;
    let launch = spec.ceilings.apply(launch, spec.origin.tenant().as_ref());
    let (child, pipes) = Child::spawn(&spec.guardian, &launch).await?;
    let (server, (tenant, session)) = (&spec.origin.server, spec.origin.names());
    if Cause::info("child started", server.to_string()).is_news(CHILDREN_LOGGED) {
        tracing::info!(%tenant, %server, %session, pid = child.pid(), "child started");
    }
    let charge = spec.ceilings.charge(&child, &spec.origin);
    let tasks = spec.tasks.clone();
    let shared = Arc::new(Shared::new(spec, charge, child.pid()));
    shared.metrics.spawned.inc();
    shared.metrics.children.inc();
    tasks.spawn(supervise(Arc::clone(&shared), child, pipes));
    Ok(Worker::new(shared))
}

/// A task that is aborted when this is dropped.
type Task = AbortOnDropHandle<()>;

struct Tasks {
    reader: Task,
    writer: Task,
    stderr: Task,
}

fn start_tasks(shared: &Arc<Shared>, pipes: Pipes) -> Tasks {
    let Pipes { stdin, stdout, stderr } = pipes;
    let queue = shared.stdin.clone();
    Tasks {
        reader: Task::new(tokio::spawn(read_stdout(Arc::clone(shared), stdout))),
        writer: Task::new(tokio::spawn(async move {
            // A child that reads no more is about to end: its exit says why.
            let _ = queue.write_to(stdin).await;
        })),
        stderr: Task::new(tokio::spawn(drain_stderr(
            stderr,
            shared.origin.clone(),
            shared.stderr.clone(),
            shared.metrics.clone(),
            Brake::new(shared.signals.gone.clone()),
        ))),
    }
}

/// Counts the end of a child, fails its calls and tells its sessions: by [`Ending::finish`], or by being dropped where
/// the task that supervises the child panics or is aborted.
struct Ending {
    shared: Arc<Shared>,
    /// Whether the end of the child is counted.
    is_counted: bool,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if self.shared.life.end.initialized() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let (server, (tenant, session)) = (&shared.origin.server, shared.origin.names());
        tracing::error!(%tenant, %server, %session, pid = shared.life.pid, "the task that looks after a child has failed: the child is ended");
        let _ = shared.signals.stop.set(());
        shared.signals.gone.cancel();
        shared.stdin.close(true);
        if !self.is_counted {
            self.count(ExitReason::Stopped);
        }
        let failure = shared.fail(Failure::internal(server));
        shared.give_up(shared.expire(Multiplexer::drain), |_| failure.clone());
        self.tell(ExitReason::Stopped);
    }
}

/// Runs the child's whole life: until the child is reaped, its output is read, and its calls are answered.
async fn supervise(shared: Arc<Shared>, child: Child, pipes: Pipes) {
    let ending = Ending::new(&shared);
    // They are dropped before that, should this panic: the child is killed, and nobody reads or writes.
    let child = child;
    let mut tasks = start_tasks(&shared, pipes);
    let failure = run(&shared, &child, &mut tasks).await;
    let asked_to = shared.signals.stop.initialized();
    let _ = shared.signals.stop.set(());
    if failure.is_some() || !is_gone(&child, Duration::ZERO).await {
        stop(&shared, &child, &mut tasks.writer).await;
    }
    // What the child said before it ended still counts. The guardian has killed its group and what else was below it,
    // so that nothing of it holds the pipes open.
    let exit = child.exited().await;
    shared.signals.gone.cancel();
    let failure = failure.or_else(|| {
        let excess = child.ended_for(exit).or_else(|| shared.charge.ended_for(exit));
        excess.map(|excess| outgrown(&shared, &excess))
    });
    // A wait for a turn to read a large line is the gateway's own.
    while !wait_for(&mut tasks.reader, DRAIN).await && heavy::LINES.has(&shared.origin) {}
    wait_for(&mut tasks.stderr, DRAIN).await;
    drop(tasks);
    shared.stdin.close(true);
    ending.finish(exit, failure, asked_to);
}

/// Runs the child until it has exited or has to end. Returns why calls in flight fail, where that is not the child's
/// own exit.
async fn run(shared: &Shared, child: &Child, tasks: &mut Tasks) -> Option<Failure> {
    tokio::select! {
        _ = child.exited() => None,
        () = async { tokio::select! { _ = &mut tasks.reader => {} _ = &mut tasks.writer => {} } } => {
            // A server may end by closing its pipes; one that only closed them can answer nobody any more.
            tokio::select! {
                _ = is_gone(child, shared.server.limits.stdin_grace) => {}
                () = shared.signals.kill.cancelled() => {}
            }
            None
        }
        () = panicked(&mut tasks.stderr) => Some(Failure::internal(&shared.server.name)),
        () = shared.signals.stop.wait() => Some(Failure::stopped(&shared.server.name)),
        never = keep_winding_up(shared) => match never {},
        never = keep_refusing(shared) => match never {},
        excess = shared.charge.exceeded() => {
            // Not politely: it would take more meanwhile.
            child.signal(Signal::Kill);
            Some(outgrown(shared, &excess))
        }
        failure = keep_watch(&shared.signals.deadline_moved, |now| look(shared, now)) => {
            if failure.exit_reason() == Some(ExitReason::Wedged) {
                // Not politely: it does not listen.
                child.signal(Signal::Kill);
            }
            Some(failure)
        }
    }
}

/// Waits until a task panics. Never returns if the task ends normally.
async fn panicked(task: &mut Task) {
    if task.await.is_ok() {
        std::future::pending().await
    }
}

/// Fails calls that have timed out, and checks the health of the child. Continues with the time of the next check, or
/// breaks with the failure that the child has to end for.
fn look(shared: &Shared, now: Instant) -> ControlFlow<Failure, Option<Instant>> {
    if let Some(failure) = expire(shared, now) {
        return ControlFlow::Break(failure);
    }
    let next = shared.multiplexer.lock().timer.at();
    let next_check = check_health(shared, now)?;
    ControlFlow::Continue([next, next_check].into_iter().flatten().min())
}

/// Winds up a retired child whenever something is over.
async fn keep_winding_up(shared: &Shared) -> Infallible {
    loop {
        shared.signals.over.notified().await;
        shared.wind_up();
    }
}

/// Refuses requests of the child that could not reach a client.
async fn keep_refusing(shared: &Shared) -> Infallible {
    loop {
        shared.signals.has_lost.notified().await;
        shared.refuse_lost();
    }
}

/// Counts and logs that the child has used more of the machine than allowed. Returns the failure.
fn outgrown(shared: &Shared, excess: &Excess) -> Failure {
    shared.metrics.over_limit(excess.label());
    let failure = Failure::over_limit(&shared.server.name, excess);
    shared.log_ending("it used more than it may", format_args!("it used {excess}"));
    shared.fail(failure)
}

/// Whether the child has exited, after at most this wait.
async fn is_gone(child: &Child, wait: Duration) -> bool {
    timeout(wait, child.exited()).await.is_ok()
}

/// Whether a task has ended, after at most this wait.
async fn wait_for(task: &mut Task, wait: Duration) -> bool {
    // A finished task may have been awaited already, and must not be again.
    task.is_finished() || timeout(wait, task).await.is_ok()
}

/// Fails calls that have timed out. Returns the failure that the child has to end for: `initialize` timed out, or a
/// call overran `limits.harakiri`.
fn expire(shared: &Shared, now: Instant) -> Option<Failure> {
    let server = &shared.server.name;
    let expired = shared.expire(|multiplexer| multiplexer.expire(now));
    let (oldest, works, overrun) = {
        let multiplexer = shared.multiplexer.lock();
        (multiplexer.oldest(), multiplexer.works_on_task(), multiplexer.has_overrun(now))
    };
    let unopened = expired.calls.iter().find(|call| call.is_initialize()).map(|call| {
        let noise = shared.life.noise.load(Ordering::Relaxed);
        let failure = Failure::start_timeout(&shared.server, call.timeout(), last_words(shared), noise);
        shared.fail(failure)
    });
    for call in &expired.calls {
        if Cause::new("a call ran out of time", server.to_string()).is_news(20) {
            tracing::warn!(%server, session = %shared.origin.names().1, method = call.method, "a call ran out of time");
        }
        // A task may well keep it from everything else.
        if !works && oldest.is_none_or(|oldest| oldest > call.started) {
            shared.health.lock().overdue(call.started);
        }
    }
    let late = |timeout| Failure::call_timeout(server, timeout, shared.server.timeout_key(timeout));
    shared.give_up(expired, |timeout| unopened.clone().unwrap_or_else(|| late(timeout)));
    unopened.or_else(|| {
        let harakiri = overrun?;
        shared.log_ending("a call overran", format_args!("a call overran limits.harakiri ({harakiri:?})"));
        Some(Failure::harakiri(server, harakiri))
    })
}

/// Sends an idle child a `ping`. Continues with the time of the next check, or breaks with the failure of a wedged
/// child.
///
/// A child that has not received `notifications/initialized`, such as a spare, gets no `ping`: some servers end at any
/// message before that.
fn check_health(shared: &Shared, now: Instant) -> ControlFlow<Failure, Option<Instant>> {
    let limits = &shared.server.limits;
    if !shared.is_opened() || !shared.is_initialized() {
        return ControlFlow::Continue(limits.ping_interval.map(|interval| now + interval));
    }
    let is_idle = shared.multiplexer.lock().is_idle();
    let (action, next) = shared.health.lock().check(is_idle, limits, now);
    match action {
        HealthAction::Nothing => ControlFlow::Continue(next),
        HealthAction::Ask => {
            let (number, frame) = shared.multiplexer.lock().own_request(method::PING, "{}");
            // Before it is sent: the answer may be quick.
            shared.health.lock().asked(number, now);
            shared.send(frame);
            ControlFlow::Continue(next)
        }
        HealthAction::Wedged => {
            let (server, after) = (&shared.origin.server, limits.ping_timeout);
            shared.log_ending("it is wedged", format_args!("it is wedged, and has answered no ping for {after:?}"));
            let failure = Failure::wedged(server, limits.ping_timeout, last_words(shared));
            ControlFlow::Break(shared.fail(failure))
        }
    }
}

/// The last lines of stderr, for errors. None where tenants share the child: the lines may be about another tenant's
/// calls.
fn last_words(shared: &Shared) -> Vec<String> {
    match shared.server.isolation {
        Isolation::Shared => Vec::new(),
        Isolation::Session | Isolation::Principal | Isolation::Tenant => shared.stderr.lines(),
    }
}

/// Ends the child: closes stdin, waits, TERM, waits, KILL. Skips to KILL when no time is left. Returns when the child
/// has exited.
async fn stop(shared: &Shared, child: &Child, writer: &mut Task) {
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
        () = shared.signals.kill.cancelled() => {}
    }
    child.signal(Signal::Kill);
    // A killed process ends as soon as the system lets it.
    let _ = child.exited().await;
}

impl Ending {
    fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), is_counted: false }
    }

    /// The child has exited: counts the end, fails the calls in flight or has them sent again, and tells the sessions.
    /// `failure` is why the calls fail, where that is not the child's own exit. `asked_to`: the gateway has ended the
    /// child.
    fn finish(mut self, exit: Exit, failure: Option<Failure>, asked_to: bool) {
        let shared = Arc::clone(&self.shared);
        let started = shared.is_opened();
        let of_itself = || match (asked_to, started, exit.code() == Some(0)) {
            (true, ..) => ExitReason::Stopped,
            (false, false, _) => ExitReason::StartFailed,
            (false, true, true) => ExitReason::Finished,
            (false, true, false) => ExitReason::Crashed,
        };
        let reason = failure.as_ref().and_then(Failure::exit_reason).unwrap_or_else(of_itself);
        // A crash: nobody has asked the child to end, and the gateway has not ended the child for a failure.
        let crashed = started && !asked_to && failure.is_none();
        self.count(reason);
        let (server, (tenant, session)) = (&shared.origin.server, shared.origin.names());
        match reason {
            ExitReason::Crashed | ExitReason::StartFailed => {
                let what = if started { "child crashed" } else { "child did not start" };
                let hint = SandboxHint::of(&shared.server, Some(exit), &shared.stderr.lines()).map(|hint| hint.text);
                if Cause::new(what, server.to_string()).is_news(CHILDREN_LOGGED) {
                    tracing::warn!(%tenant, %server, %session, pid = shared.life.pid, status = %exit, hint, "{what}");
                }
            }
            _ if Cause::info("child ended", server.to_string()).is_news(CHILDREN_LOGGED) => {
                tracing::info!(%tenant, %server, %session, pid = shared.life.pid, status = %exit, "child ended");
            }
            _ => {}
        }
        let failure = failure.unwrap_or_else(|| {
            let noise = shared.life.noise.load(Ordering::Relaxed);
            Failure::exited(&shared.server, exit, started, last_words(&shared), noise)
        });
        let failure = shared.fail(failure);
        let mut left = shared.expire(Multiplexer::drain);
        if crashed {
            rescue(&shared, &mut left, &failure);
        }
        shared.give_up(left, |_| failure.clone());
        self.tell(reason);
    }

    fn count(&mut self, reason: ExitReason) {
        self.is_counted = true;
        self.shared.charge.end();
        self.shared.metrics.children.dec();
        self.shared.metrics.exited(reason);
    }

    fn tell(&self, reason: ExitReason) {
        let shared = &self.shared;
        let holders = shared.holders.all();
        let _ = shared.life.end.set(End { reason, was_in_use: !holders.is_empty() });
        holders.iter().for_each(|holder| holder.exited());
    }
}
