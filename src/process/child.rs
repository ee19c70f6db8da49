//! One child process in a process group of its own. Its exit is seen before it is reaped, and the whole group is killed
//! in between: so nothing of it is left, and its group id cannot have been taken by another.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus, Stdio};

use rustix::process::{Pid, PidfdFlags};
use secrecy::ExposeSecret as _;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;

use super::error::SpawnError;
use super::launch::Launch;

/// Signals that a group is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Please end.
    Term,
    /// End.
    Kill,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit(ExitStatus);

impl Exit {
    /// The exit code, if it ended by itself.
    pub fn code(self) -> Option<i32> {
        self.0.code()
    }

    /// The signal that ended it.
    pub fn signal(self) -> Option<i32> {
        self.0.signal()
    }

    /// Whether it ended by itself with exit code 0.
    pub fn is_success(self) -> bool {
        self.0.success()
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code(), self.signal()) {
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, Some(signal)) => write!(f, "signal {signal}"),
            (None, None) => f.write_str("an unknown status"),
        }
    }
}

/// The three standard streams of a child, seen from the gateway.
#[derive(Debug)]
pub struct Pipes {
    /// What the child reads. Dropping it is the first step of a polite stop.
    pub stdin: pipe::Sender,
    /// What the child says.
    pub stdout: pipe::Receiver,
    /// What the child logs.
    pub stderr: pipe::Receiver,
}

/// A running child. Dropping it kills its group and reaps it.
#[derive(Debug)]
pub struct Child {
    handle: std::process::Child,
    group: Pid,
    pidfd: AsyncFd<OwnedFd>,
    reaped: bool,
}

impl Child {
    /// Starts a program in a process group of its own. Must be called in a tokio runtime; blocks for as long as the
    /// system needs to execute the program.
    ///
    /// # Errors
    /// The system refuses.
    pub fn spawn(launch: &Launch) -> Result<(Self, Pipes), SpawnError> {
        let system = |error| SpawnError::System { command: launch.command.clone(), error };
        let mut command = Command::new(&launch.program);
        command.args(&launch.args).env_clear();
        command.envs(launch.env.iter().map(|(key, value)| (key, value.expose_secret())));
        if let Some(cwd) = &launch.cwd {
            command.current_dir(cwd);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut handle = command.spawn().map_err(system)?;
        match Self::adopt(&mut handle) {
            Ok((group, pidfd, pipes)) => Ok((Self { handle, group, pidfd, reaped: false }, pipes)),
            Err(error) => {
                let _ = handle.kill();
                let _ = handle.wait();
                Err(system(error))
            }
        }
    }

    fn adopt(handle: &mut std::process::Child) -> io::Result<(Pid, AsyncFd<OwnedFd>, Pipes)> {
        let missing = || io::Error::other("the child has no pipes");
        let stdin = pipe::Sender::from_owned_fd(handle.stdin.take().ok_or_else(missing)?.into())?;
        let stdout = pipe::Receiver::from_owned_fd(handle.stdout.take().ok_or_else(missing)?.into())?;
        let stderr = pipe::Receiver::from_owned_fd(handle.stderr.take().ok_or_else(missing)?.into())?;
        let pid = Pid::from_child(handle);
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        Ok((pid, watch(pidfd)?, Pipes { stdin, stdout, stderr }))
    }

    /// The process id, which is also the id of the group.
    pub fn pid(&self) -> u32 {
        self.handle.id()
    }

    /// Waits until the child has ended. It is not reaped by this.
    pub async fn exited(&self) -> io::Result<()> {
        // A pidfd stays readable once the process has ended: the readiness is never cleared.
        self.pidfd.readable().await.map(|mut ready| ready.retain_ready())
    }

    /// Sends a signal to the child's whole group.
    pub fn signal(&self, signal: Signal) {
        let signal = match signal {
            Signal::Term => rustix::process::Signal::TERM,
            Signal::Kill => rustix::process::Signal::KILL,
        };
        // The unreaped leader keeps the group alive, so the only possible error is that nothing is left to signal.
        let _ = rustix::process::kill_process_group(self.group, signal);
    }

    /// Kills what is left of the group and reaps the child. Call it after [`Child::exited`].
    pub fn reap(mut self) -> io::Result<Exit> {
        self.end()
    }

    fn end(&mut self) -> io::Result<Exit> {
        self.signal(Signal::Kill);
        let status = self.handle.wait()?;
        self.reaped = true;
        Ok(Exit(status))
    }
}

#[expect(
    deprecated,
    reason = "guards against types whose descriptor changes; an OwnedFd's does not, and no safe call is left"
)]
fn watch(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped
            && let Err(error) = self.end()
        {
            tracing::error!(pid = self.pid(), %error, "a child could not be reaped");
        }
    }
}
