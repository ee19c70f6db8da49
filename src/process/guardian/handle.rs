//! The gateway's handle of the guardian, which starts and signals children, and the table of children behind it.
//!
//! Invariant: a child is in the table from before its start is requested until the guardian reports that it is reaped,
//! or the guardian is gone. All who wait for a child are told of its end.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Pid;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, oneshot, watch};

use super::protocol::{Report, Request};
use crate::config::TenantId;
use crate::process::cgroup::{Controllers, Subtree};
use crate::process::exit::{Exit, Signal};
use crate::process::folder::Folders;
use crate::process::limits::ProcessLimits;
use crate::process::proc::{ProcReader, ProcessTree};

/// Most starts at the same time, whatever `children.spawn_concurrency` is. Starting programs compete for the same
/// processors.
const STARTING: usize = 32;

/// Starts children. Clones share their state. Made by [`GuardianSupervisor::start`](super::GuardianSupervisor::start).
#[derive(Debug, Clone)]
pub struct Guardian(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    table: Mutex<Table>,
    wake: Notify,
    starting: Semaphore,
    has_other_children: bool,
    cgroups: Option<Subtree>,
    folders: Folders,
    processes: ProcReader,
}

#[derive(Debug, Default)]
struct Table {
    /// The children that were requested and are not reported as ended, by their ids.
    children: HashMap<u64, Entry>,
    /// Requests for the guardian that are not sent yet. For each child: its launch, each signal once, and its
    /// limits once for each session that has adopted it.
    requests: VecDeque<Request>,
    last_id: u64,
    guardian: Option<Pid>,
    /// Process ids of the stages that wait for a child.
    ready: Vec<i32>,
    is_closed: bool,
}

#[derive(Debug)]
struct Entry {
    status: watch::Sender<Status>,
    socket: Option<oneshot::Sender<OwnedFd>>,
    sent: Vec<Signal>,
}

/// The state of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::process) enum Status {
    /// The start was requested.
    Asked,
    /// The stage or the program runs, as this process.
    Running(Pid),
    /// The guardian could not start the stage; with the error number of the system.
    Failed(i32),
    /// The child has ended; with its process id, if it was started at all.
    Ended(Option<Pid>, Exit),
}

impl Status {
    fn end(self, exit: Exit) -> Self {
        let pid = match self {
            Self::Running(pid) => Some(pid),
            Self::Ended(pid, _) => pid,
            Self::Asked | Self::Failed(_) => None,
        };
        Self::Ended(pid, exit)
    }
}

impl Table {
    /// Ends all children except for those whose launch was not sent yet. Drops all other requests.
    fn lose(&mut self) {
        self.guardian = None;
        self.ready.clear();
        let launch = |request: &Request| if let Request::Launch { id, .. } = request { Some(*id) } else { None };
        let unsent: Vec<u64> = self.requests.iter().filter_map(launch).collect();
        self.children.retain(|id, entry| {
            let stays = unsent.contains(id);
            if !stays {
                entry.status.send_modify(|status| *status = status.end(Exit::killed()));
            }
            stays
        });
        let children = &self.children;
        self.requests.retain(|request| request.id().is_some_and(|id| children.contains_key(&id)));
    }
}

impl Guardian {
    pub(super) fn new(has_other_children: bool, cgroups: Option<Subtree>, folders: Folders) -> Self {
        Self(Arc::new(Shared {
            table: Mutex::default(),
            wake: Notify::new(),
            starting: Semaphore::new(STARTING),
            has_other_children,
            cgroups,
            folders,
            processes: ProcReader::default(),
        }))
    }

    /// The limits that cgroups enforce for each child.
    pub(in crate::process) fn controllers(&self) -> Controllers {
        self.cgroups().map(|cgroups| cgroups.controllers).unwrap_or_default()
    }

    /// The cgroup below which children's cgroups are made; `None` without cgroups.
    pub(in crate::process) fn cgroups(&self) -> Option<&Subtree> {
        self.0.cgroups.as_ref()
    }

    /// The shared reader of the process tree.
    pub(in crate::process) fn processes(&self) -> &ProcReader {
        &self.0.processes
    }

