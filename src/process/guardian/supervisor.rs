//! The owner of the guardian in the gateway: starts it, carries packets, and starts another when it is gone. When it
//! has run to its end, no child is left.

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
use super::health;
use super::protocol::{PacketSocket, Request};
use super::record::Record;
use crate::process::cgroup::Subtree;
use crate::process::folder::Folders;
use crate::process::image::Program;

/// How long the guardian has to end everything below it. Longer than what it allows itself.
const LAST: Duration = Duration::from_secs(7);
/// How long what came to the gateway may take to be gone.
const LEFTOVERS: Duration = Duration::from_secs(5);
/// How often the sweep looks.
const LOOK: Duration = Duration::from_millis(20);
/// How often the guardian is asked whether it is there.
const BEAT: Duration = Duration::from_secs(2);
/// How often in a row it may say nothing. Its end is that of all children: a machine that is busy is no reason.
const MISSED: u32 = 5;
/// Time until a guardian that could not be started is tried again, doubled each time.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// The longest such time.
const LAST_RETRY: Duration = Duration::from_secs(5);

/// Who else has children in the gateway's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbours {
    /// Nobody: the process is the gateway. It becomes a subreaper, and what comes to it when a guardian dies is killed.
    None,
    /// Others, as in a test: the gateway touches no process but the guardian.
    Some,
}

/// Owns the guardian. Dropping it ends the guardian, and with it every child, in the background.
pub struct GuardianSupervisor {
    guardian: Guardian,
    program: Program,
    neighbours: Neighbours,
    process: Child,
    link: PacketSocket,
    record: Option<Record>,
}

impl GuardianSupervisor {
    /// Starts the guardian: `program` is this binary, `cgroups` where the children's cgroups are, `folders` makes
    /// their private folders. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// The program cannot be started, or the system refuses.
    pub fn start(
        program: impl Into<Program>,
        neighbours: Neighbours,
        cgroups: Option<Subtree>,
        folders: Folders,
    ) -> io::Result<(Self, Guardian)> {
        if neighbours == Neighbours::None {
            rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        }
        let guardian = Guardian::new(neighbours == Neighbours::Some, cgroups, folders);
        let program = program.into();
        let (process, link) = start_guardian(program.path(), &guardian)?;
        Ok((Self { guardian: guardian.clone(), program, neighbours, process, link, record: None }, guardian))
    }

    /// Has the guardian keep a record of all processes.
    #[must_use]
    pub fn with_record(self, record: Option<Record>) -> Self {
        Self { record, ..self }
    }

