//! The guardian process: starts stages, signals and reaps children, and reports to the gateway. Its main thread forks
//! all children and must never end, because a child's parent-death signal follows the thread that forked it. Invariant:
//! a temporary error of the system ends no child; the work is tried again within a second.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions};
use tokio::signal::unix::{Signal as Caught, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::health::{self, MainThreadProgress};
use super::protocol::{PacketSocket, Report, Request};
use super::record::Record;
use super::scan_thread::ScanThread;
use super::stages::{Stage, Stages};
use crate::process::cgroup;
use crate::process::exit::Signal;
use crate::process::proc::ChildList;

/// Time between two searches for orphans without a signal. No signal tells of orphans whose former parent gave up being
/// a subreaper.
const ROUND: Duration = Duration::from_secs(1);
/// Time until the guardian checks again whether the orphans of a dead child are gone.
const SOON: Duration = Duration::from_millis(5);
/// Longest time that the report of a dead child is held back for its orphans.
const STUCK: Duration = Duration::from_secs(2);
/// Most orphans that are killed in one round. A dead child may leave a hundred thousand, while requests for others
/// wait.
const MAX_ORPHANS: usize = 1024;
/// Time until the next round, if a round did not get to all orphans.
const AT_ONCE: Duration = Duration::from_millis(1);
/// Time limit for killed processes to disappear, when the guardian ends.
const LAST: Duration = Duration::from_secs(5);
/// Time between two checks for that.
const LAST_CHECK: Duration = Duration::from_millis(20);

/// Runs the guardian (`sluice guardian`), whose stdin is the socket to the gateway. `cgroups` is the cgroup below which
/// children's cgroups are made. Returns when the gateway is gone and everything below the guardian has ended, or 5
/// seconds have passed. Removes the temporary folders of killed gateways before it returns.
///
/// # Errors
/// stdin is no socket, or the system refuses what the guardian needs.
pub fn run(cgroups: Option<PathBuf>) -> io::Result<()> {
    close_inherited()?;
    // It was executed by another name.
    rustix::thread::set_name(c"sluice")?;
    crate::process::sandbox::conceal()?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let gateway = PacketSocket::new(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?)?;
        let mut ended = signal(SignalKind::child())?;
        let mut process = GuardianProcess::new(Stages::new(cgroups))?;
        let served = process.serve(&gateway, &mut ended).await;
        process.clear(&mut ended, served.is_ok()).await;
        // The next gateway does not wait for the removal of folders.
        process.scan_thread.end();
        // Those of a gateway that was killed: one that lives still holds its own.
        crate::process::folder::remove_abandoned(&std::env::temp_dir());
        served
    })
}

/// Closes descriptors that the gateway inherited from its own parent; children would inherit them otherwise.
fn close_inherited() -> io::Result<()> {
    let descriptors: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for descriptor in descriptors.into_iter().filter(|descriptor| *descriptor > libc::STDERR_FILENO) {
        // Nothing in this process owns a descriptor yet. The one that the list was read from is closed already.
        let _ = nix::unistd::close(descriptor);
    }
    Ok(())
}

/// The state of the guardian. A child is in the table from its fork until it is reaped.
struct GuardianProcess {
    ids: HashMap<Pid, u64>,
    leaders: HashMap<u64, Leader>,
    stages: Stages,
    /// Reports to send, each with a descriptor. At most two for each child, and one about the stages.
    reports: VecDeque<(Report, Option<Arc<OwnedFd>>)>,
    children: ChildList,
    scan_thread: ScanThread,
    progress: Arc<MainThreadProgress>,
    /// Whether the last round could not list the children of this process.
    is_blind: bool,
    /// Whether the last round left orphans to the next one.
    has_more: bool,
    /// Reaped children whose report waits for the end of their orphans.
    ended: Vec<Ended>,
    /// Orphans that were killed, and since when they are known.
    orphans: HashMap<Pid, Instant>,
    /// Cgroups to be removed that still had processes in them.
    left: Vec<PathBuf>,
}

/// A reaped child whose end was not reported yet.
struct Ended {
    report: Report,
    cgroup: Option<PathBuf>,
    since: Instant,
}

struct Leader {
    pid: Pid,
    cgroup: Option<PathBuf>,
}