    /// Reads `/proc` now, on a blocking thread.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub(super) async fn process_tree(&self) -> io::Result<Arc<ProcessTree>> {
        let guardian = self.clone();
        let read = move || guardian.processes().read(Duration::ZERO);
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
    }

    /// The maker of private temporary folders.
    pub fn folders(&self) -> &Folders {
        &self.0.folders
    }

    /// Whether the children of `tenant` have a common cgroup.
    pub(in crate::process) fn limits_tenant(&self, tenant: &TenantId) -> bool {
        self.cgroups().is_some_and(|cgroups| cgroups.limits_tenant(tenant))
    }

    /// Requests a stage for a new child, in the cgroup of `tenant` if one is given. Dropping the returned handle kills
    /// the child. Fails once the table is closed.
    pub(in crate::process) fn launch(&self, tenant: Option<&TenantId>) -> io::Result<ChildHandle> {
        let (status, watched) = watch::channel(Status::Asked);
        let (socket, handed) = oneshot::channel();
        let mut table = self.0.table.lock();
        if table.is_closed {
            return Err(io::Error::other("the gateway is stopping"));
        }
        table.last_id += 1;
        let id = table.last_id;
        table.children.insert(id, Entry { status, socket: Some(socket), sent: Vec::new() });
        self.request(&mut table, Request::Launch { id, tenant: tenant.map(ToString::to_string) });
        drop(table);
        Ok(ChildHandle { guardian: self.clone(), id, status: watched, socket: Some(handed) })
    }

    /// Waits for a permit to start a child. Hold the permit until the child executes its program.
    pub(in crate::process) async fn start_permit(&self) -> io::Result<SemaphorePermit<'_>> {
        self.0.starting.acquire().await.map_err(io::Error::other)
    }

    fn request(&self, table: &mut Table, request: Request) {
        table.requests.push_back(request);
        self.0.wake.notify_one();
    }

    /// Requests that the guardian set `limits` for all processes of child `id`. No effect once the child has ended.
    /// Called when a session adopts the child.
    pub(in crate::process) fn limit(&self, id: u64, limits: ProcessLimits) {
        let mut table = self.0.table.lock();
        if table.children.contains_key(&id) {
            self.request(&mut table, Request::Limit { id, limits });
        }
    }

    /// Waits for the next request to send to the guardian, and removes it from the queue.
    pub(super) async fn next_request(&self) -> Request {
        loop {
            let next = self.0.table.lock().requests.pop_front();
            match next {
                Some(next) => return next,
                None => self.0.wake.notified().await,
            }
        }
    }

    /// Updates the table by a report of the guardian. `with` is the descriptor that came with the report.
    pub(super) fn take(&self, report: Report, with: Option<OwnedFd>) {
        let mut table = self.0.table.lock();
        match report {
            Report::Started { id, pid } => {
                if let (Some(entry), Some(pid)) = (table.children.get_mut(&id), Pid::from_raw(pid)) {
                    entry.status.send_replace(Status::Running(pid));
                    // Whoever waited may have left.
                    let _ = entry.socket.take().zip(with).map(|(socket, with)| socket.send(with));
                }
            }
            Report::Ready { pids } => table.ready = pids,
            Report::Failed { id, errno } => {
                if let Some(entry) = table.children.remove(&id) {
                    entry.status.send_replace(Status::Failed(errno));
                }
            }
            Report::Exited { id, status, memory } => {
                if let Some(entry) = table.children.remove(&id) {
                    let exit = Exit::new(ExitStatus::from_raw(status), memory);
                    entry.status.send_modify(|status| *status = status.end(exit));
                }
            }
        }
    }

    /// Notes the process id of a guardian that was started.
    pub(super) fn began(&self, guardian: Pid) {
        self.0.table.lock().guardian = Some(guardian);
    }

    /// Ends all children in the table, because the guardian is gone: the kernel has killed them. A child whose launch
    /// was not sent yet stays, with its requests, for the next guardian.
    pub(super) fn lost(&self) {
        self.0.table.lock().lose();
    }

    /// Ends all children in the table and refuses new ones, because no other guardian will be started.
    pub(super) fn close(&self) {
        let mut table = self.0.table.lock();
        table.is_closed = true;
        table.requests.clear();
        table.lose();
    }

    /// The process ids of running children.
    pub(super) fn leaders(&self) -> Vec<i32> {
        let table = self.0.table.lock();
        let pid = |entry: &Entry| match *entry.status.borrow() {
            Status::Running(pid) => Some(pid.as_raw_pid()),
            _ => None,
        };
        table.children.values().filter_map(pid).collect()
    }

    /// The process ids that belong to no child: that of the guardian, and those of the stages that wait.
    pub(super) fn own_processes(&self) -> (Option<i32>, Vec<i32>) {
        let table = self.0.table.lock();
        (table.guardian.map(Pid::as_raw_pid), table.ready.clone())
    }

    /// Whether this process has children besides the guardian.
    pub(super) fn has_other_children(&self) -> bool {
        self.0.has_other_children
    }
}

