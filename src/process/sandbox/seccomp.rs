//! Takes system calls away, by seccomp. Invariant: what is refused fails as on a kernel without it, so that a program
//! goes on another way; only a call of a foreign architecture ends the program.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
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

/// The x32 form of a system call on x86-64, which reaches the kernel under the same architecture.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;

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
        let gives_up = |option: libc::c_int| {
            let option = SeccompCondition::new(0, Dword, Eq, u64::from(option.cast_unsigned()))?;
            SeccompRule::new(vec![option, SeccompCondition::new(1, Dword, Eq, 0)?])
        };
        let bound = [libc::PR_SET_PDEATHSIG, libc::PR_SET_CHILD_SUBREAPER].map(gives_up);
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
            // One of a pair of these can be connected anew, to somebody outside.
            const KINDS: u64 = 0xf;
            let datagram = one(1, MaskedEq(KINDS), u64::from(libc::SOCK_DGRAM.cast_unsigned()))?;
            self.refused.insert(libc::SYS_socketpair, vec![datagram]);
        }
        Ok(())
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
        let [refused, unknown] = self.programs().map_err(|error| failed(&error))?;
        for program in [unknown, refused] {
            seccompiler::apply_filter(&program).map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    /// The filters: a filter has one answer for all that it refuses.
    fn programs(&self) -> Result<[BpfProgram; 2], seccompiler::BackendError> {
        let unknown = self.unknown.iter().map(|call| (*call, Vec::new())).collect();
        Ok([program(self.refused.clone(), libc::EPERM)?, program(unknown, libc::ENOSYS)?])
    }

    /// The instructions that they come to.
    pub fn instructions(&self) -> usize {
        self.programs().map_or(0, |programs| programs.iter().map(Vec::len).sum())
    }
}

fn program(
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut, reason = "only x86-64 has a second form"))]
    mut rules: BTreeMap<i64, Vec<SeccompRule>>,
    errno: libc::c_int,
) -> Result<BpfProgram, seccompiler::BackendError> {
    #[cfg(target_arch = "x86_64")]
    for (call, conditions) in rules.clone() {
        rules.insert(call | X32, conditions);
    }
    let answer = SeccompAction::Errno(errno.cast_unsigned());
    SeccompFilter::new(rules, SeccompAction::Allow, answer, std::env::consts::ARCH.try_into()?)?.try_into()
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
