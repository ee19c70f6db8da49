//! The mode, the owner, the times and the attributes of files, over which Landlock does not decide. Invariant: none of them
//! is changed by a path, which can be that of any file of the same user, in reach or not. What a program has opened, it may
//! change by its descriptor: there Landlock has decided.
//!
//! In `strict` such a call is refused. In `standard` it is answered as if it were done, since package managers, git, tar and
//! the libraries of languages give up when it fails, and few need the effect (ADR 0011).

use libc::c_int;
use rustix::process::{getegid, geteuid};
use seccompiler::BackendError;
use serde::{Deserialize, Serialize};

use super::filter::{Answer, Denials, Is, number, rule};
use crate::process::sandbox::error::SandboxError;

/// A program that needs what others are not given, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KnownProgram {
    /// `npm` and `npx`: a lock is a folder whose times are set each second, and that is lost when they are not.
    Npm,
    /// `uv` and `uvx`: a file is written, and then made a program.
    Uv,
    /// Sluice's own server: it confines paths to a folder by `openat2`, whose modes no filter sees.
    Sluice,
}

/// How calls that change the properties of files by their paths are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metadata {
    /// They are refused, as is watching folders.
    Refused,
    /// They are answered as if they were done, except for what a launcher needs.
    Ignored(Option<KnownProgram>),
}

/// Calls that set the mode of a file by its path, each with the argument that is the mode.
const MODE: &[(i64, u8)] = &[(libc::SYS_fchmodat, 2), (FCHMODAT2, 2)];
#[cfg(target_arch = "x86_64")]
const MODE_OLDER: &[(i64, u8)] = &[(libc::SYS_chmod, 1)];
/// Calls that set the owner by the path, each with the arguments that are the user and the group.
const OWNER: &[(i64, u8, u8)] = &[(libc::SYS_fchownat, 2, 3)];
#[cfg(target_arch = "x86_64")]
const OWNER_OLDER: &[(i64, u8, u8)] = &[(libc::SYS_chown, 1, 2), (libc::SYS_lchown, 1, 2)];
/// Calls that set the times by the path, beside `utimensat`.
#[cfg(target_arch = "x86_64")]
const TIMES_OLDER: &[i64] = &[libc::SYS_utime, libc::SYS_utimes, libc::SYS_futimesat];
/// Calls that set or remove attributes, by path or descriptor: access control lists are attributes, too.
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
/// What watches folders: it tells the names of files that cannot be listed.
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

/// The bits of a mode by which a program runs as the owner, or the group, of its file.
const AS_ITS_OWNER: [u64; 2] = [0o4000, 0o2000];
/// Bits of a mode without which the owner loses something, and bits by which others could write.
const OWNERS: [u64; 3] = [0o400, 0o200, 0o100];
const WRITABLE: [u64; 2] = [0o020, 0o002];
/// The user or group of an owner that is to stay.
const STAYS: u64 = u32::MAX as u64;

/// Operations of file systems on what is open for reading only, by the letter that their numbers have in common, each with
/// those of the same letter that pass: they read, or write to a descriptor that is open for writing.
const OF_FILE_SYSTEMS: [(u8, &[u64]); 3] = [
    // Flags such as "append only"; fs-verity and encryption. Flags are read, and so is where the parts of a file are.
    (b'f', &[0x8008_6601, 0x8004_6601, 0xc020_660b]),
    // The same of XFS, and freezing. Flags are read.
    (b'X', &[0x801c_581f]),
    // Subvolumes of btrfs. Copies of parts of files, and the label of a file system.
    (0x94, &[0x4004_9409, 0x4020_940d, 0xc018_9436, 0x8100_9431]),
];
/// Leases on a file, by which others wait that open it; and the same for folders.
const LEASES: [c_int; 2] = [1024, 1040];
/// Word of what happens in a folder.
const NOTIFY: c_int = 1026;

