//! Denies changes of the mode, owner, times and attributes of files, which Landlock does not control. Invariant: no
//! such change is made by a path, because the path could be that of any file of the same user, open to the sandbox or
//! not. Changes by an open descriptor are allowed, because Landlock has controlled the opening.
//!
//! In the mode `strict` such a call is refused. In `standard` it returns success without an effect, because package
//! managers, git, tar and the libraries of languages give up on a failure, and few need the effect (ADR 0011).

use libc::c_int;
use rustix::process::{getegid, geteuid};
use seccompiler::BackendError;
use serde::{Deserialize, Serialize};

use super::filter::{Answer, Denials, Is, number};

/// A program that needs exceptions, known by its file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KnownProgram {
    /// `npm` and `npx`. They set the times of a lock folder each second, and lose the lock if that fails.
    Npm,
    /// `uv` and `uvx`. They make files that they have written executable.
    Uv,
    /// Sluice's built-in server. It confines paths to a folder by `openat2`, whose mode argument no filter sees.
    Sluice,
}

/// How to answer calls that change properties of files by path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metadata {
    /// They fail, as does watching folders.
    Refused,
    /// They succeed without an effect, except for what the given program needs.
    Ignored(Option<KnownProgram>),
}

/// Calls that set the mode of a file by path, each with the number of the mode argument.
const MODE: &[(i64, u8)] = &[(libc::SYS_fchmodat, 2), (FCHMODAT2, 2)];
#[cfg(target_arch = "x86_64")]
const MODE_OLDER: &[(i64, u8)] = &[(libc::SYS_chmod, 1)];
/// Calls that set the owner of a file by path, each with the numbers of the user and group arguments.
const OWNER: &[(i64, u8, u8)] = &[(libc::SYS_fchownat, 2, 3)];
#[cfg(target_arch = "x86_64")]
const OWNER_OLDER: &[(i64, u8, u8)] = &[(libc::SYS_chown, 1, 2), (libc::SYS_lchown, 1, 2)];
/// Calls that set the times of a file by path, besides `utimensat`.
#[cfg(target_arch = "x86_64")]
const TIMES_OLDER: &[i64] = &[libc::SYS_utime, libc::SYS_utimes, libc::SYS_futimesat];
/// Calls that set or remove extended attributes, which include access control lists, by path or descriptor; and one
/// that sets flags such as "immutable".
const ATTRIBUTES: &[i64] = &[
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    SETXATTRAT,
    REMOVEXATTRAT,
    FILE_SETATTR,
];
/// Calls that watch folders. They reveal the names of files that cannot be listed.
const WATCHING: &[i64] = &[libc::SYS_inotify_init1, libc::SYS_inotify_add_watch, libc::SYS_fanotify_mark];
#[cfg(target_arch = "x86_64")]
const WATCHING_OLDER: &[i64] = &[libc::SYS_inotify_init];
#[cfg(not(target_arch = "x86_64"))]
const MODE_OLDER: &[(i64, u8)] = &[];
#[cfg(not(target_arch = "x86_64"))]
const OWNER_OLDER: &[(i64, u8, u8)] = &[];
#[cfg(not(target_arch = "x86_64"))]
const TIMES_OLDER: &[i64] = &[];
#[cfg(not(target_arch = "x86_64"))]
const WATCHING_OLDER: &[i64] = &[];

// The numbers are the same on every architecture; the `libc` crate does not have all of them yet.
const FCHMODAT2: i64 = 452;
const SETXATTRAT: i64 = 463;
const REMOVEXATTRAT: i64 = 466;
const FILE_SETATTR: i64 = 469;

/// Mode bits that let a program run as the owner or group of its file (setuid, setgid).
const AS_ITS_OWNER: [u64; 2] = [0o4000, 0o2000];
/// Mode bits that the owner needs, and in the next constant those that let others write.
const OWNERS: [u64; 3] = [0o400, 0o200, 0o100];
const WRITABLE: [u64; 2] = [0o020, 0o002];
/// The value that leaves the user or group of a file unchanged.
const STAYS: u64 = u32::MAX as u64;

/// ioctl requests of file systems that take effect on files open for reading only. Each entry is the letter that such
/// requests have in common, and the requests with this letter that are allowed, because they only read or need a
/// writable descriptor.
const OF_FILE_SYSTEMS: [(u8, &[u64]); 3] = [
    // Flags such as "append only"; fs-verity and encryption. Flags are read, and so is where the parts of a file are.
    (b'f', &[0x8008_6601, 0x8004_6601, 0xc020_660b]),
    // The same of XFS, and freezing. Flags are read.
    (b'X', &[0x801c_581f]),
    // Subvolumes of btrfs. Copies of parts of files, and the label of a file system.
    (0x94, &[0x4004_9409, 0x4020_940d, 0xc018_9436, 0x8100_9431]),
];
/// fcntl commands that take a lease on a file or a delegation of a folder, which blocks others that open it.
const LEASES: [c_int; 2] = [1024, 1040];
/// fcntl command that reports changes in a folder.
const NOTIFY: c_int = 1026;

