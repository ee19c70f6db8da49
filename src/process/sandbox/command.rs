//! Encloses one program in one folder, where it can do anything, and outside of which it can do nothing but run the
//! system's programs: how the built-in server runs a command. Invariant: what it does changes nothing outside of the
//! folder, talks to nobody, and does not outlive the command.
//!
//! Landlock decides over opening, making, removing and executing files. It does not know the mode, the owner, the
//! times and the attributes of a file, sockets other than TCP, watching a directory, and a program that leaves its
//! process group. What stays possible is to ask whether a path outside exists, and for its size and times.

use std::path::{Path, PathBuf};

use super::error::SandboxError;
use super::identity::drop_capabilities;
use super::landlock::{Enclosure, enclose};
use super::seccomp::{Denials, Metadata, Sockets, deny_metadata, deny_unseen_modes, only_own_group, server_denials};
use super::system_paths::{DEVICES, PROGRAMS};
use crate::process::limits::ProcessLimits;

/// The largest file that it may make, in bytes.
const MAX_FILE: u64 = 64 * 1024 * 1024;
/// The most descriptors that it may have open.
const MAX_DESCRIPTORS: u64 = 256;

/// Leaving the group, which is killed as a whole.
const LEAVING: &[i64] = &[libc::SYS_setsid, libc::SYS_setpgid];

/// Signals, where Landlock does not keep them inside (before Linux 6.12); `kill` stays for the own group.
const SIGNALS: &[i64] = &[
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_send_signal,
];

/// Encloses the calling process, which must have a single thread, and all that it starts, in a folder.
///
/// # Errors
/// A step was refused, or this kernel has no Landlock. The process must then start nothing.
pub fn enclose_in(folder: &Path) -> Result<(), SandboxError> {
    let limits =
        ProcessLimits { open_files: Some(MAX_DESCRIPTORS), file_size: Some(MAX_FILE), ..ProcessLimits::default() };
    limits.apply().map_err(|error| SandboxError::refused("a limit")(&error))?;
    let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect();
    let folder = folder.canonicalize().map_err(|error| SandboxError::Path { path: folder.to_owned(), error })?;
    let mut enclosure = Enclosure {
        read: paths(PROGRAMS),
        write: vec![folder.clone()],
        needed: vec![folder],
        devices: paths(DEVICES),
        ..Enclosure::default()
    };
    enclosure.follow_links();
    let landlock = enclose(&enclosure)?;
    if landlock == 0 {
        return Err(SandboxError::Lacking("Landlock (Linux 5.13, enabled at boot), without which no program is run"));
    }
    drop_capabilities().map_err(|error| SandboxError::refused("the loss of capabilities")(&error))?;
    denials(landlock)?.apply()
}

/// What such a program does not get, where Landlock has this version.
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
        only_own_group(&mut denials).map_err(|error| SandboxError::refused("seccomp")(&error))?;
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
