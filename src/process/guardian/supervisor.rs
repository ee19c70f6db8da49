//! Supervises the guardian from the gateway: starts it, carries packets, checks its health, and starts another when it
//! is gone. Invariant: when the supervisor has stopped, no child is left.

use std::convert::Infallible;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::handle::Guardian;
use super::protocol::{PacketSocket, Request};
use super::record::Record;
use crate::process::cgroup::Subtree;
use crate::process::folder::Folders;
use crate::process::image::Program;

/// Time limit for the guardian to end everything below it; longer than the guardian's own limit.
const LAST: Duration = Duration::from_secs(7);
/// Time limit for orphans of a dead guardian to disappear.
const LEFTOVERS: Duration = Duration::from_secs(5);
/// Time between two checks for that.
const AGAIN: Duration = Duration::from_millis(20);
/// Time between two health checks.
const HEALTH_CHECK: Duration = Duration::from_secs(2);
/// Health checks in a row without an answer or a report after which the guardian is replaced. All children end with it,
/// so a busy machine must not be a reason.
const MISSED: u32 = 5;
/// Time until a failed start of a guardian is repeated; doubles with each failure.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// Longest such time.
const LAST_RETRY: Duration = Duration::from_secs(5);

/// Whether the gateway's process has other children than the guardian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbours {
    /// It has none: the process is a gateway alone. It becomes a subreaper and kills the orphans of a dead guardian.
    None,
    /// It has some, as in a test: the gateway touches no process but the guardian.
    Some,
}

/// Owner of the guardian process. Dropping it ends the guardian and every child in the background.
pub struct GuardianSupervisor {
    guardian: Guardian,
    program: Program,
    process: Child,
    socket: PacketSocket,
    record: Option<Record>,
}

impl GuardianSupervisor {
    /// Starts the guardian. `program` is this binary, `cgroups` the cgroup for children's cgroups, and `folders` the
    /// maker of private temporary folders. Each guardian keeps `record` up to date. Returns the supervisor and the
    /// handle to start children with. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// The program cannot be started, or the system refuses.
    pub fn start(
        program: impl Into<Program>,
        neighbours: Neighbours,
        cgroups: Option<Subtree>,
        folders: Folders,
        record: Option<Record>,
    ) -> io::Result<(Self, Guardian)> {
        if neighbours == Neighbours::None {
            rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        }
        let guardian = Guardian::new(neighbours == Neighbours::Some, cgroups, folders);
        let program = program.into();
        let (process, socket) = start_guardian(program.path(), &guardian)?;
        Ok((Self { guardian: guardian.clone(), program, process, socket, record }, guardian))
    }

    /// Keeps a guardian running until `stop` is cancelled, then ends it and everything below it, removes the cgroups,
    /// and waits a while for the removal of temporary folders. When this returns, every child is reaped.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => break,
                never = reap_strangers(&self.guardian, self.process.id()) => match never {},
                why = self.serve() => {
                    tracing::error!(%why, "the guardian is gone or of no use, and every child with it; starting another");
                }
            }
            end(&mut self.process).await;
            // Nobody hears that a child has ended before what it left has.
            self.kill_leftovers().await;
            self.guardian.lost();
            self.start_again(&stop).await;
        }
        self.guardian.close();
        let Self { guardian, mut process, socket, .. } = self;
        guardian.cgroups().inspect(|cgroups| cgroups.leave());
        // This is what tells the guardian.
        drop(socket);
        if timeout(LAST, process.wait()).await.is_err() {
            tracing::error!("the guardian did not end in time");
            end(&mut process).await;
        }
        kill_own_children(&guardian).await;
        guardian.close();
        let clear = move || {
            guardian.cgroups().inspect(|cgroups| cgroups.remove());
            guardian.folders().close();
        };
        let _ = tokio::task::spawn_blocking(clear).await;
    }

    async fn serve(&self) -> io::Error {
        match self.introduce().await {
            Ok(health) => carry(&self.socket, &health, &self.guardian).await,
            Err(error) => error,
        }
    }

    /// Sends a new guardian the health check socket and the record. Returns the gateway's end of the socket.
    async fn introduce(&self) -> io::Result<UnixStream> {
        let (health, theirs) = std::os::unix::net::UnixStream::pair()?;
        health.set_nonblocking(true)?;
        self.socket.send(&Request::HealthCheck, Some(&theirs.into())).await?;
        if let Some(record) = &self.record {
            self.socket.send(&Request::Record, Some(&record.share()?.into())).await?;
        }
        UnixStream::from_std(health)
    }

    async fn kill_leftovers(&self) {
        let guardian = self.guardian.clone();
        // It may have to go through all of them.
        let _ = tokio::task::spawn_blocking(move || guardian.cgroups().map(Subtree::kill)).await;
        kill_own_children(&self.guardian).await;
    }

    async fn start_again(&mut self, stop: &CancellationToken) {
        let mut wait = FIRST_RETRY;
        while !stop.is_cancelled() {
            match start_guardian(self.program.path(), &self.guardian) {
                Ok((process, socket)) => {
                    (self.process, self.socket) = (process, socket);
                    return;
                }
                Err(error) => tracing::error!(%error, "the guardian cannot be started; trying again in {wait:?}"),
            }
            tokio::select! {
                () = sleep(wait) => wait = (wait * 2).min(LAST_RETRY),
                () = stop.cancelled() => {}
            }
        }
    }
}

