//! The gateway's folder for the cgroups of its children, below the cgroup that the gateway was started in.
//!
//! The folder is locked as long as the gateway lives. A folder without a lock was left by a gateway that was killed
//! together with its guardian: all processes in it are killed, and the folder is removed.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};

use super::group::{self, below, folders, kill, processes, remove, write};
use super::{Controllers, Limits};
use crate::config::{Resources, TenantId};
use crate::process::random_name::random_name;

/// Cgroup for the gateway's own process. A cgroup that divides resources among others may contain no process itself.
const OWN: &str = "sluice-gateway";
/// Start of the name of every gateway's folder.
const PREFIX: &str = "sluice-children-";
/// Start of the name of every tenant's cgroup.
const TENANT: &str = "tenant-";
/// Time limit for killed processes to disappear.
const GONE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);
/// Most attempts to make the folder, which another starting gateway may remove before it is locked.
const ATTEMPTS: usize = 100;
/// Most levels of cgroups below the folder.
const MAX_DEPTH: &str = "32";
/// Most cgroups below the folder in all.
const MAX_DESCENDANTS: &str = "65536";

/// What cgroups can do for children on this machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Support {
    /// Whether each child gets a cgroup, so that all it has started ends with it.
    pub ends: bool,
    /// The limits that the child's cgroup enforces.
    pub keeps: Controllers,
}

impl fmt::Display for Support {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.keeps.names().collect();
        match (self.ends, names.as_slice()) {
            (false, _) => f.write_str("none: the gateway can make no cgroup here; limits are watched"),
            (true, []) => {
                f.write_str("each child ends with all that is in its own; no controllers: limits are watched")
            }
            (true, names) => write!(f, "each child ends with all that is in its own; they keep {}", names.join(", ")),
        }
    }
}

/// Finds out what cgroups can do here, without changing anything.
pub fn support() -> Support {
    find(Path::new("/")).map(|place| Support { ends: true, keeps: place.controllers }).unwrap_or_default()
}

/// A cgroup below which this process may make others.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    path: PathBuf,
    /// The controllers that can be delegated to cgroups below.
    controllers: Controllers,
}

/// The gateway's folder.
#[derive(Debug)]
pub struct Subtree {
    path: PathBuf,
    /// The limits that cgroups in this folder can enforce.
    pub(in crate::process) controllers: Controllers,
    /// The tenants whose children have a common cgroup.
    tenants: Mutex<BTreeSet<TenantId>>,
    lock: File,
}

/// Finds the cgroup of this process; `None` if no cgroups can be made below it. Without controllers if other processes
/// are in it. `root` is the root of the file systems.
fn find(root: &Path) -> Option<Place> {
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    let own = read("proc/self/cgroup")?.lines().find_map(|line| line.strip_prefix("0::").map(str::to_owned))?;
    let mounts = read("proc/self/mountinfo")?;
    let (top, mount) = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        after.starts_with("cgroup2 ").then_some((fields.next()?.to_owned(), fields.next()?.to_owned()))
    })?;
    // What is mounted may be a part of the whole.
    let below = Path::new(&own).strip_prefix(top).ok()?.to_owned();
    let path = root.join(mount.strip_prefix('/')?).join(below);
    // The root of all has no type. In a threaded one, whole processes cannot be moved.
    let kind = fs::read_to_string(path.join("cgroup.type")).ok();
    let is_usable = kind.as_ref().is_none_or(|kind| kind.trim() == "domain");
    let may_write = |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
    if !is_usable || !may_write(&path) || !may_write(&path.join("cgroup.procs")) {
        return None;
    }
    let is_alone = processes(&path).iter().all(|pid| pid.cast_unsigned() == std::process::id());
    let controllers = match kind.is_none() || is_alone {
        true => Controllers::parse(&fs::read_to_string(path.join("cgroup.controllers")).ok()?),
        // Somebody else is in there: it is not the gateway's to divide.
        false => Controllers::default(),
    };
    Some(Place { path, controllers })
}

impl Subtree {
    /// Makes the gateway's folder, and cleans up what killed gateways have left. Call it once, before anything is
    /// started. `None` if no cgroups can be made.
    ///
    /// # Errors
    /// The system refuses.
    pub fn prepare() -> io::Result<Option<Self>> {
        let Some(place) = find(Path::new("/")) else { return Ok(None) };
        remove_abandoned(&place.path);
        let divided = place.divide();
        let controllers = if divided.is_ok() { place.controllers } else { Controllers::default() };
        if let Err(error) = divided {
            tracing::warn!(%error, "the gateway's cgroup cannot be divided: limits are watched instead");
        }
        Self::make(&place.path, controllers).map(Some)
    }

    fn make(parent: &Path, controllers: Controllers) -> io::Result<Self> {
        for _ in 1..ATTEMPTS {
            match Self::try_make(parent, controllers) {
                Ok(Some(subtree)) => return Ok(subtree),
                Err(error) if !is_taken(&error) => return Err(error),
                // Until it is locked, another gateway may take it for abandoned.
                Ok(None) | Err(_) => {}
            }
        }
        Self::try_make(parent, controllers)?.ok_or_else(|| io::Error::other("others remove it each time"))
    }