/// A child in the guardian's table. Dropping the handle kills the child's process group; the guardian reaps it.
#[derive(Debug)]
pub(in crate::process) struct ChildHandle {
    guardian: Guardian,
    /// The number of the child in the table. Children are numbered in the order of their launches, from 1.
    pub(in crate::process) id: u64,
    status: watch::Receiver<Status>,
    socket: Option<oneshot::Receiver<OwnedFd>>,
}

impl ChildHandle {
    /// Waits for the gateway's end of the stage's stdin. `None` if there is no stage, or the socket was returned
    /// before.
    pub(in crate::process) async fn socket(&mut self) -> Option<OwnedFd> {
        self.socket.take()?.await.ok()
    }

    /// Waits until the guardian has started the stage of the child ([`Status::Running`]) or failed to. Returns
    /// [`Status::Ended`] if the child has ended by then.
    pub(in crate::process) async fn started(&self) -> Status {
        self.when(|status| *status != Status::Asked).await
    }

    /// Waits until the child has ended and the guardian has reaped it.
    pub(in crate::process) async fn ended(&self) -> Exit {
        match self.when(|status| matches!(status, Status::Ended(..) | Status::Failed(_))).await {
            Status::Ended(_, exit) => exit,
            _ => Exit::killed(),
        }
    }

    /// Waits until the status is one that `is` accepts.
    async fn when(&self, is: impl FnMut(&Status) -> bool) -> Status {
        let mut status = self.status.clone();
        status.wait_for(is).await.map_or(Status::Ended(None, Exit::killed()), |status| *status)
    }

    /// Requests that the guardian send `signal` to the child's process group. No effect once the child has ended, or if
    /// the same signal was requested before.
    pub(in crate::process) fn signal(&self, signal: Signal) {
        let (id, mut table) = (self.id, self.guardian.0.table.lock());
        if let Some(entry) = table.children.get_mut(&id)
            && !entry.sent.contains(&signal)
        {
            entry.sent.push(signal);
            self.guardian.request(&mut table, Request::Signal { id, signal });
        }
    }
}

impl Drop for ChildHandle {
    fn drop(&mut self) {
        self.signal(Signal::Kill);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    impl Guardian {
        /// A guardian without a process: starts nothing.
        pub(crate) fn of_nobody() -> Self {
            Self::new(true, None, Folders::new(None))
        }
    }

    #[tokio::test]
    async fn a_child_ends_with_the_guardian_that_took_its_launch_and_not_before_one_did() {
        let guardian = Guardian::of_nobody();
        let (taken, waiting) = (guardian.launch(None).unwrap(), guardian.launch(None).unwrap());
        assert!(matches!(guardian.next_request().await, Request::Launch { id, .. } if id == taken.id));
        taken.signal(Signal::Kill);
        guardian.lost();
        assert_eq!(taken.started().await, Status::Ended(None, Exit::killed()));
        assert!(matches!(guardian.next_request().await, Request::Launch { id, .. } if id == waiting.id));
        guardian.close();
        assert_eq!(waiting.ended().await, Exit::killed());
        assert!(guardian.launch(None).is_err());
    }
}
