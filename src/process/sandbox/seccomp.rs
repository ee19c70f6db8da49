//! Takes system calls away, by seccomp. Invariant: what is refused fails as on a kernel without it, so that a program
//! goes on another way; only a call of a foreign architecture ends the program.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    sock_filter,
};

use super::SandboxError;
use crate::config::Allowance;

/// The kernel's administration. Most of it takes a privilege that a child does not have; some of it has been a way to
/// one.
const ADMINISTRATION: &[i64] = &[
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
];

/// The same in the form that only some architectures have.
#[cfg(target_arch = "x86_64")]
const ONLY_HERE: &[i64] = &[libc::SYS_kexec_file_load, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
const ONLY_HERE: &[i64] = &[];

/// Memory and state of another process.
const DEBUG: &[i64] = &[libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev];
/// Objects of the user that are not files, and that all processes of the user reach by a number or a name.
const SHARED: &[i64] = &[
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
const IO_URING: &[i64] = &[libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
/// Every new namespace, of the flags of `clone` and `unshare`.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];
/// Keystrokes into a terminal, as if its user had typed them.
const TERMINAL_INPUT: [u64; 2] = [0x5412, 0x541c];
/// The families of sockets that programs use; the others are ways into rarely used parts of the kernel.
const NETWORK: &[libc::c_int] = &[libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// The properties of a file by its path, over which Landlock does not decide, and what happens in a folder, with the names
/// of the files.
pub(super) const BY_PATH: &[i64] = &[
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
    libc::SYS_inotify_add_watch,
    libc::SYS_fanotify_mark,
];
/// The same in the form that only older architectures have.
#[cfg(target_arch = "x86_64")]
const BY_PATH_OLDER: &[i64] =
    &[libc::SYS_chmod, libc::SYS_chown, libc::SYS_lchown, libc::SYS_utime, libc::SYS_utimes, libc::SYS_futimesat];
#[cfg(not(target_arch = "x86_64"))]
const BY_PATH_OLDER: &[i64] = &[];
/// The same by descriptor. Of what a process can open, root owns the system's programs as well. (Their times he can change,
/// or `touch` would not work.)
const AS_ROOT: &[i64] = &[libc::SYS_fchmod, libc::SYS_fchown, libc::SYS_fsetxattr, libc::SYS_fremovexattr];
/// What sets the mode of a file, each with the argument that is the mode.
const MODES: &[(i64, u8)] = &[(libc::SYS_fchmod, 1), (libc::SYS_fchmodat, 2), (FCHMODAT2, 2)];
#[cfg(target_arch = "x86_64")]
const MODES_OLDER: &[(i64, u8)] = &[(libc::SYS_chmod, 1)];
#[cfg(not(target_arch = "x86_64"))]
const MODES_OLDER: &[(i64, u8)] = &[];
/// The bits of a mode by which a program runs as the owner, or the group, of its file.
const AS_ITS_OWNER: [u64; 2] = [0o4000, 0o2000];

// The numbers are the same on every architecture; the `libc` crate does not have all of them yet.
const FCHMODAT2: i64 = 452;
const SETXATTRAT: i64 = 463;
const REMOVEXATTRAT: i64 = 466;
const FILE_SETATTR: i64 = 469;

/// System calls that are refused: each always, or under conditions.
#[derive(Debug, Clone, Default)]
pub struct Denials {
    refused: BTreeMap<i64, Vec<SeccompRule>>,
    /// Answered as if the kernel did not have them, for which programs are prepared.
    unknown: Vec<i64>,
}

impl Denials {
    /// What a server has no business with, except for what is allowed.
    pub fn of_server(allow: &[Allowance], sockets: Sockets) -> Result<Self, SandboxError> {
        let mut denials = Self::default();
        denials.always(ADMINISTRATION).always(ONLY_HERE);
        if !allow.contains(&Allowance::Debug) {
            denials.always(DEBUG);
        }
        if !allow.contains(&Allowance::SharedMemory) {
            denials.always(SHARED);
        }
        if !allow.contains(&Allowance::IoUring) {
            denials.unknown.extend(IO_URING);
        }
        denials.conditions(allow, sockets).map_err(|error| SandboxError::refused("seccomp")(&error))?;
        Ok(denials)
    }

    fn conditions(&mut self, allow: &[Allowance], sockets: Sockets) -> Result<(), seccompiler::BackendError> {
        use SeccompCmpArgLen::Dword;
        use SeccompCmpOp::{Eq, MaskedEq, Ne};
        let one = |argument, op, value| SeccompRule::new(vec![SeccompCondition::new(argument, Dword, op, value)?]);
        // The limits and the priority of another process of the same user, such as the gateway.
        self.refused.insert(libc::SYS_prlimit64, vec![any_but_zero(0)?]);
        self.refused.insert(libc::SYS_setpriority, vec![any_but_zero(0)?, any_but_zero(1)?]);
        // By these a child is ended with the gateway, and what it leaves behind is found.
        let changes = |option: libc::c_int, op, value: libc::c_int| {
            let option = SeccompCondition::new(0, Dword, Eq, u64::from(option.cast_unsigned()))?;
            SeccompRule::new(vec![option, SeccompCondition::new(1, Dword, op, u64::from(value.cast_unsigned()))?])
        };
        // Another signal could be caught.
        let bound = [changes(libc::PR_SET_PDEATHSIG, Ne, libc::SIGKILL), changes(libc::PR_SET_CHILD_SUBREAPER, Eq, 0)];
        self.refused.insert(libc::SYS_prctl, bound.into_iter().collect::<Result<_, _>>()?);
        let typed = TERMINAL_INPUT.into_iter().map(|request| one(1, Eq, request)).collect::<Result<_, _>>()?;
        self.refused.insert(libc::SYS_ioctl, typed);
        if !allow.contains(&Allowance::Namespaces) {
            for call in [libc::SYS_clone, libc::SYS_unshare] {
                let flag = |flag: libc::c_int| {
                    one(0, MaskedEq(u64::from(flag.cast_unsigned())), u64::from(flag.cast_unsigned()))
                };
                self.refused.insert(call, NAMESPACES.into_iter().map(flag).collect::<Result<_, _>>()?);
            }
            // Its flags are in memory, where a filter cannot look. The C library falls back to clone.
            self.unknown.push(libc::SYS_clone3);
        }
        let network: &[libc::c_int] = if sockets.network { NETWORK } else { &[] };
        let local: &[libc::c_int] = if sockets.local { &[libc::AF_UNIX] } else { &[] };
        let none_of = network
            .iter()
            .chain(local)
            .map(|family| SeccompCondition::new(0, Dword, Ne, u64::from(family.cast_unsigned())))
            .collect::<Result<Vec<_>, _>>()?;
        let rules = if none_of.is_empty() { Vec::new() } else { vec![SeccompRule::new(none_of)?] };
        self.refused.insert(libc::SYS_socket, rules);
        if !sockets.local {
            // One of a pair of any other kind can be connected anew, to somebody outside: they become datagrams.
            const KINDS: u64 = 0xf;
            let stays = [libc::SOCK_STREAM, libc::SOCK_SEQPACKET].map(|kind| u64::from(kind.cast_unsigned()));
            let others = (0..=KINDS).filter(|kind| !stays.contains(kind)).map(|kind| one(1, MaskedEq(KINDS), kind));
            self.refused.insert(libc::SYS_socketpair, others.collect::<Result<_, _>>()?);
        }
        for (call, argument) in MODES.iter().chain(MODES_OLDER) {
            let with = AS_ITS_OWNER.map(|bit| one(*argument, MaskedEq(bit), bit));
            self.refused.insert(*call, with.into_iter().collect::<Result<_, _>>()?);
        }
        Ok(())
    }

    /// Refuses to change the properties of files by their paths, and to watch folders. `root` has more that belongs to him.
    ///
    /// # Errors
    /// There is no such condition.
    pub fn metadata(&mut self, root: bool) -> Result<&mut Self, SandboxError> {
        self.always(BY_PATH).always(BY_PATH_OLDER);
        if root {
            self.always(AS_ROOT);
        }
        // The times of a path, as opposed to those of a descriptor.
        let path = SeccompCondition::new(1, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0);
        let by_path = path.and_then(|path| SeccompRule::new(vec![path]));
        let by_path = by_path.map_err(|error| SandboxError::refused("seccomp")(&error))?;
        Ok(self.when(libc::SYS_utimensat, vec![by_path]))
    }

    /// Refuses these calls whatever their arguments are.
    pub fn always(&mut self, calls: &[i64]) -> &mut Self {
        self.refused.extend(calls.iter().map(|call| (*call, Vec::new())));
        self
    }

    /// Refuses a call where one of the rules matches.
    pub fn when(&mut self, call: i64, rules: Vec<SeccompRule>) -> &mut Self {
        self.refused.insert(call, rules);
        self
    }

    /// Takes them from the calling thread, which must have no-new-privileges, and all that it starts.
    ///
    /// # Errors
    /// The system refuses.
    pub fn apply(&self) -> Result<(), SandboxError> {
        let failed = SandboxError::refused("seccomp");
        for program in self.programs().map_err(|error| failed(&error))? {
            seccompiler::apply_filter(&program).map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    /// The filters: a filter has one answer for all that it refuses.
    fn programs(&self) -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
        let unknown = self.unknown.iter().map(|call| (*call, Vec::new())).collect();
        let programs = [program(unknown, libc::ENOSYS)?, program(self.refused.clone(), libc::EPERM)?];
        Ok(second_form().into_iter().chain(programs).collect())
    }

    /// The instructions that they come to.
    pub fn instructions(&self) -> usize {
        self.programs().map_or(0, |programs| programs.iter().map(Vec::len).sum())
    }
}

fn program(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    errno: libc::c_int,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let answer = SeccompAction::Errno(errno.cast_unsigned());
    SeccompFilter::new(rules, SeccompAction::Allow, answer, std::env::consts::ARCH.try_into()?)?.try_into()
}

/// Takes away the second form that all system calls have on x86-64, x32, some of them under numbers of their own: it reaches
/// the kernel under the same architecture, and no program here is built for it.
#[cfg(target_arch = "x86_64")]
fn second_form() -> Option<BpfProgram> {
    /// The bit that marks it. With it, a number is larger than any without.
    const X32: u32 = 0x4000_0000;
    let step = |code: u32, jt, jf, k| sock_filter { code: code as u16, jt, jf, k };
    Some(vec![
        // The number of the call, which is what the description of a call begins with.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, SeccompAction::Errno(libc::ENOSYS.cast_unsigned()).into()),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, SeccompAction::Allow.into()),
    ])
}
#[cfg(not(target_arch = "x86_64"))]
fn second_form() -> Option<BpfProgram> {
    None
}

/// What sockets can be made. Pairs that are connected to each other always can.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sockets {
    /// Those of the network.
    pub network: bool,
    /// Those of the machine, which have a name in the file system.
    pub local: bool,
}

/// Matches a call whose argument number `argument`, of 32 bits, is not zero.
///
/// # Errors
/// There is no such argument.
pub(super) fn any_but_zero(argument: u8) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0)?])
}
