//! Encloses a process in paths, by Landlock: what is not listed can be neither read nor executed nor changed, and the
//! processes outside cannot be traced. Signals and abstract sockets stay inside where the kernel knows how.

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

/// What a process can reach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enclosure {
    /// Files and folders to read and execute. One that is not there is left out.
    pub read: Vec<PathBuf>,
    /// Files and folders to change as well. One that is not there is left out.
    pub write: Vec<PathBuf>,
    /// Those of them that have to be there.
    pub needed: Vec<PathBuf>,
    /// Devices without a state, to read and write.
    pub devices: Vec<PathBuf>,
    /// Whether it may connect TCP sockets, and listen on a port that the kernel chooses.
    pub network: bool,
    /// Whether it may listen on any port that is free, where it has the network.
    pub listen: bool,
    /// Whether it may connect to sockets anywhere in the file system: otherwise to those that it can change only, as of
    /// Landlock 9.
    pub sockets: bool,
}

impl Enclosure {
    /// Follows all links, for none is followed when it is put in force.
    pub(super) fn follow_links(&mut self) {
        for paths in [&mut self.read, &mut self.write, &mut self.devices] {
            paths.iter_mut().for_each(|path| *path = real(path));
        }
    }

    /// Leaves out what is listed twice, and from what is read what can be changed anyway.
    pub(super) fn tidy(&mut self) {
        for paths in [&mut self.read, &mut self.write, &mut self.devices] {
            paths.sort();
            paths.dedup();
        }
        let write = &self.write;
        self.read.retain(|path| write.binary_search(path).is_err());
    }
}

/// Encloses the calling thread, which must have no-new-privileges, and all that it starts. Says which version of
/// Landlock this kernel enforces: 0 for none.
///
/// # Errors
/// A needed path cannot be opened, or the system refuses.
pub fn enclose(enclosure: &Enclosure) -> Result<u8, SandboxError> {
    for path in &enclosure.needed {
        open(path).map_err(|error| SandboxError::Path { path: path.clone(), error })?;
    }
    let status = ruleset(enclosure)
        .and_then(RulesetCreated::restrict_self)
        .map_err(|error| SandboxError::refused("Landlock")(&error))?;
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

/// Allows a path. A file takes the rights of a file only.
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

/// Where a path leads, be it there or not. What the kernel links for each process by itself stays as it is.
fn real(path: &Path) -> PathBuf {
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

/// LimitOwner links nobody can change, and lead elsewhere in every process.
const OF_EACH_PROCESS: &str = "/proc";

/// Opens what is at a path, in which all links have been followed already: another link has been put there since, by a
/// server that may change what is around it, and leads to what it is not to reach.
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
