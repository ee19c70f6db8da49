//! A child process from its start to its end. A child leads its own process group; the guardian forks, signals and reaps
//! it. Invariant: when the end of a child is reported, its group is dead, and the group's id cannot have passed to other
//! processes.

use std::borrow::Cow;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::pipe::PipeFlags;
use rustix::process::Pid;
use secrecy::{ExposeSecret as _, SecretSlice};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::time::timeout;

use super::cgroup::{LimitOwner, Limits};
use super::error::SpawnError;
use super::exit::{Exit, Signal};
use super::folder::{FolderSize, PrivateFolder};
use super::guardian::{ChildHandle, Guardian, Limiter, Status};
use super::launch::Launch;
use super::limits::ProcessLimits;
use super::lookup::hold;
use super::stage::{self, Fault, SpawnRequest, Step};
use super::usage::{Excess, Limit, WatchedLimits};
use crate::config::Resources;

/// Time limit for a start, from the request to the execution of the program. Reading the program may have to wait for a
/// disk.
const START: Duration = Duration::from_secs(30);
/// How long a start counts among those that go on at once. A slower start, such as from a hung disk, no longer holds up
/// others.
const TURN: Duration = Duration::from_secs(5);
/// Longest failure report of a stage that is read, in bytes.
const MAX_FAULT: u64 = 16 * 1024;

/// The gateway's ends of a child's three standard streams.
#[derive(Debug)]
pub struct Pipes {
    /// Written by the gateway. Dropping it closes the child's stdin, which is the first step of a graceful stop.
    pub stdin: pipe::Sender,
    /// Carries the child's MCP messages.
    pub stdout: pipe::Receiver,
    /// Carries the child's log output.
    pub stderr: pipe::Receiver,
}

impl Pipes {
    /// Makes three pipes. Returns the gateway's ends, and the child's ends in the order stdin, stdout, stderr.
    fn new() -> io::Result<(Self, [OwnedFd; stage::STREAMS])> {
        let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
        let ((their_in, our_in), (our_out, their_out), (our_err, their_err)) = (pipe()?, pipe()?, pipe()?);
        let ours = Self {
            stdin: pipe::Sender::from_owned_fd(our_in)?,
            stdout: pipe::Receiver::from_owned_fd(our_out)?,
            stderr: pipe::Receiver::from_owned_fd(our_err)?,
        };
        Ok((ours, [their_in, their_out, their_err]))
    }
}

/// A running child. Dropping it kills its process group.
#[derive(Debug)]
pub struct Child {
    handle: ChildHandle,
    pid: Pid,
    watched: WatchedLimits,
    resources: Resources,
    process_limits: ProcessLimits,
    /// The private temporary folder, which is removed with the child.
    folder: Option<Arc<PrivateFolder>>,
    temp: FolderSize,
}

impl Child {
    /// Starts the program of `launch` in a new process group, and waits until the program is executed.
    ///
    /// # Errors
    /// The system refuses, a step before the execution fails, or the program is not executed within 30 seconds.
    pub async fn spawn(guardian: &Guardian, launch: &Launch) -> Result<(Self, Pipes), SpawnError> {
        let system = |error| SpawnError::System { command: launch.command.clone(), error };
        let late = |_| system(io::Error::new(io::ErrorKind::TimedOut, format!("not executed within {START:?}")));
        timeout(START, Self::start(guardian, launch)).await.map_err(late)?.map_err(|error| match (error, &launch.cwd) {
            (NotStarted::Fault(Fault { step: Step::Directory, .. }), Some(cwd)) => SpawnError::NoDirectory(cwd.clone()),
            (NotStarted::Fault(Fault { step: Step::Sandbox, detail: why, .. }), _) => {
                SpawnError::Sandbox { command: launch.command.clone(), why }
            }
            (NotStarted::Fault(fault @ Fault { step: Step::Cgroup, .. }), _) => {
                SpawnError::NoCgroup(fault.into_error())
            }
            (NotStarted::Fault(fault), _) => system(fault.into_error()),
            (NotStarted::System(error), _) => system(error),
        })
    }

    async fn start(guardian: &Guardian, launch: &Launch) -> Result<(Self, Pipes), NotStarted> {
        let turn = guardian.turn().await?;
        // One that waits for a disk, or a file system that does not answer, is not what turns are for.
        hold(turn, TURN, Self::start_now(guardian, launch)).await.1
    }

    async fn start_now(guardian: &Guardian, launch: &Launch) -> Result<(Self, Pipes), NotStarted> {
        let (pipes, theirs) = Pipes::new()?;
        let kept = guardian.controllers();
        // Where a cgroup keeps limits of its tenant, a child has to be in it, whatever limits it has itself.
        let kept_for_tenant = launch.tenant.as_ref().filter(|tenant| guardian.limits_tenant(tenant));
        let limits = Limits::of(&launch.resources, kept).or_else(|| kept_for_tenant.map(|_| Limits::default()));
        let request = encode(launch, limits)?;
        let mut handle = guardian.launch(kept_for_tenant)?;
        let mut answer = Vec::new();
        if let Some(socket) = handle.socket().await {
            let socket = std::os::unix::net::UnixStream::from(socket);
            socket.set_nonblocking(true)?;
            let mut socket = UnixStream::from_std(socket)?;
            // A stage that takes no request says why, or is not there: both are seen below.
            let _ = send(&mut socket, request.expose_secret(), &theirs).await;
            drop(theirs);
            let _ = socket.take(MAX_FAULT).read_to_end(&mut answer).await;
        }
        let fault = answer.strip_prefix(&[stage::READY]).unwrap_or(&answer);
        if !fault.is_empty() {
            return Err(NotStarted::Fault(serde_json::from_slice(fault).map_err(io::Error::from)?));
        }
        match handle.started().await {
            // One that is quick has ended by now.
            Status::Running(pid) | Status::Ended(Some(pid), _) if !answer.is_empty() => {
                let watched = WatchedLimits::left(&launch.resources, kept);
                let (resources, process_limits) = (launch.resources.clone(), launch.policy.limits.clone());
                let temp = FolderSize { bytes: launch.temp.bytes() as u64, files: launch.temp.files as u64 };
                let folder = launch.folder.clone();
                Ok((Self { handle, pid, watched, resources, process_limits, folder, temp }, pipes))
            }
            Status::Failed(errno) => Err(io::Error::from_raw_os_error(errno).into()),
            // It was killed on its way.
            _ => Err(io::Error::other(unexecuted(launch, handle.ended().await)).into()),
        }
    }

