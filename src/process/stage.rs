//! The stage: what a child does between fork and exec. A child starts as this binary, `sluice stage`, whose stdin is a
//! socket. The gateway sends a [`SpawnRequest`] and the child's three pipes over this socket. The stage ties its life
//! to that of its parent, takes the pipes as its standard streams, and executes the requested program. Invariant: the
//! program runs only if every step has succeeded, and inherits nothing but its three streams and what the request
//! lists.
//!
//! The gateway learns the outcome on the same socket. [`READY`] followed by the end of the stream, which the exec
//! closes, means success; anything else is a [`Fault`]. The stage executes the program in its own process, so the
//! program keeps the process id and the parent.

use std::borrow::Cow;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use nix::sys::signal::SigSet;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use super::sandbox::{self, Policy};
use super::temp_mount::TempMount;
use super::{cgroup, descriptors};

/// Largest spawn request, in bytes. The kernel's limit on arguments and environment is lower (a quarter of the stack).
pub(super) const MAX_REQUEST: usize = 4 * 1024 * 1024;
/// How much sooner the kernel ends a child than the gateway where the machine runs out of memory: this is added to the
/// value that the gateway has (`oom_score_adj`, -1000 to 1000).
const SOONER: i32 = 500;
/// The byte that a stage writes when only the exec is left to do.
pub(super) const READY: u8 = b'+';
/// Number of descriptors that come with the first bytes of a spawn request: stdin, stdout and stderr.
pub(super) const STREAMS: usize = descriptors::MOST;

/// What to execute, and how. Sent to a stage as JSON, after the length of the JSON in 4 bytes (big-endian).
#[derive(Serialize, Deserialize)]
pub(super) struct SpawnRequest<'a> {
    /// The file to execute.
    pub(super) program: Cow<'a, Path>,
    /// The arguments of the program.
    pub(super) args: Cow<'a, [String]>,
    /// The whole environment of the program: names and values.
    pub(super) env: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// The working directory. `None`: that of the gateway.
    pub(super) cwd: Option<Cow<'a, Path>>,
    /// The limits, user and sandbox of the program.
    pub(super) policy: Cow<'a, Policy>,
    /// Limits of the child's own cgroup; the tenant's cgroup above may set others. If this is given, the program runs
    /// inside of its cgroup or not at all.
    pub(super) cgroup: Option<cgroup::Limits>,
    /// The tmpfs to mount as the child's temporary folder.
    pub(super) mount: Option<Cow<'a, TempMount>>,
}

/// A step of the stage on its way to the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Step {
    /// Receiving the spawn request.
    Receive,
    /// Tying the child's life to the guardian's, and its descendants to the child.
    Bind,
    /// Setting the limits of its cgroup.
    Cgroup,
    /// Replacing the three standard streams.
    Streams,
    /// Changing to the working directory.
    Directory,
    /// Putting limits and the sandbox in force.
    Sandbox,
    /// Executing the program.
    Exec,
}

/// The step that failed, and why. The stage sends it as JSON if it cannot become the program.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Fault {
    /// The failed step.
    pub(super) step: Step,
    /// The error number of the system, if a system call failed.
    pub(super) errno: Option<i32>,
    /// A description of the error, without secrets.
    pub(super) detail: String,
}

impl Fault {
    fn at(step: Step) -> impl FnOnce(io::Error) -> Self {
        move |error| Self { step, errno: error.raw_os_error(), detail: error.to_string() }
    }

    /// The error of the system, or else the description as an error.
    pub(super) fn into_error(self) -> io::Error {
        self.errno.map_or_else(|| io::Error::other(self.detail), io::Error::from_raw_os_error)
    }
}

/// Becomes the program that is requested on stdin. `parent` is the id of the process that started this one, and
/// `cgroup` the cgroup that was made for it. Returns only on failure, which is reported on stdin.
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

