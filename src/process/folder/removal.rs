//! Removes a folder with everything in it, however deep, wide or hostile the content is. Invariants: the work takes
//! four descriptors, and neither stack nor memory grows with the content; no symbolic link is followed and no mount
//! entered; nothing outside of the folder is removed, even while a process of the child still moves files about.
//!
//! Nested folders are not descended into. A folder inside a folder is first moved up, right below the folder being
//! emptied, and emptied in its turn. So no path gets long, and there is no way back up that another process could
//! redirect.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::ops::ControlFlow::{self, Break, Continue};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use rustix::fs::{AtFlags, Dir, FileType, IFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::process::pinned_folder::{PATH_ONLY, set_mode};

/// Flags to open a folder for listing.
pub(super) const LISTING: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The result of a removal.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The folder is gone.
    Done,
    /// More is left: the deadline has passed, or something new has appeared meanwhile.
    Unfinished,
    /// Something cannot be removed; everything else is gone.
    Failed(io::Error),
}

/// Removes the folder `name` in `parent` until `deadline`. After [`Outcome::Unfinished`] it can be called again to
/// continue.
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
    /// Number that makes the name for the next folder to be moved up.
    next: u64,
    has_removed: bool,
    failure: Option<io::Error>,
}

impl Emptying {
    fn begin(top: OwnedFd, deadline: Instant) -> io::Result<Self> {
        let next = getrandom::u64().map_err(io::Error::other)?;
        // What is moved up into it is for nobody else, though it were so before.
        if rustix::fs::fstat(&top)?.st_mode & 0o7777 != 0o700 {
            set_mode(&top, 0o700)?;
        }
        Ok(Self { top: Rc::new(top), deadline, next, has_removed: false, failure: None })
    }

    /// Goes through the folder repeatedly, as long as each pass removes something.
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
                if self.entry(&top, name, entry.file_type(), Self::empty).is_break() {
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

    /// Removes the entry `name` of `folder`. Calls `with_folder` for a folder with content. Keeps the first error,
    /// unless the entry has changed meanwhile. Breaks when the deadline has passed.
    fn entry(
        &mut self,
        folder: &OwnedFd,
        name: &CStr,
        kind: FileType,
        with_folder: impl FnOnce(&mut Self, &OwnedFd, &CStr) -> io::Result<ControlFlow<()>>,
    ) -> ControlFlow<()> {
        if Instant::now() >= self.deadline {
            return Break(());
        }
        let done = match unlink(folder, name, kind) {
            Ok(true) => {
                self.has_removed = true;
                return Continue(());
            }
            Ok(false) => with_folder(self, folder, name),
            Err(error) => Err(error.into()),
        };
        done.unwrap_or_else(|error| {
            // What has changed meanwhile is looked at again in the next round.
            let has_changed = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP].map(Errno::raw_os_error).map(Some);
            if !has_changed.contains(&error.raw_os_error()) {
                self.failure.get_or_insert(error);
            }
            Continue(())
        })
    }

    /// Empties and removes a folder right below the top one.
    fn empty(&mut self, top: &OwnedFd, name: &CStr) -> io::Result<ControlFlow<()>> {
        let folder = enter(top, name)?;
        restore_access(&folder)?;
        let mut list = list(&folder)?;
        while let Some(entry) = list.read() {
            let entry = entry?;
            let below = entry.file_name();
            if !is_dots(below) && self.entry(&folder, below, entry.file_type(), Self::move_up).is_break() {
                return Ok(Break(()));
            }
        }
        // Something in it could not be removed, or is new, if it is still there.
        self.has_removed |= unlink(top, name, FileType::Directory)?;
        Ok(Continue(()))
    }

