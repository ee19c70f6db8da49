//! The guardian process itself: starts stages, signals groups, reaps, and reports. It has one thread, and must keep it:
//! a child's parent-death signal follows the thread that forked it.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions};
use tokio::signal::unix::{Signal as Caught, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::link::{Link, Report, Request};
use super::record::Record;
use crate::process::Signal;
use crate::process::tree::own_children;

/// How often orphans are looked for without a signal that something ended. There is none for what comes here from a
/// child that gave up being the subreaper of its descendants.
const LOOK: Duration = Duration::from_secs(1);
/// How long killed processes may take to be gone, at the end.
const LAST: Duration = Duration::from_secs(5);
/// How long the last look waits for a signal before it looks again.
const LAST_LOOK: Duration = Duration::from_millis(20);

/// Runs the guardian: `sluice guardian`, whose stdin is the socket to the gateway. Returns when the gateway is gone, and
/// everything below the guardian with it.
///
/// # Errors
/// stdin is no socket, or the system refuses what the guardian needs.
pub fn run() -> io::Result<()> {
    close_inherited()?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let link = Link::new(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?)?;
        let mut ended = signal(SignalKind::child())?;
        let mut nursery = Nursery::default();
        let served = nursery.serve(&link, &mut ended).await;
        nursery.clear(&mut ended).await;
        // Those of a gateway that was killed: one that lives still holds its own.
        crate::process::sweep_folders(&std::env::temp_dir());
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
#[derive(Default)]
struct Nursery {
    ids: HashMap<Pid, u64>,
    leaders: HashMap<u64, Pid>,
    /// At most two for each child.
    reports: VecDeque<Report>,
    record: Option<Record>,
}

impl Nursery {
    /// Does what the gateway asks until its end of the socket closes.
    async fn serve(&mut self, link: &Link, ended: &mut Caught) -> io::Result<()> {
        // A service manager and a terminal signal every process that they see. When to end is the gateway's business:
        // it may have calls in flight.
        let mut others = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit()]
            .map(signal)
            .into_iter()
            .collect::<io::Result<Vec<_>>>()?;
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let report = self.reports.front().copied();
            tokio::select! {
                request = link.receive() => match request? {
                    Some((request, with)) => self.obey(request, with),
                    None => return Ok(()),
                },
                sent = async { link.send(&report, None).await }, if report.is_some() => {
                    sent?;
                    self.reports.pop_front();
                }
                _ = ended.recv() => self.look()?,
                _ = looks.tick() => {
                    self.look()?;
                    self.keep_record();
                }
                () = any(&mut others) => {}
            }
        }
    }

    fn obey(&mut self, request: Request, with: Option<OwnedFd>) {
        match request {
            Request::Launch { id } => {
                let report = match with.ok_or(rustix::io::Errno::BADF.into()).and_then(start_stage) {
                    Ok(pid) => {
                        self.ids.insert(pid, id);
                        self.leaders.insert(id, pid);
                        Report::Started { id, pid: pid.as_raw_pid() }
                    }
                    Err(error) => Report::Failed { id, errno: error.raw_os_error().unwrap_or(libc::EIO) },
                };
                self.reports.push_back(report);
            }
            Request::Record => {
                self.record = with.and_then(|file| Record::new(file.into()).ok());
                self.keep_record();
            }
            Request::Signal { id, signal } => {
                // One that is reaped is no longer here: its id may be another's.
                if let Some(leader) = self.leaders.get(&id) {
                    send(*leader, signal);
                }
            }
        }
    }

    /// Ends what dead leaders left behind, and reaps all that is dead.
    fn look(&mut self) -> io::Result<()> {
        let dead: Vec<Pid> = self.ids.keys().copied().filter(|leader| is_dead(*leader)).collect();
        for leader in &dead {
            send(*leader, Signal::Kill);
        }
        for orphan in own_children()?.into_iter().filter(|pid| !self.ids.contains_key(pid)) {
            let _ = rustix::process::kill_process(orphan, rustix::process::Signal::KILL);
            let _ = rustix::process::waitpid(Some(orphan), WaitOptions::NOHANG);
        }
        for leader in dead {
            if let Ok(Some((_, status))) = rustix::process::waitpid(Some(leader), WaitOptions::NOHANG)
                && let Some(id) = self.ids.remove(&leader)
            {
                self.leaders.remove(&id);
                self.reports.push_back(Report::Exited { id, status: status.as_raw() });
            }
        }
        Ok(())
    }

    fn keep_record(&mut self) {
        // A disk that is full must end no child: the record gets old, and the next look tries again.
        if let Some(record) = &mut self.record {
            let _ = record.update();
        }
    }

    /// Kills everything, and waits until it is gone.
    async fn clear(&mut self, ended: &mut Caught) {
        for leader in self.ids.keys() {
            send(*leader, Signal::Kill);
        }
        let deadline = Instant::now() + LAST;
        // What a killed process leaves behind comes here before that process can be reaped: no child, nothing left.
        while Instant::now() < deadline && end_children() {
            let _ = timeout(LAST_LOOK, ended.recv()).await;
        }
    }
}

/// Kills all children of this process and reaps the dead. `false` when none was left.
fn end_children() -> bool {
    for child in own_children().unwrap_or_default() {
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

/// Signals a child that is not reaped yet, and all of its group: the group may have lost its leader to another one.
fn send(leader: Pid, signal: Signal) {
    let signal = signal.into();
    // The possible errors are that nothing is left to signal, and that everything in the group has another user.
    let _ = rustix::process::kill_process_group(leader, signal);
    let _ = rustix::process::kill_process(leader, signal);
}

fn is_dead(leader: Pid) -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    matches!(rustix::process::waitid(WaitId::Pid(leader), look), Ok(Some(_)))
}

/// Starts this binary again, with the socket as its stdin, in a group of its own.
fn start_stage(socket: OwnedFd) -> io::Result<Pid> {
    // The path stays right when the file is replaced: the stage is always of this very version.
    let stage = Command::new("/proc/self/exe")
        .arg0("sluice")
        .args(["stage", &rustix::process::getpid().to_string()])
        .env_clear()
        .stdin(socket)
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .process_group(0)
        .spawn()?;
    Ok(Pid::from_child(&stage))
}

async fn any(signals: &mut [Caught]) {
    let waiting = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
    futures_util::future::select_all(waiting).await;
}
