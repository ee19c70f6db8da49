//! What happens between fork and exec. A child starts as this program, `sluice stage`, whose stdin is a socket: over it
//! come the [`SpawnRequest`] and the child's three pipes. The stage binds itself to its parent's life, takes the pipes as its
//! own standard streams, and becomes the ordered program. Invariant: that program runs only after every step has
//! succeeded, and inherits nothing but its three streams and what the order lists.
//!
//! The gateway learns what became of it on the same socket: [`READY`] and then the end of the stream, which the exec
//! closes, is success; anything else is a [`Fault`]. An exec in place of a spawn keeps the process id, so that whoever
//! started the stage is the program's parent.

use std::borrow::Cow;
use std::io::{self, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use nix::sys::signal::SigSet;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use super::cgroup;
use super::sandbox::{self, Policy};
use super::temp_mount::TempMount;

/// The largest order, in bytes. The kernel's own limit on arguments and environment is lower (a quarter of the stack).
pub(super) const MAX_REQUEST: usize = 4 * 1024 * 1024;
/// What the stage writes when nothing but the exec is left to do.
pub(super) const READY: u8 = b'+';
/// The child's standard streams, sent with the first bytes of an order.
pub(super) const STREAMS: usize = 3;

/// What is to be executed, and how: the body of a message to the stage, as JSON after its length (4 bytes, big-endian).
#[derive(Serialize, Deserialize)]
pub(super) struct SpawnRequest<'a> {
    /// The file to execute.
    pub(super) program: Cow<'a, Path>,
    /// Its arguments.
    pub(super) args: Cow<'a, [String]>,
    /// Its whole environment.
    pub(super) env: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Its working directory; where the gateway runs otherwise.
    pub(super) cwd: Option<Cow<'a, Path>>,
    /// What it is to be kept from.
    pub(super) policy: Cow<'a, Policy>,
    /// What its cgroup is to keep, beside what one above it may keep for its tenant. The program is not executed outside
    /// of its cgroup then.
    #[serde(default)]
    pub(super) cgroup: Option<cgroup::Limits>,
    /// The file system in memory that is to be its temporary folder.
    #[serde(default)]
    pub(super) mount: Option<Cow<'a, TempMount>>,
}

/// A step on the way to the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Step {
    /// Reading the order.
    SpawnRequest,
    /// Binding the child to the guardian's life, and its descendants to its own.
    Bind,
    /// Giving its cgroup limits.
    Cgroup,
    /// Taking the three streams.
    Streams,
    /// Changing to the working directory.
    Directory,
    /// Putting limits and the sandbox in force.
    Sandbox,
    /// Executing the program.
    Exec,
}

/// Which step failed, and why: what the stage answers, as JSON, when it cannot become the program.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Fault {
    /// The step.
    pub(super) step: Step,
    /// The system's error number, where the system said no.
    pub(super) errno: Option<i32>,
    /// What was wrong, in words and without secrets.
    pub(super) detail: String,
}

impl Fault {
    fn at(step: Step) -> impl FnOnce(io::Error) -> Self {
        move |error| Self { step, errno: error.raw_os_error(), detail: error.to_string() }
    }

    /// The error as the system's, for messages.
    pub(super) fn into_error(self) -> io::Error {
        self.errno.map_or_else(|| io::Error::other(self.detail), io::Error::from_raw_os_error)
    }
}

/// Becomes the program that is ordered on stdin. `parent` is the process that started this one, `cgroup` the cgroup that
/// it has made for it. Returns only where that failed.
#[must_use]
pub fn run(parent: i32, cgroup: Option<&Path>) -> ExitCode {
    // Away from descriptor 0, which is to be the program's stdin; and closed by the exec.
    let Ok(socket) = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3) else { return ExitCode::FAILURE };
    let mut socket = UnixStream::from(socket);
    let Err(fault) = become_program(&mut socket, parent, cgroup);
    // If the gateway is gone there is nobody to tell.
    if let Ok(fault) = serde_json::to_vec(&fault) {
        let _ = socket.write_all(&fault);
    }
    ExitCode::FAILURE
}

