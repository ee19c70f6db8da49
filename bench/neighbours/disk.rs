//! A file system that an attacker can fill: a small one in memory.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A mounted tmpfs. It is unmounted when this is dropped.
#[derive(Debug)]
pub(crate) struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts a tmpfs of 8 MiB and 2,000 files at a new folder below `folder`. Fails where this process may not mount.
    pub(crate) fn mount(folder: &Path) -> io::Result<Self> {
        let path = folder.join("small");
        std::fs::create_dir(&path)?;
        let options = "size=8m,nr_inodes=2000,mode=755";
        run(Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&path))?;
        Ok(Self { path })
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("-l").arg(&self.path));
    }
}

fn run(command: &mut Command) -> io::Result<()> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("mount ended with {status}"))) }
}
