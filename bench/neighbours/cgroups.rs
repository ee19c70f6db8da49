//! Cgroups (v2) that keep attackers from the processors: one for them, and one for each gateway, below which the gateway makes
//! those of its children.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Half a processor, in microseconds of each 100 ms.
const HALF: &str = "50000 100000";

/// A cgroup that this process may divide.
#[derive(Debug)]
pub(crate) struct Cgroups {
    folder: PathBuf,
    gateways: AtomicUsize,
}

impl Cgroups {
    /// Divides the cgroup at `folder`, in which no process may be.
    pub(crate) fn below(folder: &Path) -> io::Result<Self> {
        fs::write(folder.join("cgroup.subtree_control"), "+cpu +memory +pids")?;
        let attackers = folder.join("attackers");
        fs::create_dir_all(&attackers)?;
        fs::write(attackers.join("cpu.max"), HALF)?;
        Ok(Self { folder: folder.to_owned(), gateways: AtomicUsize::new(0) })
    }

    /// A command that runs `program` as an attacker: all of them have half a processor together.
    pub(crate) fn attacker(&self, program: &Path) -> Command {
        enter(&self.folder.join("attackers"), program)
    }

    /// A command that runs `program` as a gateway, in a cgroup of its own.
    pub(crate) fn gateway(&self, program: &Path) -> io::Result<Command> {
        let folder = self.folder.join(format!("gateway-{}", self.gateways.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&folder)?;
        Ok(enter(&folder, program))
    }
}

fn enter(folder: &Path, program: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", r#"echo $$ >"$0/cgroup.procs" && exec "$@""#]).arg(folder).arg(program);
    command
}
