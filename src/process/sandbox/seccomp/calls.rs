//! The system calls that no server needs, whatever their arguments are.

/// The kernel's administration. Most of it takes a privilege that a child does not have; some of it has been a way to
/// one.
pub(super) const ADMINISTRATION: &[i64] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_fanotify_init,
    libc::SYS_open_by_handle_at,
    libc::SYS_userfaultfd,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_setns,
    // The keys of the user, which all of the user's processes share.
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // The descriptors of another process.
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    // The memory of another process.
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    // These have no names in the `libc` crate yet; the numbers are the same on every architecture.
    QUOTACTL_FD,
    LSM_SET_SELF_ATTR,
    OPEN_TREE_ATTR,
    LISTNS,
];
const QUOTACTL_FD: i64 = 443;
const LSM_SET_SELF_ATTR: i64 = 460;
const OPEN_TREE_ATTR: i64 = 467;
const LISTNS: i64 = 470;

/// Input and output of the older asynchronous kind, of which the whole machine has a number: no server's runtime uses it.
pub(super) const ASYNCHRONOUS: &[i64] = &[libc::SYS_io_setup, libc::SYS_io_submit];

/// The same in the form that only some architectures have.
#[cfg(target_arch = "x86_64")]
pub(super) const ONLY_HERE: &[i64] =
    &[libc::SYS_kexec_file_load, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const ONLY_HERE: &[i64] = &[];

/// Memory and state of another process.
pub(super) const DEBUG: &[i64] = &[libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev];
/// Objects of the user that are not files, and that all processes of the user reach by a number or a name.
pub(super) const SHARED: &[i64] = &[
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_msgget,
    libc::SYS_msgctl,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_semget,
    libc::SYS_semctl,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
];
/// Operations that the filter would not see.
pub(super) const IO_URING: &[i64] = &[libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
/// Every new namespace, of the flags of `clone` and `unshare`.
pub(super) const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];
