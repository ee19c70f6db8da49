//! The guardian process itself: starts stages, signals groups, reaps, and reports. One thread forks all children, and must stay:
//! a child's parent-death signal follows the thread that forked it. Invariant: what the system refuses for a moment ends no
//! child; it is done with the next look.

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
use crate::process::cgroup::Cgroup;
use crate::process::exit::Signal;
use crate::process::proc::ChildList;

/// How often orphans are looked for without a signal that something ended. There is none for what comes here from a
/// child that gave up being the subreaper of its descendants.
const LOOK: Duration = Duration::from_secs(1);
/// How soon it is looked again whether what a dead child has left is gone.
const SOON: Duration = Duration::from_millis(5);
/// How long that may take: the end of the child is reported then, whatever is left.
const STUCK: Duration = Duration::from_secs(2);
/// Orphans that one look ends at most: a dead child may leave a hundred thousand, and others have requests meanwhile.
const MAX_ORPHANS: usize = 1024;
/// How soon the next look is then.
const AT_ONCE: Duration = Duration::from_millis(1);
/// How long killed processes may take to be gone, at the end.
const LAST: Duration = Duration::from_secs(5);
/// How long the last look waits for a signal before it looks again.
const LAST_LOOK: Duration = Duration::from_millis(20);

/// Runs the guardian: `sluice guardian`, whose stdin is the socket to the gateway; the children's cgroups are in `cgroups`.
/// Returns when the gateway is gone, and everything below the guardian with it.
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
        let link = PacketSocket::new(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?)?;
        let mut ended = signal(SignalKind::child())?;
        let mut process = GuardianProcess::new(Stages::new(cgroups))?;
        let served = process.serve(&link, &mut ended).await;
        process.clear(&mut ended, served.is_ok()).await;
        // The next gateway does not wait for the sweep.
        process.scan_thread.end();
        // Those of a gateway that was killed: one that lives still holds its own.
        crate::process::folder::remove_abandoned(&std::env::temp_dir());
        served
    })
}

/// Closes what whoever started the gateway has left open in it: the children would inherit that.
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

/// The children, each the leader of its group. A leader is in here from its fork until it is reaped.
struct GuardianProcess {
    ids: HashMap<Pid, u64>,
    leaders: HashMap<u64, Leader>,
    stages: Stages,
    /// At most two for each child, and one of the stages; what goes with it.
    reports: VecDeque<(Report, Option<Arc<OwnedFd>>)>,
    children: ChildList,
    scan_thread: ScanThread,
    progress: Arc<MainThreadProgress>,
    /// Whether the last look could see nothing.
    is_blind: bool,
    /// Whether it left orphans to the next one.
    has_more: bool,
    /// Children that have ended, and are reported when what they left has ended too.
    ended: Vec<Ended>,
    /// What dead leaders left to this process, and since when.
    orphans: HashMap<Pid, Instant>,
    /// Cgroups in which something had not ended yet.
    left: Vec<Cgroup>,
}

/// A child that is reaped.
struct Ended {
    report: Report,
    cgroup: Option<Cgroup>,
    since: Instant,
}

struct Leader {
    pid: Pid,
    cgroup: Option<Cgroup>,
}

impl Leader {
    /// Signals a child that is not reaped yet, and all of its group: the group may have lost its leader to another one.
    fn send(&self, signal: Signal) {
        // The possible errors are that nothing is left to signal, and that everything in the group has another user.
        let _ = rustix::process::kill_process_group(self.pid, signal.into());
        let _ = rustix::process::kill_process(self.pid, signal.into());
        if signal == Signal::Kill {
            self.cgroup.as_ref().inspect(|cgroup| cgroup.kill());
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

    /// Does what the gateway asks until its end of the socket closes.
    async fn serve(&mut self, link: &PacketSocket, ended: &mut Caught) -> io::Result<()> {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.progress.goes_on();
            let report = self.reports.front().cloned();
            let soon = if self.has_more { AT_ONCE } else { SOON };
            tokio::select! {
                request = link.receive() => match request? {
                    Some((request, with)) => self.obey(request, with),
                    None => return Ok(()),
                },
                sent = deliver(link, report.as_ref()), if report.is_some() => {
                    if !sent? {
                        return Ok(());
                    }
                    self.reports.pop_front();
                }
                () = self.stages.is_due() => {
                    self.stages.replenish();
                    self.report_stages();
                }
                _ = ended.recv() => self.look(),
                () = sleep(soon), if self.has_more || !self.ended.is_empty() => self.look(),
                _ = looks.tick() => self.look(),
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

    /// Ends what dead leaders left behind, and reaps all that is dead.
    fn look(&mut self) {
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
        // Where the system has no room for the list of its children, what is to be ended is still there with the next look.
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
                let memory = cgroup.as_ref().and_then(Cgroup::out_of_memory);
                let report = Report::Exited { id, status: status.as_raw(), memory };
                self.ended.push(Ended { report, cgroup, since: now });
            }
        }
        self.report_ended();
        // A cgroup is busy until its last process is gone: then it is tried again with the next look.
        self.left.retain(|cgroup| !cgroup.remove());
    }

    /// Kills what dead leaders left behind, so much of it as has its turn in one look, and reaps what has ended.
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

    /// Reports the end of who has left nothing that runs: with a cgroup that is known exactly. Without one an orphan may be
    /// anybody's, so there must be none, but for those that do not end for all that they are killed. What an orphan leaves
    /// comes here before it can be reaped, so nothing is overlooked.
    fn report_ended(&mut self) {
        let is_stuck = |since: &Instant| since.elapsed() >= STUCK;
        let is_quiet = !self.is_blind && !self.has_more && self.orphans.values().all(is_stuck);
        for ended in std::mem::take(&mut self.ended) {
            let is_over = ended.cgroup.as_ref().map_or(is_quiet, Cgroup::remove);
            match (is_over, is_stuck(&ended.since)) {
                (false, false) => self.ended.push(ended),
                (false, true) => {
                    self.reports.push_back((ended.report, None));
                    self.left.extend(ended.cgroup);
                }
                (true, _) => self.reports.push_back((ended.report, None)),
            }
        }
    }

    /// The latest word on the stages replaces all earlier ones.
    fn report_stages(&mut self) {
        self.reports.retain(|(report, _)| !matches!(report, Report::Ready { .. }));
        self.reports.push_back((Report::Ready { pids: self.stages.pids() }, None));
    }

    /// Kills everything, and waits until it is gone; the cgroups too, if the gateway is.
    async fn clear(&mut self, ended: &mut Caught, is_alone: bool) {
        self.stages.kill_all();
        self.leaders.values().for_each(|leader| leader.send(Signal::Kill));
        let deadline = Instant::now() + LAST;
        // What a killed process leaves behind comes here before that process can be reaped: no child, nothing left.
        while Instant::now() < deadline && (end_children(&mut self.children) || (is_alone && !self.stages.clear())) {
            let _ = timeout(LAST_LOOK, ended.recv()).await;
        }
    }
}

/// Kills all children of this process and reaps the dead. `false` when none was left.
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

/// `false` if the gateway is gone.
async fn deliver(link: &PacketSocket, report: Option<&(Report, Option<Arc<OwnedFd>>)>) -> io::Result<bool> {
    let Some((report, with)) = report else { return Ok(true) };
    match link.send(report, with.as_deref()).await {
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(false),
        sent => sent.map(|()| true),
    }
}
