//! The mode, the owner, the times and the attributes of files, over which Landlock does not decide.

use seccompiler::{BackendError, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::{Answer, Denials, Is, rule};
use crate::process::sandbox::SandboxError;

/// The properties of a file by its path, over which Landlock does not decide, and what happens in a folder, with the names
/// of the files.
const BY_PATH: &[i64] = &[
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

impl Denials {
    /// Refuses modes by which a program runs as somebody else.
    pub(super) fn refuse_privileged_modes(&mut self) -> Result<(), BackendError> {
        for (call, argument) in MODES.iter().chain(MODES_OLDER) {
            for bit in AS_ITS_OWNER {
                self.when(Answer::Refused, *call, rule(&[(*argument, Is::With(bit))])?);
            }
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
        Ok(self.when(Answer::Refused, libc::SYS_utimensat, by_path))
    }
}
