//! How a child ends: the signals that end a process group, and the exit status.

use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use serde::{Deserialize, Serialize};

use super::cgroup::LimitOwner;

/// Signals that a group is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signal {
    /// Please end.
    Term,
    /// End.
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

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    status: ExitStatus,
    memory: Option<LimitOwner>,
}

impl Exit {
    pub(super) fn new(status: ExitStatus, memory: Option<LimitOwner>) -> Self {
        Self { status, memory }
    }

    /// By SIGKILL.
    pub(crate) fn killed() -> Self {
        Self::new(ExitStatus::from_raw(rustix::process::Signal::KILL.as_raw()), None)
    }

    /// LimitOwner limit on memory the kernel ended it for.
    pub(super) fn out_of_memory(self) -> Option<LimitOwner> {
        self.memory
    }

    /// The exit code, if it ended by itself.
    pub fn code(self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it.
    pub fn signal(self) -> Option<i32> {
        self.status.signal()
    }

    /// Whether it ended by itself with exit code 0.
    pub fn is_success(self) -> bool {
        self.status.success()
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
