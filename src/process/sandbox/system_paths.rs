//! Paths of the operating system that sandboxed servers may read, and devices that they may use.

use std::path::{Path, PathBuf};

use crate::config::SandboxMode;

/// Programs, their libraries and shared data. Open in each mode.
pub const PROGRAMS: &[&str] = &[
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
    "/etc/ld.so.cache",
    "/etc/localtime",
];
/// Harmless devices that programs expect.
pub const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];
/// Files that language runtimes read. Open in each mode.
const RUNTIMES: &[&str] = &[
    "/etc/alternatives",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
];
/// Further files of the system, open in the mode `standard`. No secrets are in them.
const SYSTEM: &[&str] = &[
    "/usr",
    "/opt",
    "/nix/store",
    "/home/linuxbrew/.linuxbrew",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/debian_version",
    "/etc/fonts",
    "/etc/gai.conf",
    // Without it, git ends. Secrets of users are not kept there.
    "/etc/gitconfig",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/inputrc",
    "/etc/ld.so.preload",
    "/etc/locale.conf",
    "/etc/lsb-release",
    "/etc/machine-id",
    "/etc/mime.types",
    "/etc/passwd",
    "/etc/pki",
    "/etc/protocols",
    "/etc/redhat-release",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/timezone",
    "/proc",
    "/sys/devices/system",
    "/sys/kernel/mm/transparent_hugepage",
];
/// Further files of the system, open in the mode `strict`: facts about the machine that language runtimes read. Other
/// processes are not among them.
const MACHINE: &[&str] = &[
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/uptime",
    "/proc/version",
    "/proc/filesystems",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/kernel/osrelease",
    "/sys/devices/system/cpu",
];

/// The paths of the system that are open for reading and executing in `mode`.
pub(super) fn of_the_system(mode: SandboxMode) -> impl Iterator<Item = PathBuf> {
    let others = if mode == SandboxMode::Strict { MACHINE } else { SYSTEM };
    PROGRAMS.iter().chain(RUNTIMES).chain(others).map(PathBuf::from)
}

/// Files with the limits of this process's own cgroup, which runtimes read. Other cgroups stay closed, because their
/// names contain tenants.
pub(super) fn own_limits() -> Vec<PathBuf> {
    const FILES: [&str; 5] = ["memory.max", "memory.high", "memory.current", "cpu.max", "cpu.weight"];
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(own) = text.lines().find_map(|line| line.strip_prefix("0::/")) else { return Vec::new() };
    let folder = Path::new("/sys/fs/cgroup").join(own);
    FILES.iter().map(|file| folder.join(file)).collect()
}
