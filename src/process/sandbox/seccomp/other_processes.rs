//! Denies system calls that affect other processes, by their process id argument; 0 means the caller itself. A filter
//! does not know the ids of a program's own threads, so a thread can affect only itself.

use seccompiler::BackendError;

use super::filter::{Answer, Denials, Is, number};

/// Calls that change limits, scheduling, processors or memory placement of another process of the same user, such as
/// the gateway. Each comes with the numbers of the arguments that are 0 for the caller itself.
const OF_A_PROCESS: &[(i64, &[u8])] = &[
    (libc::SYS_prlimit64, &[0]),
    (libc::SYS_setpriority, &[0, 1]),
    (libc::SYS_sched_setscheduler, &[0]),
    (libc::SYS_sched_setparam, &[0]),
    (libc::SYS_sched_setattr, &[0]),
    (libc::SYS_sched_setaffinity, &[0]),
    (libc::SYS_ioprio_set, &[1]),
    (libc::SYS_migrate_pages, &[0]),
    (libc::SYS_move_pages, &[0]),
    (libc::SYS_get_robust_list, &[0]),
];
/// Value of `ioprio_set`'s first argument for a process, as opposed to a group or a user.
const IOPRIO_WHO_PROCESS: u64 = 1;
/// `PR_SCHED_CORE`: makes processes share a processor core.
const SCHED_CORE: u64 = 62;
/// ioctl requests that insert input into a terminal as if its user had typed it.
const TERMINAL_INPUT: [u64; 2] = [0x5412, 0x541c];

/// Refuses changes of other processes, and input into terminals. Also refuses to clear the parent-death signal and the
/// subreaper flag, by which all processes of a child are found and ended.
pub(super) fn refuse_changes(denials: &mut Denials) -> Result<(), BackendError> {
    for (call, arguments) in OF_A_PROCESS {
        for argument in *arguments {
            denials.when(Answer::Refused, *call, &[(*argument, Is::Not(0))])?;
        }
    }
    denials.when(Answer::Refused, libc::SYS_ioprio_set, &[(0, Is::Not(IOPRIO_WHO_PROCESS))])?;
    denials.when(Answer::Refused, libc::SYS_prctl, &[(0, Is::Equal(SCHED_CORE)), (2, Is::Not(0))])?;
    // Another signal could be caught.
    let signal = [(0, Is::Equal(number(libc::PR_SET_PDEATHSIG))), (1, Is::Not(number(libc::SIGKILL)))];
    denials.when(Answer::Refused, libc::SYS_prctl, &signal)?;
    let reaper = [(0, Is::Equal(number(libc::PR_SET_CHILD_SUBREAPER))), (1, Is::Equal(0))];
    denials.when(Answer::Refused, libc::SYS_prctl, &reaper)?;
    for request in TERMINAL_INPUT {
        denials.when(Answer::Refused, libc::SYS_ioctl, &[(1, Is::Equal(request))])?;
    }
    Ok(())
}

/// Refuses `kill` except for the caller's own process group.
///
/// # Errors
/// The rules cannot be expressed.
pub(in crate::process::sandbox) fn only_own_group(denials: &mut Denials) -> Result<(), BackendError> {
    denials.when(Answer::Refused, libc::SYS_kill, &[(0, Is::Not(0))])
}