/// Runs all steps in order. Steps that restrict the process come last, as the others need what is taken away then.
fn become_program(
    socket: &mut UnixStream,
    parent: i32,
    cgroup: Option<&Path>,
) -> Result<std::convert::Infallible, Fault> {
    bind(parent).map_err(Fault::at(Step::Bind))?;
    // Before the process is concealed: then these files are root's. Where they cannot be written, nothing else depends
    // on it.
    let _ = end_sooner();
    // The request has another tenant's secrets, perhaps.
    sandbox::conceal().map_err(Fault::at(Step::Bind))?;
    // This can take its time. It is over, mostly, when there is a spawn request.
    let entered = enter(cgroup);
    let (request, streams) = receive(socket).map_err(Fault::at(Step::Receive))?;
    if let Some(limits) = &request.cgroup {
        entered.and_then(|path| cgroup::limit(path, limits)).map_err(Fault::at(Step::Cgroup))?;
    }
    take(streams).map_err(Fault::at(Step::Streams))?;
    if let Some(mount) = &request.mount {
        // Where the system refuses it after all, the folder itself is watched. Stderr is the child's by now, and is
        // logged.
        if let Err(error) = mount.enter() {
            let _ =
                writeln!(io::stderr(), "sluice: no tmpfs for the temporary folder, which is watched instead: {error}");
        }
    }
    if let Some(cwd) = &request.cwd {
        std::env::set_current_dir(cwd).map_err(Fault::at(Step::Directory))?;
    }
    let mut command = Command::new(&*request.program);
    command.args(&*request.args).env_clear();
    command.envs(request.env.iter().map(|(key, value)| (&**key, &**value)));
    sandbox::apply(&request.policy).map_err(io::Error::other).map_err(Fault::at(Step::Sandbox))?;
    if request.policy.identity.is_some() {
        bind(parent).map_err(Fault::at(Step::Bind))?;
    }
    // The guardian has blocked those that are not meant for it, and who it starts inherits that.
    SigSet::empty().thread_set_mask().map_err(io::Error::from).map_err(Fault::at(Step::Bind))?;
    socket.write_all(&[READY]).map_err(Fault::at(Step::Receive))?;
    Err(Fault::at(Step::Exec)(command.exec()))
}

/// Enters the cgroup. An error matters only to a child whose limits the cgroup has to keep: without a cgroup, the
/// guardian still finds all that the child has started.
fn enter(cgroup: Option<&Path>) -> io::Result<&Path> {
    let path = cgroup.ok_or_else(|| io::Error::other("there is none"))?;
    cgroup::enter(path)?;
    cgroup::end_together(path);
    Ok(path)
}

/// Has the kernel kill this process when its parent ends, and makes orphaned descendants of this process its children.
/// Both survive the exec. A change of user undoes the first; then this has to be called again.
fn bind(parent: i32) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    // The parent may have died before the signal was set.
    if rustix::process::getppid().map(Pid::as_raw_pid) != Some(parent) {
        return Err(io::Error::other("the guardian has ended"));
    }
    Ok(())
}

/// Lets the kernel choose this process before the gateway where the machine runs out of memory.
fn end_sooner() -> io::Result<()> {
    const FILE: &str = "/proc/self/oom_score_adj";
    let inherited: i32 = std::fs::read_to_string(FILE)?.trim().parse().map_err(io::Error::other)?;
    std::fs::write(FILE, inherited.saturating_add(SOONER).min(1000).to_string())
}

/// Receives a spawn request, and the descriptors that come with its first bytes.
fn receive(socket: &mut UnixStream) -> io::Result<(SpawnRequest<'static>, Vec<OwnedFd>)> {
    let mut head = [0; 4];
    let (received, streams) = descriptors::receive(&*socket, &mut head)?;
    socket.read_exact(head.get_mut(received..).unwrap_or_default())?;
    let length = usize::try_from(u32::from_be_bytes(head)).map_err(io::Error::other)?;
    if length > MAX_REQUEST {
        return Err(io::Error::other(format!("a spawn request of {length} bytes is over the limit of {MAX_REQUEST}")));
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body)?;
    Ok((serde_json::from_slice(&body)?, streams))
}

/// Replaces the standard streams of this process by `streams`, which have to be three. The received descriptors are
/// closed.
fn take(streams: Vec<OwnedFd>) -> io::Result<()> {
    let [stdin, stdout, stderr]: [OwnedFd; STREAMS] =
        streams.try_into().map_err(|_| io::Error::other("a spawn request comes with three descriptors"))?;
    rustix::stdio::dup2_stdin(stdin)?;
    rustix::stdio::dup2_stdout(stdout)?;
    Ok(rustix::stdio::dup2_stderr(stderr)?)
}
