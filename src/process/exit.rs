//! How a child ends: the signals that the gateway sends to its process group, and its exit status.

use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use serde::{Deserialize, Serialize};

use super::cgroup::LimitOwner;

/// A signal to the process group of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signal {
    /// SIGTERM: asks the processes to end.
    Term,
    /// SIGKILL: ends the processes at once.
    Kill,
}

impl From<Signal> for rustix::process::Signal {
    fn from(signal: Signal) -> Self {
        match signal {
            Signal::Term => Self::TERM,
            Signal::Kill => Self::KILL,
        }
    }
}

/// The exit status of a child, and whether the kernel ended it for a memory limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    status: ExitStatus,
    /// The owner of the memory limit that the kernel ended the child for; `None` if the child ended for another reason.
    pub(super) out_of_memory: Option<LimitOwner>,
}

impl Exit {
    pub(super) fn new(status: ExitStatus, out_of_memory: Option<LimitOwner>) -> Self {
        Self { status, out_of_memory }
    }

    /// The status of a child that SIGKILL has ended.
    pub(crate) fn killed() -> Self {
        Self::new(ExitStatus::from_raw(rustix::process::Signal::KILL.as_raw()), None)
    }

    /// The exit code; `None` if a signal ended the child.
    pub fn code(self) -> Option<i32> {
        self.status.code()
    }

    /// The number of the signal that ended the child; `None` if the child exited by itself.
    pub fn signal(self) -> Option<i32> {
        self.status.signal()
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