    /// The process id, which is also the id of the process group.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_pid().cast_unsigned()
    }

    /// Waits until the child has ended, its process group is killed, and the guardian has reaped it.
    pub async fn exited(&self) -> Exit {
        self.handle.ended().await
    }

    /// The limits of this child that no cgroup enforces, and that the gateway has to watch.
    pub(super) fn watched(&self) -> WatchedLimits {
        self.watched
    }

    /// The temporary folder and the most that the child may put there; `None` without a sandbox.
    pub(super) fn temp(&self) -> Option<(&Arc<PrivateFolder>, FolderSize)> {
        Some((self.folder.as_ref()?, self.temp))
    }

    /// The memory limit of this child, if the kernel ended it for exceeding that one.
    pub fn ended_for(&self, exit: Exit) -> Option<Excess> {
        let limit = self.resources.memory.filter(|_| exit.out_of_memory() == Some(LimitOwner::Child))?;
        Some(Excess::of_child(Limit::Memory, limit as u64))
    }

    /// The limits that the kernel keeps for each process of this child, as set at its start.
    pub(super) fn process_limits(&self) -> &ProcessLimits {
        &self.process_limits
    }

    /// A handle that lowers these limits while the child runs.
    pub(super) fn limiter(&self) -> Limiter {
        self.handle.limiter()
    }

    /// Sends `signal` to the child's whole process group. Each signal is sent once: repeating it has no effect.
    pub fn signal(&self, signal: Signal) {
        self.handle.signal(signal);
    }
}

/// Describes the end of a stage that did not become its program. Names the memory limit if that was the cause.
fn unexecuted(launch: &Launch, exit: Exit) -> String {
    let key = match (exit.out_of_memory(), &launch.tenant) {
        (None, _) => return format!("ended before it was executed: {exit}"),
        (Some(LimitOwner::Tenant), Some(tenant)) => format!("tenants.{tenant}.limits.memory"),
        (Some(_), _) => "limits.memory".to_owned(),
    };
    format!("not executed, as there was no memory left for it ({key}); raise that")
}

/// Why a start failed.
enum NotStarted {
    Fault(Fault),
    System(io::Error),
}

impl From<io::Error> for NotStarted {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

impl From<rustix::io::Errno> for NotStarted {
    fn from(error: rustix::io::Errno) -> Self {
        Self::System(error.into())
    }
}

/// Serializes the spawn request for a stage: its length in 4 bytes (big-endian), then JSON.
fn encode(launch: &Launch, cgroup: Option<Limits>) -> io::Result<SecretSlice<u8>> {
    let request = SpawnRequest {
        program: Cow::Borrowed(&launch.program),
        args: Cow::Borrowed(&launch.args),
        env: launch.env.iter().map(|(key, value)| (key.into(), value.expose_secret().into())).collect(),
        cwd: launch.cwd.as_deref().map(Cow::Borrowed),
        policy: Cow::Borrowed(&launch.policy),
        cgroup,
        mount: launch.mount.as_ref().map(Cow::Borrowed),
    };
    let mut bytes = vec![0; size_of::<u32>()];
    serde_json::to_writer(&mut bytes, &request)?;
    let length = bytes.len() - size_of::<u32>();
    let head = u32::try_from(length).ok().filter(|_| length <= stage::MAX_REQUEST);
    let head = head.ok_or_else(|| io::Error::from(io::ErrorKind::ArgumentListTooLong))?;
    bytes.splice(..size_of::<u32>(), head.to_be_bytes());
    Ok(bytes.into())
}

/// Sends a serialized spawn request to a stage. The child's three descriptors go with its first bytes.
async fn send(socket: &mut UnixStream, request: &[u8], descriptors: &[OwnedFd; stage::STREAMS]) -> io::Result<()> {
    let descriptors = descriptors.each_ref().map(|descriptor| descriptor.as_fd());
    let sent = socket
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(stage::STREAMS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
            Ok(rustix::net::sendmsg(&*socket, &[IoSlice::new(request)], &mut control, SendFlags::NOSIGNAL)?)
        })
        .await?;
    socket.write_all(request.get(sent..).unwrap_or_default()).await
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use super::*;

    #[test]
    fn a_start_that_ends_for_a_limit_names_it() {
        let launch = Launch { tenant: Some("acme".parse().unwrap()), ..Launch::default() };
        let text = |memory| unexecuted(&launch, Exit::new(ExitStatus::from_raw(9), memory));
        assert_eq!(text(None), "ended before it was executed: signal 9");
        assert!(text(Some(LimitOwner::Child)).contains("(limits.memory)"));
        assert!(text(Some(LimitOwner::Tenant)).contains("(tenants.acme.limits.memory)"));
    }
}
