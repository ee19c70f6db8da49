//! Limits that the kernel keeps for each process, set by the process itself before it becomes the server. Invariant: no
//! core of a child, in which its secrets would be, is written to a file or handed to a program, unless the child itself
//! gives up what prevents it.

use std::io;

use rustix::process::{Pid, Resource as Kind, Rlimit, getrlimit, prlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::config::{Resources, may_raise_limits};

/// The limit on core files, in bytes. Too little for any; and the only one that also keeps the kernel from handing the
/// core to the program in `/proc/sys/kernel/core_pattern`, for which it does not look at the limit otherwise: core(5).
const NO_CORE: u64 = 1;
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

    /// Sets them for another process, which goes on. What the system refuses stays as it is: it is asked only where it
    /// will not ([`Ceilings::takes_spares`](super::Ceilings::takes_spares)), but for a program that has changed its user.
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

    /// Sets them, for this process and all that it starts; and that there is no core of any.
    ///
    /// # Errors
    /// The system refuses a limit.
    pub fn apply(&self) -> io::Result<()> {
        set(Kind::Core, NO_CORE, NO_CORE)?;
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

/// Why the cores of children cannot be prevented here, where that is so.
pub(super) fn cores_go_to() -> Option<String> {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let most = if may_raise_limits() { None } else { getrlimit(Kind::Core).maximum };
    core_goes_to(&pattern, most)
}

/// With this `core_pattern`, and this as the most that the limit can be set to.
fn core_goes_to(pattern: &str, most: Option<u64>) -> Option<String> {
    let program = pattern.strip_prefix('|')?.split_ascii_whitespace().next()?;
    most.is_some_and(|most| most < NO_CORE).then(|| program.to_owned())
}

/// A limit is not raised above the hard one without the right to.
fn set(kind: Kind, soft: u64, hard: u64) -> io::Result<()> {
    let most = getrlimit(kind).maximum.unwrap_or(u64::MAX);
    let hard = if hard > most && !may_raise_limits() { most } else { hard };
    Ok(setrlimit(kind, Rlimit { current: Some(soft.min(hard)), maximum: Some(hard) })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_gets_cores_only_where_the_limit_cannot_be_one() {
        let systemd = "|/usr/lib/systemd/systemd-coredump %P %u\n";
        assert_eq!(core_goes_to(systemd, Some(0)).as_deref(), Some("/usr/lib/systemd/systemd-coredump"));
        assert_eq!(core_goes_to(systemd, Some(1)), None);
        assert_eq!(core_goes_to(systemd, None), None);
        assert_eq!(core_goes_to("core\n", Some(0)), None);
    }
}
