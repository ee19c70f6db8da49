//! Encloses a process in paths, by Landlock: what is not listed can be neither read nor executed nor changed, and the
//! processes outside cannot be traced. Signals and abstract sockets stay inside where the kernel knows how.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreated, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};
use serde::{Deserialize, Serialize};

use super::SandboxError;

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
    /// Whether it may bind and connect TCP sockets.
    pub network: bool,
    /// Whether it may connect to sockets anywhere in the file system: otherwise to those that it can change only, as of
    /// Landlock 9.
    pub sockets: bool,
}

impl Enclosure {
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
        PathFd::new(path).map_err(|error| {
            let error = std::error::Error::source(&error).map_or_else(
                || std::io::Error::other(error.to_string()),
                |source| std::io::Error::other(source.to_string()),
            );
            SandboxError::Path { path: path.clone(), error }
        })?;
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
    if !enclosure.network {
        ruleset = ruleset.handle_access(AccessNet::from_all(ABI::V10))?;
    }
    let mut created = ruleset.create()?;
    for (paths, access) in [(&enclosure.read, read), (&enclosure.write, write), (&enclosure.devices, device)] {
        for path in paths {
            created = allow(created, path, access)?;
        }
    }
    Ok(created)
}

/// Allows a path. A file takes the rights of a file only.
fn allow(created: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated, RulesetError> {
    let (Ok(found), Ok(descriptor)) = (path.metadata(), PathFd::new(path)) else { return Ok(created) };
    let access = if found.is_dir() { access } else { access & AccessFs::from_file(ABI::V9) };
    // A socket or a device among the paths is no reason to speak to the disk behind it.
    let access = if is_special(&found) { access & !BitFlags::from(AccessFs::IoctlDev) } else { access };
    created.add_rule(PathBeneath::new(descriptor, access))
}

fn is_special(found: &Metadata) -> bool {
    let kind = found.file_type();
    found.rdev() != 0 || kind.is_socket() || kind.is_fifo()
}
