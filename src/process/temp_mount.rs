//! A file system in memory for a child's temporary folder, where the gateway may mount one. Invariant: it is in a mount
//! namespace of the child's alone, so that nobody has to unmount it: it goes with the last process of the child, by whatever
//! means that ends.

use std::io;
use std::path::PathBuf;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use crate::config::{Account, TempLimits};

/// What to mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TempMount {
    path: PathBuf,
    bytes: u64,
    files: u64,
    /// LimitOwner it is.
    owner: Option<(u32, u32)>,
}

impl TempMount {
    /// For the folder at a path: where its size is configured, as that is memory then, and this process may mount.
    pub(super) fn wanted(path: PathBuf, limits: &TempLimits, owner: Option<&Account>) -> Option<Self> {
        let bytes = limits.size.filter(|_| can_mount())? as u64;
        Some(Self { path, bytes, files: limits.files as u64, owner: owner.map(|owner| (owner.uid, owner.gid)) })
    }

    /// Mounts it, seen by this process and all that it starts.
    ///
    /// # Errors
    /// The system refuses. The folder stays what it was then, and is watched.
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

/// Whether this process may mount.
pub(super) fn can_mount() -> bool {
    rustix::process::geteuid().is_root()
        && rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}