/// Refuses to set setuid and setgid bits, on existing files and on new ones; and leases on files.
pub(super) fn refuse_privileged_modes(denials: &mut Denials) -> Result<(), BackendError> {
    for bit in AS_ITS_OWNER.map(Is::With) {
        for (call, argument) in MODE.iter().chain(MODE_OLDER).chain(&[(libc::SYS_fchmod, 1)]) {
            denials.when(Answer::Refused, *call, &[(*argument, bit)])?;
        }
        // The mode says nothing where no file is made: a program may leave anything there.
        for makes in [libc::O_CREAT, libc::O_TMPFILE & !libc::O_DIRECTORY].map(|flag| Is::With(number(flag))) {
            denials.when(Answer::Refused, libc::SYS_openat, &[(2, makes), (3, bit)])?;
            #[cfg(target_arch = "x86_64")]
            denials.when(Answer::Refused, libc::SYS_open, &[(1, makes), (2, bit)])?;
        }
        denials.when(Answer::Refused, libc::SYS_mknodat, &[(2, bit)])?;
        #[cfg(target_arch = "x86_64")]
        denials.when(Answer::Refused, libc::SYS_creat, &[(1, bit)])?;
        #[cfg(target_arch = "x86_64")]
        denials.when(Answer::Refused, libc::SYS_mknod, &[(1, bit)])?;
    }
    // A lease on a file that can be read, such as code, holds up everybody who opens it.
    for lease in LEASES {
        denials.when(Answer::Refused, libc::SYS_fcntl, &[(1, Is::Equal(number(lease)))])?;
    }
    Ok(())
}

/// Answers `openat2` with ENOSYS, because its mode argument is in memory that no filter sees. Programs fall back to
/// `openat`.
pub fn deny_unseen_modes(denials: &mut Denials) {
    denials.unknown(&[libc::SYS_openat2]);
}

/// Denies changes of mode, owner and times of files by path, answered as `how` says; for root, mode and owner by
/// descriptor too. Denies changes of extended attributes and of flags of file systems. [`Metadata::Refused`] also
/// denies watching folders.
///
/// # Errors
/// The rules cannot be expressed.
pub fn deny_metadata(denials: &mut Denials, how: Metadata) -> Result<(), BackendError> {
    let is_root = geteuid().is_root();
    let (answer, known) = match how {
        Metadata::Refused => (Answer::Refused, None),
        Metadata::Ignored(known) => (Answer::Done, known),
    };
    for (call, argument) in MODE.iter().chain(MODE_OLDER) {
        take_mode(denials, answer, *call, *argument, known)?;
    }
    for (call, user, group) in OWNER.iter().chain(OWNER_OLDER) {
        take_owner(denials, answer, *call, *user, *group)?;
    }
    if known != Some(KnownProgram::Npm) {
        // The times of a path, as opposed to those of a descriptor.
        denials.when(answer, libc::SYS_utimensat, &[(1, Is::There)])?;
        denials.answer_always(answer, TIMES_OLDER);
    }
    denials.answer_always(Answer::Unsupported, ATTRIBUTES);
    for (letter, passing) in OF_FILE_SYSTEMS {
        let others = passing.iter().map(|request| (1, Is::Not(*request)));
        let other: Vec<_> = [(1, Is::Masked(0xff00, u64::from(letter) << 8))].into_iter().chain(others).collect();
        denials.when(Answer::Unsupported, libc::SYS_ioctl, &other)?;
    }
    if is_root {
        // Of what a process can open, root owns the system's programs as well. (Their times he can change, or `touch`
        // would not work.)
        denials.answer_always(answer, &[libc::SYS_fchmod]);
        take_owner(denials, answer, libc::SYS_fchown, 1, 2)?;
    }
    if how == Metadata::Refused {
        denials.always(WATCHING).always(WATCHING_OLDER);
        denials.when(Answer::Refused, libc::SYS_fcntl, &[(1, Is::Equal(number(NOTIFY)))])?;
    }
    Ok(())
}

/// Denies the call `call`, whose argument `mode` is a file mode. For `uv` it is denied only for modes that take a
/// permission from the owner or let others write.
fn take_mode(
    denials: &mut Denials,
    answer: Answer,
    call: i64,
    mode: u8,
    known: Option<KnownProgram>,
) -> Result<(), BackendError> {
    if known != Some(KnownProgram::Uv) {
        denials.answer_always(answer, &[call]);
        return Ok(());
    }
    let takes = OWNERS.map(|bit| Is::Masked(bit, 0)).into_iter();
    for is in takes.chain(WRITABLE.map(Is::With)) {
        denials.when(answer, call, &[(mode, is)])?;
    }
    Ok(())
}

/// Denies the call `call`, whose arguments `user` and `group` are the new owner. A change to another owner is refused;
/// other calls get `answer`.
fn take_owner(denials: &mut Denials, answer: Answer, call: i64, user: u8, group: u8) -> Result<(), BackendError> {
    for (argument, own) in [(user, geteuid().as_raw()), (group, getegid().as_raw())] {
        let other = [(argument, Is::Not(u64::from(own))), (argument, Is::Not(STAYS))];
        denials.when(Answer::Refused, call, &other)?;
    }
    if answer == Answer::Refused {
        denials.always(&[call]);
    } else {
        denials.answer_always(answer, &[call]);
    }
    Ok(())
}