/// The steps, in their order. What restricts the child belongs right before the exec: the steps before it need what
/// it may not.
fn become_program(
    socket: &mut UnixStream,
    parent: i32,
    cgroup: Option<&Path>,
) -> Result<std::convert::Infallible, Fault> {
    bind(parent).map_err(Fault::at(Step::Bind))?;
    // The order has another tenant's secrets, perhaps.
    sandbox::conceal().map_err(Fault::at(Step::Bind))?;
    // This can take its time. It is over, mostly, when there is an order.
    let entered = enter(cgroup);
    let (order, streams) = receive(socket).map_err(Fault::at(Step::SpawnRequest))?;
    if let Some(limits) = &order.cgroup {
        entered.and_then(|path| cgroup::limit(path, limits)).map_err(Fault::at(Step::Cgroup))?;
    }
    take(streams).map_err(Fault::at(Step::Streams))?;
    if let Some(mount) = &order.mount {
        // Where the system refuses it after all, the folder itself is watched. Stderr is the child's by now, and is logged.
        if let Err(error) = mount.enter() {
            let _ =
                writeln!(io::stderr(), "sluice: no tmpfs for the temporary folder, which is watched instead: {error}");
        }
    }
    if let Some(cwd) = &order.cwd {
        std::env::set_current_dir(cwd).map_err(Fault::at(Step::Directory))?;
    }
    let mut command = Command::new(&*order.program);
    command.args(&*order.args).env_clear();
    command.envs(order.env.iter().map(|(key, value)| (&**key, &**value)));
    sandbox::apply(&order.policy).map_err(|error| Fault {
        step: Step::Sandbox,
        errno: None,
        detail: error.to_string(),
    })?;
    if order.policy.identity.is_some() {
        bind(parent).map_err(Fault::at(Step::Bind))?;
    }
    // The guardian has blocked those that are not meant for it, and who it starts inherits that.
    SigSet::empty().thread_set_mask().map_err(io::Error::from).map_err(Fault::at(Step::Bind))?;
    socket.write_all(&[READY]).map_err(Fault::at(Step::SpawnRequest))?;
    Err(Fault::at(Step::Exec)(command.exec()))
}

/// Where nothing but the end of a child depends on it, a cgroup that refuses is no reason not to start: the guardian
/// finds what the child has started in other ways.
fn enter(cgroup: Option<&Path>) -> io::Result<&Path> {
    let path = cgroup.ok_or_else(|| io::Error::other("there is none"))?;
    cgroup::enter(path)?;
    cgroup::end_together(path);
    Ok(path)
}

/// The child dies with its parent, whose only thread forked it; and what its descendants leave behind when they fork
/// twice or call `setsid` stays below it for as long as it lives. Both survive the exec. (A change of user clears the
/// signal: then this is done again.)
fn bind(parent: i32) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    // The parent may have died before the signal was set.
    if rustix::process::getppid().map(Pid::as_raw_pid) != Some(parent) {
        return Err(io::Error::other("the guardian has ended"));
    }
    Ok(())
}

/// Reads an order with the descriptors that come with its first bytes.
fn receive(socket: &mut UnixStream) -> io::Result<(SpawnRequest<'static>, Vec<OwnedFd>)> {
    let mut head = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(STREAMS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut head)];
    let received = rustix::net::recvmsg(&*socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let mut streams = Vec::with_capacity(STREAMS);
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            streams.extend(descriptors);
        }
    }
    socket.read_exact(head.get_mut(received..).unwrap_or_default())?;
    let length = usize::try_from(u32::from_be_bytes(head)).map_err(io::Error::other)?;
    if length > MAX_REQUEST {
        return Err(io::Error::other(format!("an order of {length} bytes is over the limit of {MAX_REQUEST}")));
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body)?;
    Ok((serde_json::from_slice(&body)?, streams))
}

/// Puts the three streams in the place of this process's own. The received descriptors are closed.
fn take(streams: Vec<OwnedFd>) -> io::Result<()> {
    let [stdin, stdout, stderr]: [OwnedFd; STREAMS] =
        streams.try_into().map_err(|_| io::Error::other("an order comes with three descriptors"))?;
    rustix::stdio::dup2_stdin(stdin)?;
    rustix::stdio::dup2_stdout(stdout)?;
    Ok(rustix::stdio::dup2_stderr(stderr)?)
}