fn start_guardian(program: &Path, guardian: &Guardian) -> io::Result<(Child, PacketSocket)> {
    let (socket, theirs) = PacketSocket::pair()?;
    let mut command = std::process::Command::new(program);
    // A group of its own: a terminal's Ctrl-C is for the gateway, which ends its children in order.
    command.arg0("sluice").arg("guardian").args(guardian.cgroups().map(Subtree::path)).env_clear().process_group(0);
    command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::inherit());
    // Where the private folders of children are, which the guardian removes if the gateway is killed.
    command.env("TMPDIR", &guardian.folders().place);
    let process = Command::from(command).spawn()?;
    if let Some(pid) = process.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
        guardian.began(pid);
    }
    Ok((process, socket))
}

/// Carries packets in both directions until the socket fails or health checks remain unanswered. Returns the reason.
async fn carry(socket: &PacketSocket, health: &UnixStream, guardian: &Guardian) -> io::Error {
    let heard = AtomicBool::new(true);
    let requests = async {
        loop {
            if let Err(error) = socket.send(&guardian.next_request().await, None).await {
                return error;
            }
        }
    };
    let reports = async {
        loop {
            match socket.receive().await {
                Ok(Some((report, with))) => {
                    heard.store(true, Ordering::Relaxed);
                    guardian.take(report, with);
                }
                Ok(None) => return io::ErrorKind::UnexpectedEof.into(),
                Err(error) => return error,
            }
        }
    };
    // Checks are counted, and not the time: if it was this process that was stopped, what has come meanwhile is heard
    // first.
    let silence = async {
        let mut ticks = interval(HEALTH_CHECK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut missed = 0;
        while missed < MISSED {
            ticks.tick().await;
            let answers = std::iter::from_fn(|| health.try_read(&mut [0; 64]).ok().filter(|bytes| *bytes > 0)).count();
            let is_there = heard.swap(false, Ordering::Relaxed) || answers > 0;
            missed = if is_there { 0 } else { missed + 1 };
            // With no room for another question there are enough.
            let _ = health.try_write(&[0]);
        }
        io::Error::new(io::ErrorKind::TimedOut, format!("it says nothing for {:?}", HEALTH_CHECK * MISSED))
    };
    tokio::select! {
        error = requests => error,
        error = reports => error,
        error = silence => error,
    }
}

/// Kills and reaps a guardian. After that its former children have other parents.
async fn end(process: &mut Child) {
    let _ = process.start_kill();
    if let Err(error) = process.wait().await {
        tracing::error!(%error, "the guardian could not be reaped");
    }
}

/// Reaps processes that become children of the gateway because the gateway is process 1 of a container, such as those
/// that `docker exec` left behind. Does not kill them. Leaves out the process `guardian_id`. Never returns; does
/// nothing in a process that has other children than the guardian.
async fn reap_strangers(guardian: &Guardian, guardian_id: Option<u32>) -> Infallible {
    let ended = if guardian.has_other_children() { None } else { signal(SignalKind::child()).ok() };
    let Some(mut ended) = ended else { return std::future::pending().await };
    loop {
        ended.recv().await;
        let Ok(tree) = guardian.process_tree().await else { continue };
        let own = rustix::process::getpid();
        for child in tree.children_of(own).filter(|child| Some(child.as_raw_pid().cast_unsigned()) != guardian_id) {
            let _ = rustix::process::waitpid(Some(child), WaitOptions::NOHANG);
        }
    }
}

/// Kills and reaps the children of this process until none is left, for up to [`LEFTOVERS`]. Their own children become
/// children of this process before they can be reaped. No effect in a process that has other children than the
/// guardian.
async fn kill_own_children(guardian: &Guardian) {
    if guardian.has_other_children() {
        return;
    }
    let own = rustix::process::getpid();
    let deadline = Instant::now() + LEFTOVERS;
    let mut ended = 0;
    loop {
        let tree = guardian.process_tree().await;
        let children: io::Result<Vec<Pid>> = tree.map(|tree| tree.children_of(own).collect());
        if children.as_ref().is_ok_and(Vec::is_empty) {
            break;
        }
        if Instant::now() >= deadline {
            return tracing::error!(left = ?children.map(|left| left.len()), "processes did not end in time, or cannot be listed");
        }
        for child in children.unwrap_or_default() {
            let _ = rustix::process::kill_process(child, Signal::KILL);
            ended += usize::from(matches!(rustix::process::waitpid(Some(child), WaitOptions::NOHANG), Ok(Some(_))));
        }
        sleep(AGAIN).await;
    }
    if ended > 0 {
        tracing::warn!(ended, "ended processes that had outlived the guardian");
    }
}
