//! Removes a folder with all that a child has left in it, however deep, wide or hostile that is. Invariants: the work takes
//! four descriptors, and no stack or memory that grows with what is removed; no link is followed, no mount entered; and
//! nothing is removed that was not below the folder, though a process of the child still runs and moves things about.
//!
//! A folder in a folder is not descended into: it is moved up, right below the one that is emptied, and then emptied like
//! its neighbours. So no path gets long, and there is no way back up that somebody could lead elsewhere.

use std::ffi::{CStr, CString};
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::rc::Rc;
use std::time::Instant;

use rustix::fs::{AtFlags, Dir, FileType, IFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// A folder, as itself, whatever rights there are to it. A link is none.
const PATH_ONLY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What came of a removal.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Nothing is left.
    Done,
    /// The time is over, and there is more to remove.
    Unfinished,
    /// Something cannot be removed; all else is.
    Failed(io::Error),
}

/// Removes the folder `name` in `parent`, until `deadline`. It can be called again as often as it takes.
pub(super) fn remove(parent: impl AsFd, name: &CStr, deadline: Instant) -> Outcome {
    let parent = parent.as_fd();
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Outcome::Done,
        Err(_) => {}
    }
    let emptied = enter(parent, name).map_err(io::Error::from).and_then(|folder| Emptying::begin(folder, deadline));
    match emptied.and_then(Emptying::run) {
        Ok(Outcome::Done) => {}
        Ok(outcome) => return outcome,
        Err(error) => return Outcome::Failed(error),
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Outcome::Done,
        // Somebody has put something in again.
        Err(Errno::NOTEMPTY | Errno::EXIST) => Outcome::Unfinished,
        Err(error) => Outcome::Failed(error.into()),
    }
}

/// A folder that is being emptied.
struct Emptying {
    top: Rc<OwnedFd>,
    deadline: Instant,
    /// The name that the next folder gets which is moved up.
    next: u64,
    has_removed: bool,
    failure: Option<io::Error>,
}

/// Whether to go on.
#[derive(PartialEq, Eq)]
enum Go {
    On,
    /// The time is over.
    Late,
}

/// What became of an entry.
enum Entry {
    /// It is removed, or was not there any more.
    Gone,
    /// It is a folder with something in it.
    Folder,
}