    /// Keeps a guardian running until `stop`; then has it end everything. When this returns, every child is reaped.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => break,
                never = reap_strangers(self.neighbours, &self.guardian, self.process.id()) => match never {},
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
        let Self { guardian, neighbours, mut process, link, .. } = self;
        guardian.cgroups().inspect(|cgroups| cgroups.leave());
        // This is what tells the guardian.
        drop(link);
        if timeout(LAST, process.wait()).await.is_err() {
            tracing::error!("the guardian did not end in time");
            end(&mut process).await;
        }
        if neighbours == Neighbours::None {
            kill_own_children(&guardian).await;
        }
        guardian.close();
        let clear = move || {
            guardian.cgroups().inspect(|cgroups| cgroups.remove());
            guardian.folders().close();
        };
        let _ = tokio::task::spawn_blocking(clear).await;
    }

    async fn serve(&self) -> io::Error {
        match self.introduce().await {
            Ok(beats) => carry(&self.link, &beats, &self.guardian).await,
            Err(error) => error,
        }
    }

    /// Gives a new guardian what it works with. Returns the socket on which it is asked whether it is there.
    async fn introduce(&self) -> io::Result<UnixStream> {
        let (beats, theirs) = health::pair()?;
        self.link.send(&Request::HealthCheck, Some(&theirs)).await?;
        if let Some(record) = &self.record {
            self.link.send(&Request::Record, Some(&record.share()?.into())).await?;
        }
        UnixStream::from_std(beats)
    }

    async fn kill_leftovers(&self) {
        let guardian = self.guardian.clone();
        // It may have to go through all of them.
        let _ = tokio::task::spawn_blocking(move || guardian.cgroups().map(Subtree::kill)).await;
        if self.neighbours == Neighbours::None {
            kill_own_children(&self.guardian).await;
        }
    }

    async fn start_again(&mut self, stop: &CancellationToken) {
        let mut wait = FIRST_RETRY;
        while !stop.is_cancelled() {
            match start_guardian(self.program.path(), &self.guardian) {
                Ok((process, link)) => {
                    (self.process, self.link) = (process, link);
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
    let (link, theirs) = PacketSocket::pair()?;
    let mut command = std::process::Command::new(program);
    // A group of its own: a terminal's Ctrl-C is for the gateway, which ends its children in order.
    command.arg0("sluice").arg("guardian").args(guardian.cgroups().map(Subtree::path)).env_clear().process_group(0);
    command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::inherit());
    // Where the children's private folders are, to be swept.
    command.env("TMPDIR", guardian.folders().place());
    let process = Command::from(command).spawn()?;
    if let Some(pid) = process.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
        guardian.began(pid);
    }
    Ok((process, link))
}

/// Carries packets, both ways, until the link is gone, or nothing comes from the guardian any more. Returns why.
async fn carry(link: &PacketSocket, beats: &UnixStream, guardian: &Guardian) -> io::Error {
    let heard = AtomicBool::new(true);
    let requests = async {
        loop {
            if let Err(error) = link.send(&guardian.next_request().await, None).await {
                return error;
            }
        }
    };
    let reports = async {
        loop {
            match link.receive().await {
                Ok(Some((report, with))) => {
                    heard.store(true, Ordering::Relaxed);
                    guardian.take(report, with);
                }
                Ok(None) => return io::ErrorKind::UnexpectedEof.into(),
                Err(error) => return error,
            }
        }
    };
    // HealthCheck are counted, and not the time: if it was this process that was stopped, what has come meanwhile is heard first.
    let silence = async {
        let mut ticks = interval(BEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut missed = 0;
        while missed < MISSED {
            ticks.tick().await;
            let answers = std::iter::from_fn(|| beats.try_read(&mut [0; 64]).ok().filter(|bytes| *bytes > 0)).count();
            let is_there = heard.swap(false, Ordering::Relaxed) || answers > 0;
            missed = if is_there { 0 } else { missed + 1 };
            // With no room for another question there are enough.
            let _ = beats.try_write(&[0]);
        }
        io::Error::new(io::ErrorKind::TimedOut, format!("it says nothing for {:?}", BEAT * MISSED))
    };
    tokio::select! {
        error = requests => error,
        error = reports => error,
        error = silence => error,
    }
}

/// Ends a guardian that no longer serves, and reaps it. Once that is done, its children have other parents.
async fn end(process: &mut Child) {
    let _ = process.start_kill();
    if let Err(error) = process.wait().await {
        tracing::error!(%error, "the guardian could not be reaped");
    }
}

/// Reaps what comes to the gateway as the first process of a container, where nobody else does: such as what a
/// `docker exec` left behind. It is not the gateway's, and so not killed.
async fn reap_strangers(neighbours: Neighbours, guardian: &Guardian, guardian_id: Option<u32>) -> Infallible {
    let ended = if neighbours == Neighbours::None { signal(SignalKind::child()).ok() } else { None };
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

/// Kills and reaps everything directly below the gateway, until nothing is: what a killed process leaves behind comes
/// here before that process can be reaped.
async fn kill_own_children(guardian: &Guardian) {
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
        let children = children.unwrap_or_default();
        for child in children {
            let _ = rustix::process::kill_process(child, Signal::KILL);
            ended += usize::from(matches!(rustix::process::waitpid(Some(child), WaitOptions::NOHANG), Ok(Some(_))));
        }
        sleep(LOOK).await;
    }
    if ended > 0 {
        tracing::warn!(ended, "ended processes that had outlived the guardian");
    }
}
