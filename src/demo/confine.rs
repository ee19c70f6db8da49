//! Runs one program inside the workspace: a small process of its own that restricts itself and then starts it.
//! Invariant: nothing is started before every restriction is in force; where the kernel cannot enforce them, nothing
//! is started at all.
//!
//! [`Runner`](super::Runner) starts this process as the leader of a new group, in the workspace, with one end of a
//! socket as its stdin. The process writes one line to the socket, about how the program ended, and kills the group.
//! When the other end closes, because the server is gone by whatever means, it kills the group too.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode, Stdio};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, RestrictionStatus, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{PidfdFlags, Resource, Rlimit, Signal};
use rustix::thread::CapabilitySet;

use super::{Error, seccomp};

/// Where programs and what they need to run are: read and executed, never written.
pub(super) const SYSTEM: [&str; 15] = [
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/share",
    "/usr/include",
    "/usr/local/bin",
    "/usr/local/lib",
    "/usr/local/share",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
];
/// Files that the dynamic loader and the C library read.
const SYSTEM_FILES: [&str; 2] = ["/etc/ld.so.cache", "/etc/localtime"];
/// Devices without a state that programs expect.
const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];
/// The largest file that a program may make, in bytes.
const MAX_FILE: u64 = 64 * 1024 * 1024;
/// The most descriptors that a program may have open.
const MAX_DESCRIPTORS: u64 = 256;

/// Restricts this process, runs `command` (a program's path and its arguments), reports how it ended on the socket
/// that is stdin, and kills the whole group, this process included. Returns only where nothing was started.
#[must_use]
pub fn run(command: &[OsString]) -> ExitCode {
    // The group is killed at the end: it must not be that of a shell or a script.
    if rustix::process::getpgrp() != rustix::process::getpid() {
        let _ = writeln!(std::io::stderr(), "sluice confine: is started by the tool run_command, not by hand");
        return ExitCode::FAILURE;
    }
    let report = match supervise(command) {
        Ok(report) => report,
        Err(error) => format!("failed {error}\n"),
    };
    let told = File::from(match rustix::stdio::stdin().try_clone_to_owned() {
        Ok(control) => control,
        Err(_) => return ExitCode::FAILURE,
    })
    .write_all(report.as_bytes());
    let _ = rustix::process::kill_current_process_group(Signal::KILL);
    if told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the program, and says how it ended: `exit N`, `signal N`, or `abandoned` when the server closed the socket.
fn supervise(command: &[OsString]) -> Result<String, Error> {
    let (program, arguments) = command.split_first().ok_or_else(|| Error::refused("confine", "no program is given"))?;
    restrict()?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| Error::io(program.display().to_string(), error))?;
    let pid = rustix::process::Pid::from_child(&child);
    let ended = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| Error::io("pidfd", errno))?;
    let control = rustix::stdio::stdin();
    loop {
        let mut waits = [PollFd::new(&ended, PollFlags::IN), PollFd::new(&control, PollFlags::IN)];
        match rustix::event::poll(&mut waits, None) {
            Err(rustix::io::Errno::INTR) => continue,
            outcome => outcome.map_err(|errno| Error::io("poll", errno))?,
        };
        let [program, server] = waits;
        if !program.revents().is_empty() {
            let status = child.wait().map_err(|error| Error::io("wait", error))?;
            return Ok(match (status.code(), status.signal()) {
                (Some(code), _) => format!("exit {code}\n"),
                (None, signal) => format!("signal {}\n", signal.unwrap_or_default()),
            });
        }
        if !server.revents().is_empty() {
            return Ok("abandoned\n".to_owned());
        }
    }
}

/// Puts every restriction in force, on this process and all that it starts.
fn restrict() -> Result<(), Error> {
    for (resource, most) in [(Resource::Core, 0), (Resource::Fsize, MAX_FILE), (Resource::Nofile, MAX_DESCRIPTORS)] {
        rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
            .map_err(|errno| Error::io("setrlimit", errno))?;
    }
    let abi = restrict_paths()?;
    // With no-new-privileges in force an execution as root does not bring them back: capabilities(7).
    let mut sets = rustix::thread::capabilities(None).map_err(|errno| Error::io("capabilities", errno))?;
    sets.effective = CapabilitySet::empty();
    sets.permitted = CapabilitySet::empty();
    sets.inheritable = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, sets).map_err(|errno| Error::io("capabilities", errno))?;
    seccomp::apply(abi)
}

/// Restricts what files can be opened, changed and executed, TCP, and signals; says how much of it this kernel knows.
fn restrict_paths() -> Result<ABI, Error> {
    let read = AccessFs::from_read(ABI::V1);
    let devices = AccessFs::ReadFile | AccessFs::WriteFile;
    let workspace: BitFlags<AccessFs> =
        AccessFs::from_all(ABI::V9) & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
    let here = PathFd::new(".").map_err(|error| Error::refused("the workspace", error.to_string()))?;
    let enforce = || -> Result<RestrictionStatus, landlock::RulesetError> {
        Ruleset::default()
            .handle_access(AccessFs::from_all(ABI::V9))?
            .handle_access(AccessNet::from_all(ABI::V10))?
            .scope(Scope::from_all(ABI::V6))?
            .create()?
            .add_rule(PathBeneath::new(here, workspace))?
            .add_rules(path_beneath_rules(SYSTEM, read))?
            .add_rules(path_beneath_rules(SYSTEM_FILES, AccessFs::ReadFile))?
            .add_rules(path_beneath_rules(DEVICES, devices))?
            .restrict_self()
    };
    let status = enforce().map_err(|error| Error::refused("Landlock", error.to_string()))?;
    match status.landlock {
        LandlockStatus::Available { effective_abi, .. }
            if status.ruleset != RulesetStatus::NotEnforced && status.no_new_privs =>
        {
            Ok(effective_abi)
        }
        _ => Err(Error::refused(
            "run_command",
            "this kernel cannot confine a program (it needs Landlock: Linux 5.13, enabled at boot), so none is run",
        )),
    }
}