    /// Makes and locks the folder. `None` if another gateway removed it before it was locked.
    fn try_make(parent: &Path, controllers: Controllers) -> io::Result<Option<Self>> {
        let path = parent.join(format!("{PREFIX}{}", random_name()?));
        fs::create_dir(&path)?;
        let Some(lock) = lock(&path)?.filter(|_| path.exists()) else { return Ok(None) };
        // Who may write in there makes no more than can be walked through. A kernel may not know how to keep it.
        let _ = write(&path.join("cgroup.max.depth"), MAX_DEPTH);
        let _ = write(&path.join("cgroup.max.descendants"), MAX_DESCENDANTS);
        let subtree = Self { path, controllers, tenants: Mutex::default(), lock };
        pass_on(&subtree.path, controllers)?;
        Ok(Some(subtree))
    }

    /// The path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What cgroups in this folder do for children.
    pub fn support(&self) -> Support {
        Support { ends: true, keeps: self.controllers }
    }

    /// Makes a common cgroup for all children of `tenant`, if `limits` contains a limit that it can enforce. Where the
    /// tenant has one already, sets its limits to `limits`.
    ///
    /// # Errors
    /// The system refuses.
    pub fn limit_tenant(&self, tenant: &TenantId, limits: &Resources) -> io::Result<()> {
        let (limits, path) = (Limits::of(limits, self.controllers), tenant_folder(&self.path, tenant.as_str()));
        if self.limits_tenant(tenant) {
            return group::limit_anew(&path, &limits.unwrap_or_default());
        }
        let Some(limits) = limits else { return Ok(()) };
        fs::create_dir(&path)?;
        group::limit(&path, &limits)?;
        pass_on(&path, self.controllers)?;
        self.tenants.lock().insert(tenant.clone());
        Ok(())
    }

    /// Whether the children of `tenant` have a common cgroup.
    pub fn limits_tenant(&self, tenant: &TenantId) -> bool {
        self.tenants.lock().contains(tenant)
    }

    /// The process ids of each cgroup in the folder, empty cgroups left out.
    pub(in crate::process) fn groups(&self) -> Vec<BTreeSet<i32>> {
        let mut groups: Vec<_> = below(&self.path).iter().map(|path| processes(path)).collect();
        groups.retain(|group| !group.is_empty());
        groups
    }

    /// Kills all processes in the folder.
    pub(in crate::process) fn kill(&self) {
        kill(&self.path);
    }

    /// Unlocks the folder, so that the guardian can remove it.
    pub(in crate::process) fn leave(&self) {
        let _ = self.lock.unlock();
    }

    /// Kills what is left in the folder and removes it. Blocks up to 5 seconds.
    pub(in crate::process) fn remove(&self) {
        if let Err(error) = clear(&self.path) {
            tracing::error!(cgroup = %self.path.display(), %error, "a cgroup could not be removed");
        }
    }
}

