//! Runs one program inside the workspace: a small process of its own that restricts itself and then starts it.
//! Invariant: nothing is started before every restriction is in force; where they cannot be, nothing is started at all.
//! What they are is not said here: who executes this hands them in.
//!
//! [`Runner`](super::Runner) starts this process as the leader of a new group, in the workspace, with one end of a
//! socket as its stdin. The process writes one line to the socket, about how the program ended, and kills the group.
//! When the other end closes, because the server is gone by whatever means, it kills the group too.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode, Stdio};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{PidfdFlags, Signal};

use super::Error;

/// Restricts this process by `restrict`, which says why where it cannot, runs `command` (a program's path and its
/// arguments), reports how it ended on the socket that is stdin, and kills the whole group, this process included.
/// Returns only where nothing was started.
#[must_use]
pub fn run(command: &[OsString], restrict: impl FnOnce() -> Result<(), String>) -> ExitCode {
    // The group is killed at the end: it must not be that of a shell or a script.
    if rustix::process::getpgrp() != rustix::process::getpid() {
        let _ = writeln!(std::io::stderr(), "sluice confine: is started by the tool run_command, not by hand");
        return ExitCode::FAILURE;
    }
    let report = supervise(command, restrict).unwrap_or_else(|error| format!("failed {error}\n"));
    let control = rustix::stdio::stdin().try_clone_to_owned();
    let told = control.and_then(|control| File::from(control).write_all(report.as_bytes()));
    let _ = rustix::process::kill_current_process_group(Signal::KILL);
    if told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the program, and says how it ended: `exit N`, `signal N`, or `abandoned` when the server closed the socket.
fn supervise(command: &[OsString], restrict: impl FnOnce() -> Result<(), String>) -> Result<String, Error> {
    let (program, arguments) = command.split_first().ok_or_else(|| Error::refused("confine", "no program is given"))?;
    restrict().map_err(|why| Error::refused("run_command", why))?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| Error::io(program.display().to_string(), error))?;
    let pid = rustix::process::Pid::from_child(&child);
    let ended = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| Error::io("pidfd", errno))?;
    let control = rustix::stdio::stdin();
    let mut waits = [PollFd::new(&ended, PollFlags::IN), PollFd::new(&control, PollFlags::IN)];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut waits, None)).map_err(|errno| Error::io("poll", errno))?;
    let [program, _] = waits;
    if program.revents().is_empty() {
        return Ok("abandoned\n".to_owned());
    }
    let status = child.wait().map_err(|error| Error::io("wait", error))?;
    Ok(match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}\n"),
        (None, signal) => format!("signal {}\n", signal.unwrap_or_default()),
    })
}
