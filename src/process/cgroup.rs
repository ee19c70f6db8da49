//! Cgroups (v2) for children, where the gateway has been given a subtree: as a systemd service with `Delegate=yes`, or
//! in a container whose cgroups are writable. Invariant: nothing is touched outside the cgroup that the gateway was
//! started in, and that only if it is alone in there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::config::Resources;

/// Where the gateway itself goes: a cgroup with processes in it cannot divide its resources among others.
const OWN: &str = "sluice-gateway";
/// What the names of the children's cgroups begin with.
const CHILD: &str = "sluice-child-";
/// The period that a share of the processors is measured in, in microseconds.
const PERIOD: u64 = 100_000;

/// The subtree of this process, once [`prepare`] has found one.
static SUBTREE: OnceLock<Subtree> = OnceLock::new();
/// Cgroups that could not be removed yet.
static LEFT: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// What a cgroup can keep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Controllers {
    /// Memory.
    pub memory: bool,
    /// Processes.
    pub pids: bool,
    /// Processors.
    pub cpu: bool,
}

impl Controllers {
    fn parse(list: &str) -> Self {
        let has = |name: &str| list.split_ascii_whitespace().any(|word| word == name);
        Self { memory: has("memory"), pids: has("pids"), cpu: has("cpu") }
    }

    fn names(self) -> impl Iterator<Item = &'static str> {
        [("memory", self.memory), ("pids", self.pids), ("cpu", self.cpu)]
            .into_iter()
            .filter_map(|(n, has)| has.then_some(n))
    }
}

/// A subtree that children get cgroups in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Subtree {
    path: PathBuf,
    controllers: Controllers,
}

/// What cgroups can keep for children here; all `false` where none is delegated. Touches nothing.
pub fn available() -> Controllers {
    SUBTREE.get().cloned().or_else(|| find(Path::new("/"))).map(|subtree| subtree.controllers).unwrap_or_default()
}

/// Makes the subtree ready: the gateway moves into a cgroup of its own, beside which its children get theirs. To be
/// called once, before anything is started. Without a subtree nothing happens.
///
/// # Errors
/// There is a subtree, but it cannot be used.
pub fn prepare() -> io::Result<()> {
    let Some(subtree) = find(Path::new("/")) else { return Ok(()) };
    if let Err(error) = subtree.set_up() {
        // Nobody counts on it then.
        let _ = SUBTREE.set(Subtree { controllers: Controllers::default(), ..subtree });
        return Err(error);
    }
    // Whoever was first has the same.
    let _ = SUBTREE.set(subtree);
    Ok(())
}

/// The cgroup of this process, if it is the gateway's to divide. `root` is where the file systems are.
fn find(root: &Path) -> Option<Subtree> {
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    let own = read("proc/self/cgroup")?.lines().find_map(|line| line.strip_prefix("0::/").map(str::to_owned))?;
    let mounts = read("proc/self/mountinfo")?;
    let mount = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        after.starts_with("cgroup2 ").then(|| before.split(' ').nth(4))?.map(str::to_owned)
    })?;
    let path = root.join(mount.strip_prefix('/')?).join(own);
    let controllers = Controllers::parse(&fs::read_to_string(path.join("cgroup.controllers")).ok()?);
    let is_root = !path.join("cgroup.type").exists();
    let processes = fs::read_to_string(path.join("cgroup.procs")).ok()?;
    let is_alone = processes.split_ascii_whitespace().all(|pid| pid.parse() == Ok(std::process::id()));
    let is_writable = rustix::fs::access(&path, rustix::fs::Access::WRITE_OK).is_ok()
        && rustix::fs::access(path.join("cgroup.procs"), rustix::fs::Access::WRITE_OK).is_ok();
    (controllers != Controllers::default() && is_writable && (is_root || is_alone))
        .then_some(Subtree { path, controllers })
}

impl Subtree {
    fn set_up(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(CHILD) {
                // Left by a gateway that was killed, if nothing is in it.
                let _ = fs::remove_dir(entry.path());
            }
        }
        let own = self.path.join(OWN);
        fs::create_dir_all(&own)?;
        fs::write(own.join("cgroup.procs"), std::process::id().to_string())?;
        for name in self.controllers.names() {
            fs::write(self.path.join("cgroup.subtree_control"), format!("+{name}"))?;
        }
        Ok(())
    }

    fn child(&self, name: &str, limits: &Resources) -> io::Result<Cgroup> {
        let cgroup = Cgroup { path: self.path.join(format!("{CHILD}{name}")), memory: limits.memory };
        fs::create_dir(&cgroup.path)?;
        let set = |file: &str, value: String| fs::write(cgroup.path.join(file), value);
        if let Some(memory) = limits.memory.filter(|_| self.controllers.memory) {
            set("memory.max", memory.to_string())?;
            // All of a child ends, not the process that happened to ask last. Without swap there is no such file.
            set("memory.oom.group", "1".to_owned())?;
            let _ = set("memory.swap.max", "0".to_owned());
        }
        if let Some(processes) = limits.processes.filter(|_| self.controllers.pids) {
            set("pids.max", processes.to_string())?;
        }
        if let Some(millicores) = limits.millicores.filter(|_| self.controllers.cpu) {
            set("cpu.max", format!("{} {PERIOD}", millicores as u64 * PERIOD / 1000))?;
        }
        Ok(cgroup)
    }
}

