//! The sandbox of a command that the built-in server runs: the command may do anything inside one folder, and outside
//! of it only execute the system's programs. Invariant: the command changes nothing outside of the folder, talks to
//! nobody, and does not outlive its process group.
//!
//! Landlock controls opening, making, removing and executing files. It does not control mode, owner, times and
//! attributes of files, sockets other than TCP, watching of directories, or leaving a process group; seccomp denies
//! those. A command can still find out whether a path outside exists, and its size and times.

use std::path::Path;

use super::error::SandboxError;
use super::identity::drop_capabilities;
use super::landlock::{Enclosure, enclose, real};
use super::seccomp::{Denials, Metadata, Sockets, deny_metadata, deny_unseen_modes, only_own_group, server_denials};
use super::system_paths::{DEVICES, PROGRAMS};
use crate::process::limits::ProcessLimits;

/// Largest file that the command may write, in bytes.
const MAX_FILE: u64 = 64 * 1024 * 1024;
/// Most descriptors that the command may have open.
const MAX_DESCRIPTORS: u64 = 256;

/// System calls to leave the process group, which is killed as a whole.
const LEAVING: &[i64] = &[libc::SYS_setsid, libc::SYS_setpgid];

/// System calls that send signals, other than `kill`. Denied where Landlock does not contain signals (before Linux
/// 6.12).
const SIGNALS: &[i64] = &[
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_send_signal,
];

/// Confines this process and all that it starts to `folder`. The process must have a single thread.
///
/// # Errors
/// A step was refused, or this kernel has no Landlock. The process must then start nothing.
pub fn enclose_in(folder: &Path) -> Result<(), SandboxError> {
    let limits =
        ProcessLimits { open_files: Some(MAX_DESCRIPTORS), file_size: Some(MAX_FILE), ..ProcessLimits::default() };
    limits.apply().map_err(SandboxError::refused("a limit"))?;
    let paths = |list: &[&str]| list.iter().map(|path| real(Path::new(path))).collect();
    let folder = folder.canonicalize().map_err(|error| SandboxError::Path { path: folder.to_owned(), error })?;
    let enclosure = Enclosure {
        read: paths(PROGRAMS),
        write: vec![folder.clone()],
        needed: vec![folder],
        devices: paths(DEVICES),
        ..Enclosure::default()
    };
    let landlock = enclose(&enclosure)?;
    if landlock == 0 {
        return Err(SandboxError::Lacking("Landlock (Linux 5.13, enabled at boot), without which no program is run"));
    }
    drop_capabilities().map_err(SandboxError::refused("the loss of capabilities"))?;
    denials(landlock)?.apply()
}

/// The system calls to deny to a command on a kernel with this version of Landlock.
fn denials(landlock: u8) -> Result<Denials, SandboxError> {
    let mut denials = server_denials(&[], Sockets::default())?;
    deny_metadata(&mut denials, Metadata::Refused)?;
    deny_unseen_modes(&mut denials);
    denials.always(LEAVING);
    if landlock < 3 {
        denials.always(&[libc::SYS_truncate]);
    }
    if landlock < 6 {
        denials.always(SIGNALS);
        only_own_group(&mut denials)?;
    }
    Ok(denials)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_filter_compiles_for_every_kernel() {
        let size = |landlock| denials(landlock).unwrap().instructions();
        assert!(size(1) > size(3));
        assert!(size(3) > size(9));
    }
}