    /// Moves a folder up, right below the top one, so that it is emptied in its turn.
    fn move_up(&mut self, folder: &OwnedFd, name: &CStr) -> io::Result<ControlFlow<()>> {
        let lifted = self.try_move_up(folder, name).or_else(|error| match error {
            // To move a folder takes the right to write to it, as its ".." changes.
            Errno::ACCESS | Errno::PERM => {
                let below = enter(folder, name)?;
                restore_access(&below).map_err(|_| error)?;
                unprotect(&below);
                self.try_move_up(folder, name)
            }
            error => Err(error),
        });
        match lifted {
            Ok(()) => {
                self.has_removed = true;
                Ok(Continue(()))
            }
            // The file system has no room for one more name up there, or does not move it there.
            Err(Errno::NOSPC | Errno::DQUOT | Errno::XDEV | Errno::MLINK) => {
                self.remove_deepest(folder, name).map(Continue)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn try_move_up(&mut self, folder: &OwnedFd, name: &CStr) -> rustix::io::Result<()> {
        self.next = self.next.wrapping_add(1);
        rustix::fs::renameat(folder, name, &*self.top, format!("{:016x}", self.next))
    }

    /// Handles a folder that cannot be moved up: follows one folder with content at each level down to the innermost,
    /// removing all else on the way, and removes the innermost.
    fn remove_deepest(&mut self, folder: &OwnedFd, name: &CStr) -> io::Result<()> {
        let (mut parent, mut name) = (folder.try_clone()?, name.to_owned());
        loop {
            let folder = enter(&parent, &name)?;
            restore_access(&folder)?;
            let mut below: Option<CString> = None;
            let mut list = list(&folder)?;
            while let Some(entry) = list.read() {
                let entry = entry?;
                if is_dots(entry.file_name()) {
                    continue;
                }
                match unlink(&folder, entry.file_name(), entry.file_type()) {
                    Ok(true) => self.has_removed = true,
                    Ok(false) => _ = below.get_or_insert_with(|| entry.file_name().to_owned()),
                    Err(error) => {
                        self.failure.get_or_insert(error.into());
                    }
                }
            }
            let Some(below) = below else {
                self.has_removed |= unlink(&parent, &name, FileType::Directory)?;
                return Ok(());
            };
            (parent, name) = (folder, below);
        }
    }
}

/// Whether a listed name is that of the folder itself or of the folder around it.
pub(super) fn is_dots(name: &CStr) -> bool {
    [c".", c".."].contains(&name)
}

/// Removes a file or an empty folder, also if it is gone already. `false`: the entry is a folder with content. `kind`
/// is what the entry was when it was listed. Clears attributes that prevent the removal, where this process may.
fn unlink(folder: &OwnedFd, name: &CStr, kind: FileType) -> rustix::io::Result<bool> {
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
            let is_unprotected = unprotect(folder) | unprotect_entry(folder, name);
            if is_unprotected { once() } else { Err(error) }
        }
        done => done,
    };
    match done {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens the folder `name` in `parent`, unless it is a symbolic link or the root of another file system.
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

/// The id of the mount that contains an open folder. Device numbers do not tell mounts apart: a bind mount has that of
/// its source.
fn mount_of(folder: impl AsFd) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", folder.as_fd().as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()
}

/// Opens a folder for listing, from its first entry.
pub(super) fn list(folder: &OwnedFd) -> rustix::io::Result<Dir> {
    Dir::new(rustix::fs::openat(folder, c".", LISTING, Mode::empty())?)
}

/// Gives the owner of a folder full permissions, if a child has taken some away.
pub(super) fn restore_access(folder: impl AsFd) -> io::Result<()> {
    let folder = folder.as_fd();
    if rustix::fs::fstat(folder)?.st_mode & 0o700 == 0o700 { Ok(()) } else { set_mode(folder, 0o700) }
}

/// Clears the attributes "immutable" and "append only" of a folder. `false` if it has neither, or this process may not.
fn unprotect(folder: &OwnedFd) -> bool {
    rustix::fs::openat(folder, c".", LISTING, Mode::empty()).is_ok_and(|file| clear_attributes(&file))
}

/// Clears the same attributes of an entry of a folder. Only files and folders are opened: opening something else may
/// have effects.
fn unprotect_entry(folder: &OwnedFd, name: &CStr) -> bool {
    let kind = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map(|found| found.st_mode);
    let has_attributes = |mode| [FileType::RegularFile, FileType::Directory].contains(&FileType::from_raw_mode(mode));
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    kind.is_ok_and(has_attributes)
        && rustix::fs::openat(folder, name, flags, Mode::empty()).is_ok_and(|file| clear_attributes(&file))
}

fn clear_attributes(file: &OwnedFd) -> bool {
    let fixed = IFlags::IMMUTABLE | IFlags::APPEND;
    rustix::fs::ioctl_getflags(file)
        .is_ok_and(|flags| flags.intersects(fixed) && rustix::fs::ioctl_setflags(file, flags - fixed).is_ok())
}

/// Opens a folder for locking or listing. Fails if a symbolic link is at its place.
pub(super) fn open(parent: impl AsFd, name: &CStr) -> io::Result<File> {
    Ok(File::from(rustix::fs::openat(parent, name, LISTING | OFlags::NOFOLLOW, Mode::empty())?))
}

#[cfg(test)]
mod tests;
