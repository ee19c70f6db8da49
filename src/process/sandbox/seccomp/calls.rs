//! Lists of system calls to deny whatever their arguments are.

/// Administration of the kernel. Most calls need a privilege that a child does not have; some have been used to gain
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

/// Older asynchronous input and output. The machine has a limited number of contexts, and no server's runtime needs
/// them.
pub(super) const ASYNCHRONOUS: &[i64] = &[libc::SYS_io_setup, libc::SYS_io_submit];

/// Further calls for administration that exist on some architectures only.
#[cfg(target_arch = "x86_64")]
pub(super) const ONLY_HERE: &[i64] =
    &[libc::SYS_kexec_file_load, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const ONLY_HERE: &[i64] = &[];

/// Access to memory and state of other processes. Denied unless `debug` is allowed.
pub(super) const DEBUG: &[i64] = &[libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev];
/// Shared memory and message queues, which all processes of a user can reach. Denied unless `shared_memory` is allowed.
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
/// io_uring, whose operations no filter sees. Denied unless `io_uring` is allowed.
pub(super) const IO_URING: &[i64] = &[libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
/// Flags of `clone` and `unshare` for new namespaces. Denied unless `namespaces` is allowed.
pub(super) const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];