impl Leader {
    /// Signals a child that is not reaped yet: its process group, and the child itself, in case it has joined another
    /// group. [`Signal::Kill`] also kills everything in the child's cgroup, if it has one.
    fn send(&self, signal: Signal) {
        // The possible errors are that nothing is left to signal, and that everything in the group has another user.
        let _ = rustix::process::kill_process_group(self.pid, signal.into());
        let _ = rustix::process::kill_process(self.pid, signal.into());
        if signal == Signal::Kill {
            self.cgroup.as_deref().inspect(|cgroup| cgroup::kill(cgroup));
        }
    }
}

impl GuardianProcess {
    fn new(stages: Stages) -> io::Result<Self> {
        Ok(Self {
            ids: HashMap::new(),
            leaders: HashMap::new(),
            stages,
            reports: VecDeque::new(),
            children: ChildList::of_this_process()?,
            scan_thread: ScanThread::start()?,
            progress: Arc::new(MainThreadProgress::new()),
            is_blind: false,
            has_more: false,
            ended: Vec::new(),
            orphans: HashMap::new(),
            left: Vec::new(),
        })
    }

    /// Handles requests of the gateway until the gateway closes its end of the socket.
    async fn serve(&mut self, gateway: &PacketSocket, ended: &mut Caught) -> io::Result<()> {
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.progress.note();
            let report = self.reports.front().cloned();
            let soon = if self.has_more { AT_ONCE } else { SOON };
            tokio::select! {
                request = gateway.receive() => match request? {
                    Some((request, with)) => self.obey(request, with),
                    None => return Ok(()),
                },
                sent = deliver(gateway, report.as_ref()), if report.is_some() => {
                    if !sent? {
                        return Ok(());
                    }
                    self.reports.pop_front();
                }
                () = self.stages.is_due() => {
                    self.stages.replenish();
                    self.report_stages();
                }
                _ = ended.recv() => self.round(),
                () = sleep(soon), if self.has_more || !self.ended.is_empty() => self.round(),
                _ = rounds.tick() => self.round(),
            }
        }
    }

    fn obey(&mut self, request: Request, with: Option<OwnedFd>) {
        match request {
            Request::Launch { id, tenant } => match self.stages.take(tenant.as_deref()) {
                Ok(Stage { pid, socket, cgroup }) => {
                    self.ids.insert(pid, id);
                    self.leaders.insert(id, Leader { pid, cgroup });
                    let started = Report::Started { id, pid: pid.as_raw_pid() };
                    self.reports.push_back((started, Some(Arc::new(socket))));
                    self.report_stages();
                }
                Err(error) => {
                    let errno = error.raw_os_error().unwrap_or(libc::EIO);
                    self.reports.push_back((Report::Failed { id, errno }, None));
                }
            },
            Request::HealthCheck => {
                // Without a thread for it the gateway hears nothing, and starts another guardian.
                let _ = with.map(|socket| health::answer(socket, Arc::clone(&self.progress)));
            }
            Request::Record => {
                let record = with.and_then(|file| Record::new(file.into()).ok());
                record.into_iter().for_each(|record| self.scan_thread.keep(record));
            }
            Request::Limit { id, limits } => {
                if let Some(leader) = self.leaders.get(&id) {
                    self.scan_thread.limit(leader.pid, limits);
                }
            }
            Request::Signal { id, signal } => {
                // One that is reaped is no longer here: its id may be another's.
                if let Some(leader) = self.leaders.get(&id) {
                    leader.send(signal);
                }
            }
        }
    }

    /// One round: kills the groups of dead children and all orphans, and reaps the dead.
    fn round(&mut self) {
        let dead: Vec<Pid> = self.ids.keys().copied().filter(|leader| is_dead(*leader)).collect();
        for leader in dead.iter().filter_map(|pid| self.leaders.get(self.ids.get(pid)?)) {
            leader.send(Signal::Kill);
        }
        let spoilt = self.stages.remove(is_dead);
        if !spoilt.is_empty() {
            self.report_stages();
        }
        self.left.extend(spoilt.into_iter().filter_map(|stage| stage.cgroup));
        let now = Instant::now();
        // Where the system has no room for the list of its children, what is to be ended is still there with the next
        // look.
        let children = self.children.read();
        self.is_blind = children.is_err();
        if let Ok(children) = children {
            self.end_orphans(children, now);
        }
        for leader in dead {
            if let Ok(Some((_, status))) = rustix::process::waitpid(Some(leader), WaitOptions::NOHANG)
                && let Some(id) = self.ids.remove(&leader)
            {
                let cgroup = self.leaders.remove(&id).and_then(|leader| leader.cgroup);
                let memory = cgroup.as_deref().and_then(cgroup::out_of_memory);
                let report = Report::Exited { id, status: status.as_raw(), memory };
                self.ended.push(Ended { report, cgroup, since: now });
            }
        }
        self.report_ended();
        // A cgroup is busy until its last process is gone: then it is tried again with the next look.
        self.left.retain(|cgroup| !cgroup::remove(cgroup));
    }

    /// Kills and reaps up to [`MAX_ORPHANS`] of the orphans among `children`, new ones first.
    fn end_orphans(&mut self, children: Vec<Pid>, now: Instant) {
        let is_orphan = |pid: &Pid| !self.ids.contains_key(pid) && !self.stages.has(*pid);
        let mut orphans: Vec<Pid> = children.into_iter().filter(is_orphan).collect();
        // Those that do not end for all that they were killed, in the last look, keep none of the others waiting.
        orphans.sort_by_key(|pid| self.orphans.contains_key(pid));
        self.has_more = orphans.iter().filter(|pid| !self.orphans.contains_key(pid)).count() > MAX_ORPHANS;
        orphans.truncate(MAX_ORPHANS);
        for orphan in &orphans {
            let _ = rustix::process::kill_process(*orphan, rustix::process::Signal::KILL);
            let _ = rustix::process::waitpid(Some(*orphan), WaitOptions::NOHANG);
        }
        let mut before = std::mem::take(&mut self.orphans);
        self.orphans = orphans.into_iter().map(|pid| (pid, before.remove(&pid).unwrap_or(now))).collect();
    }

    /// Queues the reports of dead children whose orphans have ended, or have taken too long. With a cgroup the orphans
    /// of a child are known. Without one any orphan may be the child's, so all must have ended, except for those that
    /// survive SIGKILL for [`STUCK`].
    fn report_ended(&mut self) {
        let is_stuck = |since: &Instant| since.elapsed() >= STUCK;
        let is_quiet = !self.is_blind && !self.has_more && self.orphans.values().all(is_stuck);
        for ended in std::mem::take(&mut self.ended) {
            let is_over = ended.cgroup.as_deref().map_or(is_quiet, cgroup::remove);
            if !is_over && !is_stuck(&ended.since) {
                self.ended.push(ended);
                continue;
            }
            self.reports.push_back((ended.report, None));
            self.left.extend(ended.cgroup.filter(|_| !is_over));
        }
    }

    /// Queues a report about the waiting stages, in the place of earlier ones.
    fn report_stages(&mut self) {
        self.reports.retain(|(report, _)| !matches!(report, Report::Ready { .. }));
        self.reports.push_back((Report::Ready { pids: self.stages.pids() }, None));
    }

    /// Kills everything below the guardian and waits up to [`LAST`] until it is gone. `is_alone` tells that the gateway
    /// is gone: then its cgroups are removed too.
    async fn clear(&mut self, ended: &mut Caught, is_alone: bool) {
        self.stages.kill_all();
        self.leaders.values().for_each(|leader| leader.send(Signal::Kill));
        let deadline = Instant::now() + LAST;
        // What a killed process leaves behind comes here before that process can be reaped: no child, nothing left.
        while Instant::now() < deadline && (end_children(&mut self.children) || (is_alone && !self.stages.clear())) {
            let _ = timeout(LAST_CHECK, ended.recv()).await;
        }
    }
}

/// Kills and reaps all children of this process. `false` if there were none left.
fn end_children(children: &mut ChildList) -> bool {
    for child in children.read().unwrap_or_default() {
        let _ = rustix::process::kill_process(child, rustix::process::Signal::KILL);
    }
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

fn is_dead(leader: Pid) -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    matches!(rustix::process::waitid(WaitId::Pid(leader), look), Ok(Some(_)))
}

/// Sends `report`. `false` if the gateway has closed its end.
async fn deliver(gateway: &PacketSocket, report: Option<&(Report, Option<Arc<OwnedFd>>)>) -> io::Result<bool> {
    let Some((report, with)) = report else { return Ok(true) };
    match gateway.send(report, with.as_deref()).await {
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(false),
        sent => sent.map(|()| true),
    }
}
