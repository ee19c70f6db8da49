//! Reads `limits.memory_budget`, the bytes that the gateway itself may hold of what clients and children send, and a
//! tenant's part of them. Finds the default: a part of the memory that the machine or the cgroup has.

use std::path::Path;

use super::model::Config;
use super::reading::Reading;
use super::section::Section;
use super::source::KeyPath;
use super::units::show_bytes;
use crate::memory::Memory;

const MIB: usize = 1 << 20;
const TIB: usize = 1 << 40;
/// The smallest budget.
const LEAST: usize = 16 * MIB;
/// The smallest default.
const LEAST_DEFAULT: usize = 64 * MIB;
/// The default where neither the machine nor the cgroup says how much memory there is.
const UNKNOWN: usize = 512 * MIB;
/// The default is the memory that there is, divided by this number: children need memory, too.
const PART: usize = 2;

/// Reads the budget in `[limits]`.
pub(super) fn read(section: &mut Section<'_>) -> usize {
    section.optional_bytes("memory_budget", LEAST..=TIB).unwrap_or_else(default)
}

/// Reads the part of one tenant in `[tenants.NAME.limits]`. `None`: no limit of its own.
pub(super) fn read_part(section: &mut Section<'_>) -> Option<usize> {
    section.optional_bytes("memory_budget", MIB..=TIB)
}

/// The default budget: half of the machine's memory, or of the cgroup's limit where that is less; 64 MiB at least.
pub(super) fn default() -> usize {
    let there_is = [machine(), cgroup()].into_iter().flatten().min();
    there_is.map_or(UNKNOWN, |bytes| (bytes / PART).max(LEAST_DEFAULT))
}

/// The memory of the machine in bytes.
fn machine() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix(" kB")?.parse::<usize>().ok()?.checked_mul(1024)
}

/// The smallest memory limit among the cgroup of this process and those above it, in bytes. `None` without a limit.
fn cgroup() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    limit_of(&text, Path::new("/sys/fs/cgroup"))
}

/// As [`cgroup`], for the cgroups that `text` lists (`/proc/self/cgroup`) below the folder of their file systems.
fn limit_of(text: &str, root: &Path) -> Option<usize> {
    let limits = text.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (top, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ => (root.join("memory"), "memory.limit_in_bytes"),
        };
        let counts = controllers.is_empty() || controllers.split(',').any(|name| name == "memory");
        let folder = top.join(path.trim_start_matches('/'));
        let folders: Vec<_> = folder.ancestors().take_while(|folder| folder.starts_with(&top)).collect();
        // In a container the path may be that outside of the container; the top is the container's own cgroup.
        let files = folders.into_iter().filter(|_| counts).map(|folder| folder.join(file));
        files.filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok()).collect::<Vec<usize>>()
    });
    limits.min()
}

/// Warns of limits that the budget keeps anybody from reaching.
pub(super) fn doubtful(reading: &Reading<'_>, config: &Config) {
    let most = Memory::most_of_one(config.memory_budget);
    let per_server = config.servers.values().flat_map(|server| {
        let key = |key: &str| format!("servers.{}.limits.{key}", server.name);
        [(key("max_line"), server.limits.max_line), (key("stdin_queue"), server.limits.stdin_queue)]
    });
    let http = [("http.max_body", config.http.max_body), ("http.stream_bytes", config.http.stream_bytes)];
    let all: Vec<_> = http.map(|(key, bytes)| (key.to_owned(), bytes)).into_iter().chain(per_server).collect();
    if let Some((key, bytes)) = all.iter().find(|(_, bytes)| *bytes > most) {
        let text = format!(
            "one tenant holds {} of the {} at most, which is less than {key} ({}); raise it, or lower that",
            show_bytes(most),
            show_bytes(config.memory_budget),
            show_bytes(*bytes)
        );
        reading.warning(&KeyPath::of(&["limits", "memory_budget"]), text);
    }
    for (name, tenant) in &config.tenants {
        let Some(part) = tenant.memory_budget else { continue };
        let path = KeyPath::of(&["tenants", name.as_str(), "limits", "memory_budget"]);
        if part > most {
            let (part, most) = (show_bytes(part), show_bytes(most));
            let text = format!("{part} is more than one tenant can hold of limits.memory_budget ({most}); lower it");
            reading.warning(&path, text);
        } else if part < config.http.max_body {
            let (part, body) = (show_bytes(part), show_bytes(config.http.max_body));
            reading.warning(&path, format!("{part} is less than http.max_body ({body}); raise it, or lower that"));
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_smallest_limit_on_the_way_to_the_top_counts() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(inner.join("memory.max"), "max\n").unwrap();
        let limit = || limit_of("0::/a/b\n", root.path());
        assert_eq!(limit(), None);
        std::fs::write(root.path().join("a/memory.max"), "1000000\n").unwrap();
        assert_eq!(limit(), Some(1_000_000));
        std::fs::write(inner.join("memory.max"), "900000\n").unwrap();
        assert_eq!(limit(), Some(900_000));
        assert_eq!(limit_of("0::/of/the/host\n", &root.path().join("a")), Some(1_000_000));
    }

    #[test]
    fn cgroups_of_version_1_count_too() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("memory/x")).unwrap();
        std::fs::write(root.path().join("memory/x/memory.limit_in_bytes"), "500000\n").unwrap();
        std::fs::write(root.path().join("memory.max"), "400000\n").unwrap();
        assert_eq!(limit_of("4:memory:/x\n3:cpu,cpuacct:/y\n", root.path()), Some(500_000));
    }

    #[test]
    fn the_default_is_a_part_of_what_this_machine_has() {
        let machine = machine().unwrap();
        assert!((LEAST_DEFAULT..=(machine / PART).max(LEAST_DEFAULT)).contains(&default()));
    }
}