impl Emptying {
    fn begin(top: OwnedFd, deadline: Instant) -> io::Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        // What is moved up into it is for nobody else, though it were so before.
        if rustix::fs::fstat(&top)?.st_mode & 0o7777 != 0o700 {
            close(&top)?;
        }
        Ok(Self { top: Rc::new(top), deadline, next: u64::from_ne_bytes(random), has_removed: false, failure: None })
    }

    /// Goes through the folder again and again, as long as that removes anything.
    fn run(mut self) -> io::Result<Outcome> {
        let top = Rc::clone(&self.top);
        loop {
            (self.has_removed, self.failure) = (false, None);
            let mut is_empty = true;
            let mut list = list(&top)?;
            while let Some(entry) = list.read() {
                let entry = entry?;
                let name = entry.file_name();
                if is_dots(name) {
                    continue;
                }
                is_empty = false;
                if self.entry(&top, name, entry.file_type(), Self::empty) == Go::Late {
                    return Ok(Outcome::Unfinished);
                }
            }
            match (is_empty, self.has_removed, self.failure.take()) {
                (true, ..) => return Ok(Outcome::Done),
                (false, false, Some(error)) => return Ok(Outcome::Failed(error)),
                (false, false, None) => return Ok(Outcome::Unfinished),
                (false, true, _) => {}
            }
        }
    }

    /// Removes an entry of `folder`, or does what is to be done with a folder that is not empty.
    fn entry(
        &mut self,
        folder: &OwnedFd,
        name: &CStr,
        kind: FileType,
        with_folder: impl FnOnce(&mut Self, &OwnedFd, &CStr) -> io::Result<Go>,
    ) -> Go {
        if Instant::now() >= self.deadline {
            return Go::Late;
        }
        let done = match unlink(folder, name, kind) {
            Ok(Entry::Gone) => {
                self.has_removed = true;
                return Go::On;
            }
            Ok(Entry::Folder) => with_folder(self, folder, name),
            Err(error) => Err(error.into()),
        };
        done.unwrap_or_else(|error| {
            // What has changed meanwhile is looked at again in the next round.
            let has_changed = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP].map(Errno::raw_os_error).map(Some);
            if !has_changed.contains(&error.raw_os_error()) {
                self.failure.get_or_insert(error);
            }
            Go::On
        })
    }

    /// Empties a folder that is right below the top one, and removes it.
    fn empty(&mut self, top: &OwnedFd, name: &CStr) -> io::Result<Go> {
        let folder = enter(top, name)?;
        grant(&folder)?;
        let mut list = list(&folder)?;
        while let Some(entry) = list.read() {
            let entry = entry?;
            let below = entry.file_name();
            if !is_dots(below) && self.entry(&folder, below, entry.file_type(), Self::lift) == Go::Late {
                return Ok(Go::Late);
            }
        }
        self.remove_emptied(top, name)?;
        Ok(Go::On)
    }

    /// Moves a folder up, to be emptied in its turn.
    fn lift(&mut self, folder: &OwnedFd, name: &CStr) -> io::Result<Go> {
        let lifted = self.try_lift(folder, name).or_else(|error| match error {
            // To move a folder takes the right to write to it, as its ".." changes.
            Errno::ACCESS | Errno::PERM => {
                let below = enter(folder, name)?;
                grant(&below).map_err(|_| error)?;
                thaw(&below);
                self.try_lift(folder, name)
            }
            error => Err(error),
        });
        match lifted {
            Ok(()) => {
                self.has_removed = true;
                Ok(Go::On)
            }
            // The file system has no room for one more name up there, or does not move it there.
            Err(Errno::NOSPC | Errno::DQUOT | Errno::XDEV | Errno::MLINK) => self.dig(folder, name),
            Err(error) => Err(error.into()),
        }
    }

    fn try_lift(&mut self, folder: &OwnedFd, name: &CStr) -> rustix::io::Result<()> {
        self.next = self.next.wrapping_add(1);
        rustix::fs::renameat(folder, name, &*self.top, format!("{:016x}", self.next))
    }

    /// Goes down from a folder that cannot be moved to one with no folder in it, and removes all else on the way, and that
    /// one.
    fn dig(&mut self, folder: &OwnedFd, name: &CStr) -> io::Result<Go> {
        let (mut parent, mut name) = (folder.try_clone()?, name.to_owned());
        loop {
            let folder = enter(&parent, &name)?;
            grant(&folder)?;
            let mut below: Option<CString> = None;
            let mut list = list(&folder)?;
            while let Some(entry) = list.read() {
                let entry = entry?;
                if is_dots(entry.file_name()) {
                    continue;
                }
                match unlink(&folder, entry.file_name(), entry.file_type()) {
                    Ok(Entry::Gone) => self.has_removed = true,
                    Ok(Entry::Folder) if below.is_none() => below = Some(entry.file_name().to_owned()),
                    Ok(Entry::Folder) => {}
                    Err(error) => {
                        self.failure.get_or_insert(error.into());
                    }
                }
            }
            match below {
                Some(below) => (parent, name) = (folder, below),
                None => return self.remove_emptied(&parent, &name).map(|()| Go::On),
            }
        }
    }

    fn remove_emptied(&mut self, parent: &OwnedFd, name: &CStr) -> io::Result<()> {
        match unlink(parent, name, FileType::Directory)? {
            Entry::Gone => self.has_removed = true,
            // Something in it could not be removed, or is new.
            Entry::Folder => {}
        }
        Ok(())
    }
}

fn is_dots(name: &CStr) -> bool {
    [c".", c".."].contains(&name)
}

