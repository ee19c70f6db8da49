//! Limits that the kernel keeps for each process, set by the process itself before it becomes the server. Invariant: no
//! child ever writes a core file, in which its secrets would be.

use std::io;

use rustix::process::{Pid, Resource as Kind, Rlimit, getrlimit, prlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::config::Resources;

/// Seconds of processor time from SIGXCPU to SIGKILL.
const GRACE: u64 = 2;

/// Limits of a process. `None` leaves that of the gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessLimits {
    /// Descriptors.
    pub open_files: Option<u64>,
    /// Bytes in a file.
    pub file_size: Option<u64>,
    /// Seconds of processor time.
    pub cpu_time: Option<u64>,
}

impl From<&Resources> for ProcessLimits {
    fn from(resources: &Resources) -> Self {
        Self {
            open_files: resources.open_files.map(|count| count as u64),
            file_size: resources.file_size.map(|bytes| bytes as u64),
            cpu_time: resources.cpu_time.map(|time| time.as_secs().max(1)),
        }
    }
}

impl ProcessLimits {
    /// With those of `resources`, where they are lower.
    pub(super) fn lowered(&self, resources: &Resources) -> Self {
        let other = Self::from(resources);
        let least = |one: Option<u64>, other: Option<u64>| one.into_iter().chain(other).min();
        Self {
            open_files: least(self.open_files, other.open_files),
            file_size: least(self.file_size, other.file_size),
            cpu_time: least(self.cpu_time, other.cpu_time),
        }
    }

    /// Sets them for another process, which goes on. What the system refuses stays as it is.
    pub(super) fn impose(&self, pid: Pid) {
        let extra = self.cpu_time.map(|seconds| seconds.saturating_add(GRACE));
        for (kind, soft, hard) in [
            (Kind::Nofile, self.open_files, self.open_files),
            (Kind::Fsize, self.file_size, self.file_size),
            (Kind::Cpu, self.cpu_time, extra),
        ] {
            if soft.is_some() {
                let _ = prlimit(Some(pid), kind, Rlimit { current: soft, maximum: hard });
            }
        }
    }

    /// Sets them, for this process and all that it starts; and that none writes a core file.
    ///
    /// # Errors
    /// The system refuses a limit.
    pub fn apply(&self) -> io::Result<()> {
        set(Kind::Core, 0, 0)?;
        for (kind, most) in [(Kind::Nofile, self.open_files), (Kind::Fsize, self.file_size)] {
            if let Some(most) = most {
                set(kind, most, most)?;
            }
        }
        match self.cpu_time {
            // SIGXCPU, which may be caught to say something, and SIGKILL a little later.
            Some(seconds) => set(Kind::Cpu, seconds, seconds.saturating_add(GRACE)),
            None => Ok(()),
        }
    }
}

/// A limit is never raised above the hard one by accident: only root could, and root would.
fn set(kind: Kind, soft: u64, hard: u64) -> io::Result<()> {
    let most = getrlimit(kind).maximum.unwrap_or(u64::MAX);
    let hard = if hard > most && !rustix::process::geteuid().is_root() { most } else { hard };
    Ok(setrlimit(kind, Rlimit { current: Some(soft.min(hard)), maximum: Some(hard) })?)
}
