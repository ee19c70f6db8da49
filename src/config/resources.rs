//! Reads the limits on the use of the machine in a `limits` table. A limit that the kernel would refuse is a problem,
//! so that no start of a child fails because of it.

use std::time::Duration;

use rustix::process::Resource;
use rustix::thread::CapabilitySet;

use super::section::Section;
use super::server::Resources;

/// The smallest limits. Below them no program can be executed, or a runtime hangs or crashes at once: Node.js and
/// Python need some 8 MiB and 20 descriptors to begin, Python's threads 4 processes (Node.js needs 8).
const LEAST_MEMORY: usize = 16 << 20;
const LEAST_PROCESSES: usize = 4;
const LEAST_FILES: usize = 32;
const TIB: usize = 1 << 40;
/// The shortest processor time: a program needs some time to load.
const LEAST_TIME: Duration = Duration::from_secs(1);
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

/// Reads the limits. `default` has the limits for absent keys.
pub(super) fn read(s: &mut Section<'_>, default: &Resources) -> Resources {
    let resources = Resources {
        memory: s.optional_bytes("memory", LEAST_MEMORY..=TIB).or(default.memory),
        millicores: s.thousandths("cpu", 10..=1_024_000).or(default.millicores),
        cpu_time: s.optional_duration("cpu_time", LEAST_TIME..=MONTH).or(default.cpu_time),
        processes: s.optional_count("processes", LEAST_PROCESSES..=4_194_304).or(default.processes),
        open_files: s.optional_count("open_files", LEAST_FILES..=1 << 30).or(default.open_files),
        file_size: s.optional_bytes("file_size", 1..=TIB).or(default.file_size),
    };
    within(s, "open_files", Resource::Nofile, resources.open_files);
    within(s, "file_size", Resource::Fsize, resources.file_size);
    within(s, "cpu_time", Resource::Cpu, resources.cpu_time.map(|time| time.as_secs() as usize));
    resources
}

/// Whether this process may raise hard limits, and set the limits of processes of other users (`CAP_SYS_RESOURCE`).
/// Root in a container usually may not.
pub fn may_raise_limits() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE))
}

/// Adds a problem if the key sets a limit above the hard limit of this process. With `CAP_SYS_RESOURCE` only open files
/// have a bound (`fs.nr_open`).
fn within(s: &Section<'_>, key: &str, resource: Resource, wanted: Option<usize>) {
    let Some(wanted) = wanted.filter(|_| s.has(key)).map(|wanted| wanted as u64) else { return };
    let system = std::fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse().ok());
    let most = match (resource, may_raise_limits()) {
        (Resource::Nofile, true) => system,
        (_, true) => None,
        (_, false) => rustix::process::getrlimit(resource).maximum,
    };
    if let Some(most) = most.filter(|most| wanted > *most) {
        s.problem(key, format!("the system allows the gateway no more than {most} of it; lower it, or raise that"));
    }
}
