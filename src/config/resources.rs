//! Reads the keys of `[limits]` that are about the machine. A limit that this kernel would refuse is a problem here, so
//! that none is found out when a child is to start.

use std::time::Duration;

use rustix::process::Resource;
use rustix::thread::CapabilitySet;

use super::section::Section;
use super::server::Resources;

/// Below these no program is even executed, or a runtime hangs or crashes on its first line: with 8 MiB Node.js and Python
/// begin to run, with 20 descriptors, and Python's threads with 4 processes (Node.js needs 8).
const LEAST_MEMORY: usize = 16 << 20;
const LEAST_PROCESSES: usize = 4;
const LEAST_FILES: usize = 32;
const TIB: usize = 1 << 40;
/// Time for a program to load, at least.
const LEAST_TIME: Duration = Duration::from_secs(1);
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

/// Reads the keys; what is not there is as in `default`.
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

/// Whether this process may raise hard limits, and set those of processes of other users. Root in a container mostly may not.
pub fn may_raise_limits() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE))
}

/// Only a privileged process can raise a hard limit, and no process that on open files beyond `fs.nr_open`.
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
