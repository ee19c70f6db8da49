//! A child process from its start to its end. A child leads its own process group; the guardian forks, signals and
//! reaps it. Invariant: when the end of a child is reported, its group is dead, and the group's id cannot have passed
//! to other processes.

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::pipe::PipeFlags;
use rustix::process::Pid;
use secrecy::{ExposeSecret as _, SecretSlice};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::time::timeout;

use super::cgroup::{LimitOwner, Limits};
use super::descriptors;
use super::error::SpawnError;
use super::exit::{Exit, Signal};
use super::folder::{FolderSize, PrivateFolder};
use super::guardian::{ChildHandle, Guardian, Status};
use super::launch::Launch;
use super::limits::ProcessLimits;
use super::lookup::hold;
use super::stage::{self, Fault, SpawnRequest, Step};
use super::usage::{Excess, Limit, WatchedLimits};

/// Time limit for a start until the program is executed, the wait for a permit included. Reading the program may have
/// to wait for a disk.
const START: Duration = Duration::from_secs(30);
/// Longest time that a start holds its permit. A slower start, such as from a hung disk, no longer holds up others.
const HELD: Duration = Duration::from_secs(5);
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
    /// The memory limit of this child, in bytes, whether a cgroup enforces it or the gateway.
    memory: Option<usize>,
    /// The limits that no cgroup enforces, and that the gateway has to watch.
    pub(super) watched: WatchedLimits,
    /// The limits that the kernel keeps for each process of this child, as set at its start.
    pub(super) process_limits: ProcessLimits,
    /// The private temporary folder, which is removed with the child. `None` without a sandbox.
    pub(super) folder: Option<Arc<PrivateFolder>>,
    /// The most that the child may put into that folder.
    pub(super) temp: FolderSize,
}

impl Child {
    /// Starts the program of `launch` in a new process group, and waits until the program is executed.
    ///
    /// # Errors
    /// The system refuses, a step before the execution fails, or the program is not executed within 30 seconds.
    pub async fn spawn(guardian: &Guardian, launch: &Launch) -> Result<(Self, Pipes), SpawnError> {
        let system = |error| SpawnError::System { command: launch.command.clone(), error };
        let late = |_| system(io::Error::new(io::ErrorKind::TimedOut, format!("not executed within {START:?}")));
        let started = async {
            let permit = guardian.start_permit().await?;
            // A start that waits for a disk, or a file system that does not answer, does not use the processors.
            hold(permit, HELD, Self::start(guardian, launch)).await.1
        };
        let started = timeout(START, started).await.map_err(late)?.map_err(system)?;
        started.map_err(|fault| match (fault.step, &launch.cwd) {
            (Step::Directory, Some(cwd)) => SpawnError::NoDirectory(cwd.clone()),
            (Step::Sandbox, _) => SpawnError::Sandbox { command: launch.command.clone(), why: fault.detail },
            (Step::Cgroup, _) => SpawnError::NoCgroup(fault.into_error()),
            _ => system(fault.into_error()),
        })
    }

    async fn start(guardian: &Guardian, launch: &Launch) -> io::Result<Result<(Self, Pipes), Fault>> {
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
            return Ok(Err(serde_json::from_slice(fault)?));
        }
        match handle.started().await {
            // One that is quick has ended by now.
            Status::Running(pid) | Status::Ended(Some(pid), _) if !answer.is_empty() => {
                let child = Self {
                    handle,
                    pid,
                    memory: launch.resources.memory,
                    watched: WatchedLimits::left(&launch.resources, kept),
                    process_limits: launch.policy.limits.clone(),
                    folder: launch.folder.clone(),
                    temp: FolderSize { bytes: launch.temp.bytes() as u64, files: launch.temp.files as u64 },
                };
                Ok(Ok((child, pipes)))
            }
            Status::Failed(errno) => Err(io::Error::from_raw_os_error(errno)),
            // It was killed on its way.
            _ => Err(io::Error::other(unexecuted(launch, handle.ended().await))),
        }
    }

    /// The number of the child among all children of the gateway, in the order of their launches.
    pub(super) fn id(&self) -> u64 {
        self.handle.id
    }

    /// The process id, which is also the id of the process group.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_pid().cast_unsigned()
    }

    /// Waits until the child has ended, its process group is killed, and the guardian has reaped it.
    pub async fn exited(&self) -> Exit {
        self.handle.ended().await
    }

    /// The memory limit of this child, if `exit` says that the kernel ended the child for it.
    pub fn ended_for(&self, exit: Exit) -> Option<Excess> {
        let limit = self.memory.filter(|_| exit.out_of_memory == Some(LimitOwner::Child))?;
        Some(Excess::new(Limit::Memory, limit as u64, None))
    }

    /// Sends `signal` to the child's whole process group. Each signal is sent once: repeating it has no effect.
    pub fn signal(&self, signal: Signal) {
        self.handle.signal(signal);
    }
}

/// Describes the end of a stage that did not become its program. Names the memory limit if that was the cause.
fn unexecuted(launch: &Launch, exit: Exit) -> String {
    let key = match (exit.out_of_memory, &launch.tenant) {
        (None, _) => return format!("ended before it was executed: {exit}"),
        (Some(LimitOwner::Tenant), Some(tenant)) => format!("tenants.{tenant}.limits.memory"),
        (Some(_), _) => "limits.memory".to_owned(),
    };
    format!("not executed, as there was no memory left for it ({key}); raise that")
}

/// Serializes the spawn request for a stage: its length in 4 bytes (big-endian), then JSON. Fails for a JSON over
/// [`stage::MAX_REQUEST`] bytes.
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
async fn send(socket: &mut UnixStream, request: &[u8], streams: &[OwnedFd; stage::STREAMS]) -> io::Result<()> {
    let streams = streams.each_ref().map(|stream| stream.as_fd());
    let sent = socket.async_io(Interest::WRITABLE, || Ok(descriptors::send(&*socket, request, &streams)?)).await?;
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
