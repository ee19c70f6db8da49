//! A tmpfs for the temporary folder of a child, where the gateway has the right to mount. Invariant: the mount is in a
//! mount namespace of the child alone, so the kernel removes it with the last process of the child.

use std::io;
use std::path::PathBuf;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use crate::config::{Account, TempLimits};

/// A tmpfs to mount: where, how large, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TempMount {
    path: PathBuf,
    bytes: u64,
    files: u64,
    /// User id and group id of the owner; `None` for root.
    owner: Option<(u32, u32)>,
}

impl TempMount {
    /// The mount for the folder `path`. `None` if the size of the folder is not configured, as a tmpfs takes memory, or
    /// if this process has no right to mount.
    pub(super) fn wanted(path: PathBuf, limits: &TempLimits, owner: Option<&Account>) -> Option<Self> {
        let bytes = limits.size.filter(|_| can_mount())? as u64;
        Some(Self { path, bytes, files: limits.files as u64, owner: owner.map(|owner| (owner.uid, owner.gid)) })
    }

    /// Mounts the tmpfs, in a new mount namespace of this process and all that it starts.
    ///
    /// # Errors
    /// The system refuses. The folder remains as it was, and the gateway has to watch its size.
    pub(super) fn enter(&self) -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        // What the system mounts later arrives here; what is mounted here stays here.
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?;
        let (uid, gid) = self.owner.unwrap_or_default();
        let options = format!("size={},nr_inodes={},mode=0700,uid={uid},gid={gid}", self.bytes, self.files);
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        Ok(mount(Some("tmpfs"), &self.path, Some("tmpfs"), flags, Some(&*options))?)
    }
}

/// Whether this process has the right to mount.
pub(super) fn can_mount() -> bool {
    rustix::process::geteuid().is_root()
        && rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}
