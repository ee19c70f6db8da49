//! Restricts a process to a list of paths by Landlock: other paths can be neither read nor executed nor changed, and
//! processes outside of the sandbox cannot be traced. Where the kernel supports it, signals and abstract sockets are
//! contained as well.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, Ruleset, RulesetAttr as _,
    RulesetCreated, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::error::SandboxError;
use crate::config::RUNNING;
use crate::process::image::runs_from_memory;

/// The paths, devices and kinds of connections that a process can reach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enclosure {
    /// Files and folders to read and execute. Missing ones are ignored.
    pub read: Vec<PathBuf>,
    /// Files and folders to change as well. Missing ones are ignored.
    pub write: Vec<PathBuf>,
    /// The files and folders among those that must exist.
    pub needed: Vec<PathBuf>,
    /// Devices to read and write.
    pub devices: Vec<PathBuf>,
    /// Whether the process may connect by TCP, and listen on TCP ports that the kernel chooses.
    pub network: bool,
    /// Whether the process may listen on any free TCP port, provided that `network` is set.
    pub listen: bool,
    /// Whether the process may connect to sockets anywhere in the file system. Otherwise it may connect only to those
    /// in `write`, which takes Landlock 9.
    pub sockets: bool,
}

impl Enclosure {
    /// Sorts the paths and removes duplicates, and paths to read that can be changed anyway.
    pub(super) fn normalize(&mut self) {
        for paths in [&mut self.read, &mut self.write, &mut self.devices] {
            paths.sort();
            paths.dedup();
        }
        let write = &self.write;
        self.read.retain(|path| write.binary_search(path).is_err());
    }
}

/// Restricts the calling thread and all that it starts. The thread must have no-new-privileges. Returns the enforced
/// version of Landlock, 0 for none.
///
/// # Errors
/// A needed path cannot be opened, or the system refuses.
pub fn enclose(enclosure: &Enclosure) -> Result<u8, SandboxError> {
    for path in &enclosure.needed {
        open(path).map_err(|error| SandboxError::Path { path: path.clone(), error })?;
    }
    let status =
        ruleset(enclosure).and_then(RulesetCreated::restrict_self).map_err(SandboxError::refused("Landlock"))?;
    Ok(match status.landlock {
        LandlockStatus::Available { effective_abi, .. } if status.ruleset != RulesetStatus::NotEnforced => {
            // The discriminants are the versions.
            u8::try_from(effective_abi as i32).unwrap_or(u8::MAX)
        }
        _ => 0,
    })
}

fn ruleset(enclosure: &Enclosure) -> Result<RulesetCreated, RulesetError> {
    let connect = if enclosure.sockets { BitFlags::from(AccessFs::ResolveUnix) } else { BitFlags::EMPTY };
    let handled = AccessFs::from_all(ABI::V9) & !connect;
    // All that could leave a trace, except for devices: neither made nor spoken to.
    let write = handled & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
    let read = AccessFs::from_read(ABI::V1);
    let device = AccessFs::ReadFile | AccessFs::WriteFile;
    let mut ruleset = Ruleset::default().handle_access(handled)?.scope(Scope::from_all(ABI::V6))?;
    match (enclosure.network, enclosure.listen) {
        (false, _) => ruleset = ruleset.handle_access(AccessNet::from_all(ABI::V10))?,
        (true, false) => ruleset = ruleset.handle_access(AccessNet::BindTcp)?,
        (true, true) => {}
    }
    let mut created = ruleset.create()?;
    if enclosure.network && !enclosure.listen {
        // The kernel chooses one that nobody listens on. Browsers and the like need it towards their own helpers.
        created = created.add_rule(NetPort::new(0, AccessNet::BindTcp))?;
    }
    for (paths, access) in [(&enclosure.read, read), (&enclosure.write, write), (&enclosure.devices, device)] {
        for path in paths {
            created = allow(created, path, access)?;
        }
    }
    Ok(created)
}

/// Adds a rule for a path. Adds none if the path cannot be opened, has a symbolic link in it, or is this program
/// running from memory. For a file, rights that apply to folders only are left out.
fn allow(created: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated, RulesetError> {
    // The kernel makes no rule for a file in memory, and lets everybody execute one.
    if path == Path::new(RUNNING) && runs_from_memory() {
        return Ok(created);
    }
    let Ok(opened) = open(path) else { return Ok(created) };
    let Ok(found) = opened.metadata() else { return Ok(created) };
    let access = if found.is_dir() { access } else { access & AccessFs::from_file(ABI::V9) };
    // A socket or a device among the paths is no reason to speak to the disk behind it.
    let access = if is_special(&found) { access & !BitFlags::from(AccessFs::IoctlDev) } else { access };
    created.add_rule(PathBeneath::new(opened, access))
}

/// The path without symbolic links; parts that do not exist are kept as they are. Paths in /proc are returned
/// unchanged.
pub(super) fn real(path: &Path) -> PathBuf {
    if path.starts_with(OF_EACH_PROCESS) {
        return path.to_owned();
    }
    let there = path.ancestors().find_map(|there| Some((there, there.canonicalize().ok()?)));
    match there.map(|(there, real)| (path.strip_prefix(there), real)) {
        Some((Ok(rest), real)) if rest.as_os_str().is_empty() => real,
        Some((Ok(rest), real)) => real.join(rest),
        _ => path.to_owned(),
    }
}

/// Folder whose symbolic links lead elsewhere in each process and cannot be changed by anybody.
const OF_EACH_PROCESS: &str = "/proc";

/// Opens a path whose symbolic links were resolved before. Fails on a symbolic link: a server that may change the
/// surrounding folder has put it there since, to get at something else.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    if path.starts_with(OF_EACH_PROCESS) {
        return Ok(rustix::fs::open(path, flags, Mode::empty())?.into());
    }
    match rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        // An older container engine does not let this call pass.
        Err(Errno::NOSYS | Errno::PERM) if real(path) == path => {
            Ok(rustix::fs::open(path, flags | OFlags::NOFOLLOW, Mode::empty())?.into())
        }
        opened => Ok(opened?.into()),
    }
}

fn is_special(found: &Metadata) -> bool {
    let kind = found.file_type();
    found.rdev() != 0 || kind.is_socket() || kind.is_fifo()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_beforehand_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("other/below")).unwrap();
        symlink("other", root.join("link")).unwrap();
        assert_eq!(real(&root.join("link/below")), root.join("other/below"));
        assert_eq!(real(&root.join("link/not/yet")), root.join("other/not/yet"));
        assert_eq!(real(Path::new("/proc/self")), Path::new("/proc/self"));
        assert!(open(&root.join("other/below")).is_ok() && open(Path::new("/proc/self")).is_ok());
        for path in ["link", "link/below", "nothing"] {
            assert!(open(&root.join(path)).is_err(), "{path}");
        }
    }
}