/// Removes what is no folder, or an empty one. `kind` is a hint, which may be old.
fn unlink(folder: &OwnedFd, name: &CStr, kind: FileType) -> rustix::io::Result<Entry> {
    let file = || rustix::fs::unlinkat(folder, name, AtFlags::empty());
    let directory = || rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR);
    let once = || match kind {
        FileType::Directory => match directory() {
            Err(Errno::NOTDIR) => file(),
            done => done,
        },
        _ => match file() {
            Err(Errno::ISDIR) => directory(),
            done => done,
        },
    };
    let done = match once() {
        Err(error @ Errno::PERM) => {
            // Where this process may, it takes the attributes away that keep a file, or what is in a folder, as it is.
            let is_thawed = thaw(folder) | thaw_entry(folder, name);
            if is_thawed { once() } else { Err(error) }
        }
        done => done,
    };
    match done {
        Ok(()) | Err(Errno::NOENT) => Ok(Entry::Gone),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(Entry::Folder),
        Err(error) => Err(error),
    }
}

/// The folder of this name: no link to one, nor one in which another file system is mounted.
pub(super) fn enter(parent: impl AsFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let parent = parent.as_fd();
    let inside = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    match rustix::fs::openat2(parent, name, PATH_ONLY, Mode::empty(), inside) {
        // Before Linux 5.6, or where a container's engine does not know it.
        Err(Errno::NOSYS | Errno::PERM) => {
            let folder = rustix::fs::openat(parent, name, PATH_ONLY, Mode::empty())?;
            let is_inside = mount_of(&folder).is_some_and(|mount| Some(mount) == mount_of(parent));
            if is_inside { Ok(folder) } else { Err(Errno::XDEV) }
        }
        entered => entered,
    }
}

/// The number of the mount that an open folder is in. The number of its device is no use: a bind mount has that of its source.
fn mount_of(folder: impl AsFd) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", folder.as_fd().as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()
}

/// Lists a folder from its beginning.
fn list(folder: &OwnedFd) -> io::Result<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(Dir::new(rustix::fs::openat(folder, ".", flags, Mode::empty())?)?)
}

/// Gives the owner back the rights that a child took from its own folder.
pub(super) fn grant(folder: impl AsFd) -> io::Result<()> {
    let folder = folder.as_fd();
    if rustix::fs::fstat(folder)?.st_mode & 0o700 == 0o700 { Ok(()) } else { close(folder) }
}

/// Gives all rights to the owner, and none to others.
fn close(folder: impl AsFd) -> io::Result<()> {
    // The descriptor is of the path only: that is changed by way of /proc, which leads to the folder itself.
    std::fs::set_permissions(format!("/proc/self/fd/{}", folder.as_fd().as_raw_fd()), Permissions::from_mode(0o700))
}

/// Takes the attributes "immutable" and "append only" from a folder. `false` if it has none, or this process may not.
fn thaw(folder: &OwnedFd) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(folder, ".", flags, Mode::empty()).is_ok_and(|file| take_attributes(&file))
}

/// The same for what is in a folder. Only files and folders have attributes; to open anything else may have effects.
fn thaw_entry(folder: &OwnedFd, name: &CStr) -> bool {
    let kind = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map(|found| found.st_mode);
    let has_attributes = |mode| [FileType::RegularFile, FileType::Directory].contains(&FileType::from_raw_mode(mode));
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    kind.is_ok_and(has_attributes)
        && rustix::fs::openat(folder, name, flags, Mode::empty()).is_ok_and(|file| take_attributes(&file))
}

fn take_attributes(file: &OwnedFd) -> bool {
    let fixed = IFlags::IMMUTABLE | IFlags::APPEND;
    rustix::fs::ioctl_getflags(file)
        .is_ok_and(|flags| flags.intersects(fixed) && rustix::fs::ioctl_setflags(file, flags - fixed).is_ok())
}

/// Opens a folder to lock or list it. Never follows a link that somebody put in its place.
pub(super) fn open(parent: impl AsFd, name: &CStr) -> io::Result<File> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(parent, name, flags, Mode::empty())?))
}

#[cfg(test)]
mod tests;
