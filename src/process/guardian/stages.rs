//! Starts stages for the guardian, each in a cgroup of its own where there are cgroups, and keeps some ready: nobody waits
//! for these to be executed, nor for the kernel to move them into their cgroups, which can take it ten milliseconds.

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

use super::protocol::READY;
use crate::config::RUNNING;
use crate::process::cgroup::{Cgroup, remove_if_left, tenant_folder};
use crate::process::pinned_folder::PinnedFolder;

/// How long after a start others are made ready: who has just asked for one has use for the processors.
const LATER: Duration = Duration::from_millis(3);
/// How long after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// A process that waits for its order.
pub(super) struct Stage {
    pub(super) pid: Pid,
    /// The other end of its stdin.
    pub(super) socket: OwnedFd,
    pub(super) cgroup: Option<Cgroup>,
}

/// What starts them.
pub(super) struct Stages {
    /// Where the cgroups are.
    cgroups: Option<PathBuf>,
    /// The same, whatever a server of the gateway's user does to its mode.
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

    /// One for a child, in the cgroup of a tenant if one is named.
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

    /// Waits until it is time to make one ready.
    pub(super) async fn is_due(&self) {
        if self.ready.len() >= READY {
            return std::future::pending().await;
        }
        sleep_until(self.next).await;
    }

    /// Makes one ready.
    pub(super) fn replenish(&mut self) {
        match self.start(None) {
            Ok(stage) => self.ready.push_back(stage),
            Err(_) => self.next = Instant::now() + RETRY,
        }
    }

    /// Those that are ready.
    pub(super) fn pids(&self) -> [Option<i32>; READY] {
        let mut pids = self.ready.iter().map(|stage| stage.pid.as_raw_pid());
        [(); READY].map(|()| pids.next())
    }

    /// Whether one that is ready has this id.
    pub(super) fn has(&self, pid: Pid) -> bool {
        self.ready.iter().any(|stage| stage.pid == pid)
    }

    /// Takes out those that have ended before they were of any use.
    pub(super) fn remove(&mut self, is_dead: impl Fn(Pid) -> bool) -> Vec<Stage> {
        let (dead, ready): (Vec<_>, Vec<_>) = self.ready.drain(..).partition(|stage| is_dead(stage.pid));
        self.ready.extend(ready);
        dead
    }

    /// Ends everything in all cgroups.
    pub(super) fn kill_all(&self) {
        if let Some(path) = &self.cgroups {
            crate::process::cgroup::kill(path);
        }
    }

    /// Removes all cgroups, and the one that they are in, which the gateway has locked until it is gone. `false` if
    /// something is left.
    pub(super) fn clear(&self) -> bool {
        self.cgroups.as_ref().is_none_or(|path| remove_if_left(path))
    }

    /// Starts this binary again, in a group of its own.
    fn start(&mut self, tenant: Option<&str>) -> io::Result<Stage> {
        let cgroup = self.make_cgroup(tenant);
        let (socket, theirs) = UnixStream::pair()?;
        let stage = Command::new(RUNNING)
            .arg0("sluice")
            .args(["stage", &rustix::process::getpid().to_string()])
            .args(cgroup.as_ref().map(Cgroup::path))
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .process_group(0)
            .spawn();
        match stage {
            Ok(stage) => Ok(Stage { pid: Pid::from_child(&stage), socket: socket.into(), cgroup }),
            Err(error) => {
                let _ = cgroup.as_ref().map(Cgroup::remove);
                Err(error)
            }
        }
    }

    /// Without one a child is started all the same, unless it or its tenant has limits that the cgroup was to keep: then the
    /// stage refuses.
    fn make_cgroup(&mut self, tenant: Option<&str>) -> Option<Cgroup> {
        let top = self.cgroups.as_ref()?;
        let _ = self.held.as_ref().map(PinnedFolder::put_right);
        self.last_cgroup += 1;
        let parent = tenant.map_or_else(|| top.clone(), |tenant| tenant_folder(top, tenant));
        Cgroup::make(&parent, &format!("{}-{}", std::process::id(), self.last_cgroup)).ok()
    }
}
