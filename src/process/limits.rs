//! Resource limits that the kernel keeps for each process (setrlimit). A child sets them before it becomes the server.
//! Invariant: no core dump of a child, which would contain its secrets, is written or handed to a program, unless the
//! child itself undoes that.

use std::io;

use rustix::process::{Pid, Resource as Kind, Rlimit, getrlimit, prlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::config::{Resources, may_raise_limits};

/// Limit on the size of core files, in bytes. It is too small for any core file. Unlike the limit 0, the limit 1 also
/// keeps the kernel from piping the core to the program in `/proc/sys/kernel/core_pattern`: core(5).
const NO_CORE: u64 = 1;
/// Seconds of processor time between SIGXCPU and SIGKILL.
const GRACE: u64 = 2;

/// Resource limits of each process of a child. `None` keeps the limit of the gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessLimits {
    /// Number of open file descriptors.
    pub open_files: Option<u64>,
    /// Size of a file that the process writes, in bytes.
    pub file_size: Option<u64>,
    /// Processor time in seconds.
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
    /// The lower one of each limit of `self` and of `resources`.
    pub(super) fn lowered(&self, resources: &Resources) -> Self {
        let other = Self::from(resources);
        let least = |one: Option<u64>, other: Option<u64>| one.into_iter().chain(other).min();
        Self {
            open_files: least(self.open_files, other.open_files),
            file_size: least(self.file_size, other.file_size),
            cpu_time: least(self.cpu_time, other.cpu_time),
        }
    }

    /// Sets the limits for the running process `pid`, as far as the system allows. The system refuses only for a
    /// program that has changed its user: [`Ceilings::takes_spares`](super::Ceilings::takes_spares) keeps other cases
    /// away.
    pub(super) fn impose(&self, pid: Pid) {
        for (kind, soft, hard) in self.given() {
            let _ = prlimit(Some(pid), kind, Rlimit { current: Some(soft), maximum: Some(hard) });
        }
    }

    /// Sets the limits for this process and all that it starts, and forbids core dumps.
    ///
    /// # Errors
    /// The system refuses a limit.
    pub fn apply(&self) -> io::Result<()> {
        set(Kind::Core, NO_CORE, NO_CORE)?;
        self.given().try_for_each(|(kind, soft, hard)| set(kind, soft, hard))
    }

    /// The limits that are given: the kind, the soft limit and the hard limit of each.
    fn given(&self) -> impl Iterator<Item = (Kind, u64, u64)> {
        let same = [(Kind::Nofile, self.open_files), (Kind::Fsize, self.file_size)];
        // SIGXCPU, which may be caught to say something, and SIGKILL a little later.
        let time = self.cpu_time.map(|seconds| (Kind::Cpu, seconds, seconds.saturating_add(GRACE)));
        same.into_iter().filter_map(|(kind, most)| Some((kind, most?, most?))).chain(time)
    }
}

/// The program that receives the core dumps of children, if the gateway cannot prevent that. `None` if it can, or if
/// the kernel writes core dumps to files.
pub(super) fn cores_go_to() -> Option<String> {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let most = if may_raise_limits() { None } else { getrlimit(Kind::Core).maximum };
    core_goes_to(&pattern, most)
}

/// As [`cores_go_to`], with the content of `core_pattern` and the highest value that the core limit can be set to
/// (`None`: any).
fn core_goes_to(pattern: &str, most: Option<u64>) -> Option<String> {
    let program = pattern.strip_prefix('|')?.split_ascii_whitespace().next()?;
    most.is_some_and(|most| most < NO_CORE).then(|| program.to_owned())
}

/// Sets one limit. A hard limit above the present one is lowered to it, unless this process may raise limits.
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