/// Refuses modes by which a program runs as somebody else, to files that are there and to new ones.
pub(super) fn refuse_privileged_modes(denials: &mut Denials) -> Result<(), BackendError> {
    for bit in AS_ITS_OWNER.map(Is::With) {
        for (call, argument) in MODE.iter().chain(MODE_OLDER).chain(&[(libc::SYS_fchmod, 1)]) {
            denials.when(Answer::Refused, *call, rule(&[(*argument, bit)])?);
        }
        // The mode says nothing where no file is made: a program may leave anything there.
        for makes in [libc::O_CREAT, libc::O_TMPFILE & !libc::O_DIRECTORY].map(|flag| Is::With(number(flag))) {
            denials.when(Answer::Refused, libc::SYS_openat, rule(&[(2, makes), (3, bit)])?);
            #[cfg(target_arch = "x86_64")]
            denials.when(Answer::Refused, libc::SYS_open, rule(&[(1, makes), (2, bit)])?);
        }
        denials.when(Answer::Refused, libc::SYS_mknodat, rule(&[(2, bit)])?);
        #[cfg(target_arch = "x86_64")]
        denials.when(Answer::Refused, libc::SYS_creat, rule(&[(1, bit)])?);
        #[cfg(target_arch = "x86_64")]
        denials.when(Answer::Refused, libc::SYS_mknod, rule(&[(1, bit)])?);
    }
    // A lease on a file that can be read, such as code, holds up everybody who opens it.
    for lease in LEASES {
        denials.when(Answer::Refused, libc::SYS_fcntl, rule(&[(1, Is::Equal(number(lease)))])?);
    }
    Ok(())
}

/// Takes the call away whose modes are in memory, where a filter cannot look. Programs fall back to `openat`.
pub fn deny_unseen_modes(denials: &mut Denials) {
    denials.unknown(&[libc::SYS_openat2]);
}

/// Takes away what changes the properties of files by their paths.
///
/// # Errors
/// There is no such condition.
pub fn deny_metadata(denials: &mut Denials, how: Metadata) -> Result<(), SandboxError> {
    take_metadata(denials, how).map_err(|error| SandboxError::refused("seccomp")(&error))
}

fn take_metadata(denials: &mut Denials, how: Metadata) -> Result<(), BackendError> {
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
        denials.when(answer, libc::SYS_utimensat, rule(&[(1, Is::There)])?);
        denials.answer_always(answer, TIMES_OLDER);
    }
    denials.answer_always(Answer::Unsupported, ATTRIBUTES);
    for (letter, passing) in OF_FILE_SYSTEMS {
        let others = passing.iter().map(|request| (1, Is::Not(*request)));
        let other: Vec<_> = [(1, Is::Masked(0xff00, u64::from(letter) << 8))].into_iter().chain(others).collect();
        denials.when(Answer::Unsupported, libc::SYS_ioctl, rule(&other)?);
    }
    if is_root {
        // Of what a process can open, root owns the system's programs as well. (Their times he can change, or `touch`
        // would not work.)
        denials.answer_always(answer, &[libc::SYS_fchmod]);
        take_owner(denials, answer, libc::SYS_fchown, 1, 2)?;
    }
    if how == Metadata::Refused {
        denials.always(WATCHING).always(WATCHING_OLDER);
        denials.when(Answer::Refused, libc::SYS_fcntl, rule(&[(1, Is::Equal(number(NOTIFY)))])?);
    }
    Ok(())
}

/// For `uv`, a mode that takes nothing from the owner, and lets nobody else write, is set.
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
        denials.when(answer, call, rule(&[(mode, is)])?);
    }
    Ok(())
}

/// An owner that is the one already is answered in the same way as a mode; to give files to others is refused.
fn take_owner(denials: &mut Denials, answer: Answer, call: i64, user: u8, group: u8) -> Result<(), BackendError> {
    for (argument, own) in [(user, geteuid().as_raw()), (group, getegid().as_raw())] {
        let other = [(argument, Is::Not(u64::from(own))), (argument, Is::Not(STAYS))];
        denials.when(Answer::Refused, call, rule(&other)?);
    }
    if answer == Answer::Refused {
        denials.always(&[call]);
    } else {
        denials.answer_always(answer, &[call]);
    }
    Ok(())
}