/// Removes the folder unless it is in use; then the guardian removes it.
impl Drop for Subtree {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

impl Place {
    /// Prepares the cgroup for others that enforce limits: moves the gateway into a cgroup of its own, and delegates
    /// the controllers. No effect without controllers.
    fn divide(&self) -> io::Result<()> {
        if self.controllers == Controllers::default() {
            return Ok(());
        }
        let own = self.path.join(OWN);
        fs::create_dir_all(&own)?;
        write(&own.join("cgroup.procs"), &std::process::id().to_string())?;
        pass_on(&self.path, self.controllers)
    }
}

/// The path of a tenant's cgroup in a gateway's folder.
pub(in crate::process) fn tenant_folder(subtree: &Path, tenant: &str) -> PathBuf {
    subtree.join(format!("{TENANT}{tenant}"))
}

/// Delegates controllers to the cgroups below a cgroup.
fn pass_on(path: &Path, controllers: Controllers) -> io::Result<()> {
    controllers.names().try_for_each(|name| write(&path.join("cgroup.subtree_control"), &format!("+{name}")))
}

/// Removes the folder of a gateway that is gone; also true if there is no folder. `false` if the gateway lives, or
/// processes are left in the folder.
pub(in crate::process) fn remove_if_left(path: &Path) -> bool {
    match lock(path) {
        Ok(lock) => lock.is_some() && remove(path),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Whether an error shows that somebody else has removed a cgroup or is about to.
fn is_taken(error: &io::Error) -> bool {
    [libc::ENOENT, libc::ENODEV, libc::EBUSY, libc::EEXIST].map(Some).contains(&error.raw_os_error())
}

/// Kills what killed gateways have left below `parent` and removes their folders. Failures are logged and do not matter
/// to this gateway.
fn remove_abandoned(parent: &Path) {
    let is_ours = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
    for path in folders(parent).into_iter().filter(is_ours) {
        // Without a lock its gateway lives, or it has gone meanwhile.
        let swept = lock(&path).and_then(|lock| lock.map_or(Ok(()), |_lock| clear(&path)));
        if let Err(error) = swept
            && !is_taken(&error)
        {
            tracing::warn!(cgroup = %path.display(), %error, "a cgroup that an earlier gateway left could not be removed");
        }
    }
}

/// Kills everything in a cgroup and removes it. Blocks up to 5 seconds.
#[expect(clippy::disallowed_methods, reason = "before there is a runtime, or on a thread that may block")]
fn clear(path: &Path) -> io::Result<()> {
    let deadline = Instant::now() + GONE;
    kill(path);
    while !remove(path) {
        if Instant::now() >= deadline {
            let text = format!("{}: what is in there does not end", path.display());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        // On a thread that may block: nobody is told when the last process in there is gone for good.
        std::thread::sleep(POLL);
        kill(path);
    }
    Ok(())
}

/// Locks a folder. `None` if somebody else holds the lock.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const SERVICE: &str = "sys/fs/cgroup/system.slice/sluice.service";

    /// Makes a file tree that looks like the kernel's to a service.
    fn machine(controllers: &str, processes: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let cgroup = root.path().join(SERVICE);
        fs::create_dir_all(&cgroup).unwrap();
        fs::create_dir_all(root.path().join("proc/self")).unwrap();
        let mounts = "29 23 0:26 / /sys rw - sysfs sysfs rw\n30 29 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        fs::write(root.path().join("proc/self/mountinfo"), mounts).unwrap();
        fs::write(root.path().join("proc/self/cgroup"), "1:name=x:/\n0::/system.slice/sluice.service\n").unwrap();
        fs::write(cgroup.join("cgroup.controllers"), controllers).unwrap();
        fs::write(cgroup.join("cgroup.procs"), processes).unwrap();
        fs::write(cgroup.join("cgroup.type"), "domain\n").unwrap();
        fs::write(cgroup.join("cgroup.subtree_control"), "").unwrap();
        root
    }

    #[test]
    fn a_delegated_cgroup_is_found_and_divided() {
        let own = std::process::id().to_string();
        let root = machine("cpu io memory pids\n", &own);
        let place = find(root.path()).unwrap();
        assert_eq!(place.path, root.path().join(SERVICE));
        assert_eq!(place.controllers, Controllers { memory: true, pids: true, cpu: true });
        fs::create_dir(place.path.join(OWN)).unwrap();
        fs::write(place.path.join(OWN).join("cgroup.procs"), "").unwrap();
        place.divide().unwrap();
        let read = |file: &str| fs::read_to_string(place.path.join(file)).unwrap();
        assert_eq!(read("sluice-gateway/cgroup.procs"), own);
        // Written one after the other.
        assert_eq!(read("cgroup.subtree_control").matches('+').count(), 1);
    }

    #[test]
    fn a_cgroup_that_is_not_the_gateways_alone_is_not_divided() {
        let own = std::process::id();
        let found = |controllers: &str, processes: String| find(machine(controllers, &processes).path());
        let shared = found("memory", format!("1\n{own}\n")).unwrap();
        assert_eq!(shared.controllers, Controllers::default());
        assert!(found("memory", own.to_string()).unwrap().controllers.memory);
        assert_eq!(find(Path::new("/nonexistent")), None);
        let threaded = machine("", &own.to_string());
        fs::write(threaded.path().join(SERVICE).join("cgroup.type"), "threaded\n").unwrap();
        assert_eq!(find(threaded.path()), None);
    }

    #[test]
    fn a_part_of_the_hierarchy_may_be_what_is_mounted() {
        let root = machine("", "");
        let mounts = "30 29 0:27 /system.slice /sys/fs/cgroup/system.slice rw - cgroup2 cgroup2 rw\n";
        fs::write(root.path().join("proc/self/mountinfo"), mounts).unwrap();
        assert_eq!(find(root.path()).unwrap().path, root.path().join(SERVICE));
    }

    #[test]
    fn a_sweep_takes_what_nobody_holds() {
        let parent = tempfile::tempdir().unwrap();
        let held = Subtree::make(parent.path(), Controllers::default()).unwrap();
        let other = parent.path().join("other");
        let left = parent.path().join(format!("{PREFIX}left"));
        fs::create_dir_all(left.join("tenant-a/7")).unwrap();
        fs::create_dir(&other).unwrap();
        remove_abandoned(parent.path());
        assert!(held.path().exists() && other.exists() && !left.exists());
        assert!(!remove_if_left(held.path()));
        held.remove();
        assert!(!held.path().exists());
    }

    #[test]
    fn gateways_that_start_at_once_lose_no_cgroup_to_each_other() {
        let parent = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let start = || {
                for _ in 0..200 {
                    remove_abandoned(parent.path());
                    assert!(Subtree::make(parent.path(), Controllers::default()).unwrap().path().exists());
                }
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }
}
