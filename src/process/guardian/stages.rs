//! Starts stages for the guardian, each in a cgroup of its own where cgroups are available. Some stages wait in
//! advance, so that a child need not wait for the execution of the stage, nor for its move into a cgroup, which can
//! take ten milliseconds.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Pid;
use tokio::time::{Instant, sleep_until};

use crate::config::RUNNING;
use crate::process::cgroup::{self, remove_if_left, tenant_folder};
use crate::process::pinned_folder::PinnedFolder;

/// Number of stages that wait for new children.
const READY: usize = 2;
/// Time between a start and the making of waiting stages. The child that has just started needs the processors.
const LATER: Duration = Duration::from_millis(3);
/// Time between a failure to start a stage and the next attempt.
const RETRY: Duration = Duration::from_secs(1);

/// A process that waits for its spawn request.
pub(super) struct Stage {
    pub(super) pid: Pid,
    /// The gateway's end of the stage's stdin.
    pub(super) socket: OwnedFd,
    /// The path of its cgroup.
    pub(super) cgroup: Option<PathBuf>,
}

/// The waiting stages, and the means to start more.
pub(super) struct Stages {
    /// The cgroup below which children's cgroups are made.
    cgroups: Option<PathBuf>,
    /// The folder of that cgroup, pinned against changes of its mode by servers.
    held: Option<PinnedFolder>,
    last_cgroup: u64,
    ready: VecDeque<Stage>,
    next: Instant,
}

impl Stages {
    pub(super) fn new(cgroups: Option<PathBuf>) -> Self {
        let held = cgroups.as_ref().and_then(|path| PinnedFolder::at(path).ok());
        Self { cgroups, held, last_cgroup: 0, ready: VecDeque::new(), next: Instant::now() }
    }

    /// Returns a stage for a child: a waiting one, or a new one in the cgroup of `tenant`.
    pub(super) fn take(&mut self, tenant: Option<&str>) -> io::Result<Stage> {
        self.next = Instant::now() + LATER;
        match (tenant, self.ready.pop_front()) {
            (None, Some(stage)) => Ok(stage),
            (_, ready) => {
                self.ready.extend(ready);
                self.start(tenant)
            }
        }
    }

    /// Waits until another waiting stage should be started.
    pub(super) async fn is_due(&self) {
        if self.ready.len() >= READY {
            return std::future::pending().await;
        }
        sleep_until(self.next).await;
    }

    /// Starts a waiting stage. After a failure, the next attempt is due in a second.
    pub(super) fn replenish(&mut self) {
        match self.start(None) {
            Ok(stage) => self.ready.push_back(stage),
            Err(_) => self.next = Instant::now() + RETRY,
        }
    }

    /// The process ids of the waiting stages.
    pub(super) fn pids(&self) -> Vec<i32> {
        self.ready.iter().map(|stage| stage.pid.as_raw_pid()).collect()
    }

    /// Whether a waiting stage has the process id `pid`.
    pub(super) fn has(&self, pid: Pid) -> bool {
        self.ready.iter().any(|stage| stage.pid == pid)
    }

    /// Removes and returns the waiting stages that have died.
    pub(super) fn remove(&mut self, is_dead: impl Fn(Pid) -> bool) -> Vec<Stage> {
        let (dead, ready): (Vec<_>, Vec<_>) = self.ready.drain(..).partition(|stage| is_dead(stage.pid));
        self.ready.extend(ready);
        dead
    }

    /// Kills everything in all children's cgroups.
    pub(super) fn kill_all(&self) {
        if let Some(path) = &self.cgroups {
            cgroup::kill(path);
        }
    }

    /// Removes all cgroups of the gateway, which holds a lock on them while it lives. `false` if something is left.
    pub(super) fn clear(&self) -> bool {
        self.cgroups.as_ref().is_none_or(|path| remove_if_left(path))
    }

    /// Starts this binary as a stage, in a new process group.
    fn start(&mut self, tenant: Option<&str>) -> io::Result<Stage> {
        let cgroup = self.make_cgroup(tenant);
        let (socket, theirs) = UnixStream::pair()?;
        let stage = Command::new(RUNNING)
            .arg0("sluice")
            .args(["stage", &rustix::process::getpid().to_string()])
            .args(&cgroup)
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .process_group(0)
            .spawn();
        let stage = stage.inspect_err(|_| _ = cgroup.as_deref().map(cgroup::remove))?;
        Ok(Stage { pid: Pid::from_child(&stage), socket: socket.into(), cgroup })
    }

    /// Makes the cgroup for a stage. `None` on failure: then the child starts without one, unless the cgroup has to
    /// keep limits, in which case the stage reports a failure.
    fn make_cgroup(&mut self, tenant: Option<&str>) -> Option<PathBuf> {
        let top = self.cgroups.as_ref()?;
        let _ = self.held.as_ref().map(PinnedFolder::restore_mode);
        self.last_cgroup += 1;
        let parent = tenant.map_or_else(|| top.clone(), |tenant| tenant_folder(top, tenant));
        let path = parent.join(format!("{}-{}", std::process::id(), self.last_cgroup));
        std::fs::create_dir(&path).ok().map(|()| path)
    }
}