/// A child's cgroup. Dropping it ends what is in it, and removes it.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    memory: Option<usize>,
}

impl Cgroup {
    /// One for a child with these limits; none where none is delegated, or no limit is set.
    ///
    /// # Errors
    /// The system refuses.
    pub fn make(limits: &Resources) -> io::Result<Option<Self>> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let is_limited = limits.memory.is_some() || limits.processes.is_some() || limits.millicores.is_some();
        let is_usable = |subtree: &&Subtree| is_limited && subtree.controllers != Controllers::default();
        let Some(subtree) = SUBTREE.get().filter(is_usable) else { return Ok(None) };
        let name = format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        subtree.child(&name, limits).map(Some)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The limit on memory, if the kernel ended the child for it.
    pub fn out_of_memory(&self) -> Option<u64> {
        let events = fs::read_to_string(self.path.join("memory.events")).ok()?;
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok())?;
        self.memory.filter(|_| kills > 0).map(|bytes| bytes as u64)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Before Linux 5.14 there is no such file; the guardian ends the child's processes in any case.
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        let mut left = LEFT.lock();
        left.push(std::mem::take(&mut self.path));
        // A cgroup is busy until its last process is gone: it is tried again with the next.
        left.retain(|path| fs::remove_dir(path).is_err_and(|error| error.kind() != io::ErrorKind::NotFound));
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// A file tree as the kernel shows it to a service with a delegated cgroup.
    fn machine(controllers: &str, processes: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let cgroup = root.path().join("sys/fs/cgroup/system.slice/sluice.service");
        fs::create_dir_all(&cgroup).unwrap();
        fs::create_dir_all(root.path().join("proc/self")).unwrap();
        let mounts = "29 23 0:26 / /sys rw - sysfs sysfs rw\n30 29 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        fs::write(root.path().join("proc/self/mountinfo"), mounts).unwrap();
        fs::write(root.path().join("proc/self/cgroup"), "1:name=x:/\n0::/system.slice/sluice.service\n").unwrap();
        fs::write(cgroup.join("cgroup.controllers"), controllers).unwrap();
        fs::write(cgroup.join("cgroup.procs"), processes).unwrap();
        fs::write(cgroup.join("cgroup.type"), "domain\n").unwrap();
        root
    }

    #[test]
    fn a_delegated_cgroup_is_found_and_divided() {
        let own = format!("{}\n", std::process::id());
        let root = machine("cpu io memory pids\n", &own);
        let subtree = find(root.path()).unwrap();
        assert_eq!(subtree.controllers, Controllers { memory: true, pids: true, cpu: true });
        fs::create_dir(subtree.path.join("sluice-child-left")).unwrap();
        subtree.set_up().unwrap();
        assert!(!subtree.path.join("sluice-child-left").exists());
        let read = |file: &str| fs::read_to_string(subtree.path.join(file)).unwrap();
        assert_eq!(read("sluice-gateway/cgroup.procs").trim(), own.trim());
        assert_eq!(read("cgroup.subtree_control"), "+cpu");
        let limits =
            Resources { memory: Some(1 << 20), millicores: Some(1500), processes: Some(7), ..Resources::default() };
        let child = subtree.child("1", &limits).unwrap();
        for (file, value) in
            [("memory.max", "1048576"), ("memory.oom.group", "1"), ("pids.max", "7"), ("cpu.max", "150000 100000")]
        {
            assert_eq!(read(&format!("sluice-child-1/{file}")), value);
        }
        assert_eq!(child.out_of_memory(), None);
        fs::write(child.path().join("memory.events"), "low 0\noom 1\noom_kill 2\n").unwrap();
        assert_eq!(child.out_of_memory(), Some(1 << 20));
    }

    #[test]
    fn a_cgroup_that_is_not_the_gateways_alone_is_left_alone() {
        let own = std::process::id();
        assert_eq!(find(machine("memory", &format!("1\n{own}\n")).path()), None);
        assert_eq!(find(machine("", &own.to_string()).path()), None);
        assert!(find(machine("memory", &own.to_string()).path()).is_some());
        assert_eq!(find(Path::new("/nonexistent")), None);
    }
}
