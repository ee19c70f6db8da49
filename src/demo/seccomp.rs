//! System calls that a confined program does not get. Invariant: with these gone, nothing that Landlock leaves open
//! changes anything outside the workspace, talks to anybody, or outlives the command.
//!
//! Landlock decides over opening, making, removing and executing files. It does not know the mode, the owner, the
//! times and the attributes of a file, sockets other than TCP, watching a directory, and a program that leaves its
//! process group. What stays possible is to ask whether a path outside exists, and for its size and times.

use std::collections::BTreeMap;

use landlock::ABI;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use super::Error;

/// Refused always.
const ALWAYS: &[i64] = &[
    // Talking to others: the container engine, the session bus, the ssh agent, the network.
    libc::SYS_socket,
    // Its operations are not seen by this filter.
    libc::SYS_io_uring_setup,
    // The properties of a file by its path, which Landlock does not look at.
    libc::SYS_fchmodat,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    FCHMODAT2,
    SETXATTRAT,
    REMOVEXATTRAT,
    FILE_SETATTR,
    // What happens in a directory, and with which names.
    libc::SYS_inotify_add_watch,
    libc::SYS_fanotify_mark,
    // Leaving the group, which is killed as a whole.
    libc::SYS_setsid,
    libc::SYS_setpgid,
    // Objects of the user that are not files.
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_mq_open,
];

/// The same in the form that only older architectures have.
#[cfg(target_arch = "x86_64")]
const OLDER: &[i64] =
    &[libc::SYS_chmod, libc::SYS_chown, libc::SYS_lchown, libc::SYS_utime, libc::SYS_utimes, libc::SYS_futimesat];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[i64] = &[];

/// The same by descriptor. Of what Landlock lets a program open, a user owns only the workspace; root owns the system's
/// programs as well. (Their times he can change, or `touch` would not work.)
const AS_ROOT: &[i64] = &[libc::SYS_fchmod, libc::SYS_fchown, libc::SYS_fsetxattr, libc::SYS_fremovexattr];

/// Signals, where Landlock does not keep them inside (before Linux 6.12); `kill` stays for the own group.
const SIGNALS: &[i64] = &[
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_send_signal,
];

// The numbers are the same on every architecture; the `libc` crate does not have all of them yet.
const FCHMODAT2: i64 = 452;
const SETXATTRAT: i64 = 463;
const REMOVEXATTRAT: i64 = 466;
const FILE_SETATTR: i64 = 469;

/// The x32 form of a system call on x86-64, which reaches the kernel under the same architecture.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;

/// Applies the filter to this process and all that it starts. `abi` is what Landlock enforces already.
pub(super) fn apply(abi: ABI) -> Result<(), Error> {
    let failed = |error: &dyn std::fmt::Display| Error::refused("seccomp", error.to_string());
    let program = filter(abi, rustix::process::geteuid().is_root()).map_err(|error| failed(&error))?;
    seccompiler::apply_filter(&program).map_err(|error| failed(&error))
}

fn filter(abi: ABI, root: bool) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    // The times of a path, as opposed to those of a descriptor; the limits of another process.
    rules.insert(libc::SYS_utimensat, unless_zero(1, SeccompCmpArgLen::Qword)?);
    rules.insert(libc::SYS_prlimit64, unless_zero(0, SeccompCmpArgLen::Dword)?);
    if abi < ABI::V6 {
        rules.insert(libc::SYS_kill, unless_zero(0, SeccompCmpArgLen::Dword)?);
    }
    let signals = if abi < ABI::V6 { SIGNALS } else { &[] };
    let truncate: &[i64] = if abi < ABI::V3 { &[libc::SYS_truncate] } else { &[] };
    let as_root = if root { AS_ROOT } else { &[] };
    for call in [ALWAYS, OLDER, truncate, signals, as_root].concat() {
        rules.insert(call, Vec::new());
    }
    #[cfg(target_arch = "x86_64")]
    for (call, conditions) in rules.clone() {
        rules.insert(call | X32, conditions);
    }
    let errno = u32::try_from(libc::EPERM).unwrap_or(1);
    let architecture = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno), architecture)?.try_into()
}

/// Matches a call whose argument number `argument` is not zero.
fn unless_zero(argument: u8, length: SeccompCmpArgLen) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let given = SeccompCondition::new(argument, length, SeccompCmpOp::Ne, 0)?;
    Ok(vec![SeccompRule::new(vec![given])?])
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_filter_compiles_for_every_kernel_and_user() {
        let least = filter(ABI::V9, false).unwrap().len();
        assert!(filter(ABI::V9, true).unwrap().len() > least);
        assert!(filter(ABI::V1, false).unwrap().len() > filter(ABI::V3, false).unwrap().len());
        assert!(filter(ABI::V3, false).unwrap().len() > least);
    }
}
