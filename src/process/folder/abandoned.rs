//! Removes what gateways that were killed have left behind. Invariant: only what nobody has locked is removed, and of
//! other users' folders none, unless by root.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use parking_lot::Mutex;
use rustix::fs::{Dir, FlockOperation, Mode, OFlags};

use super::removal::{Outcome, open, remove};
use crate::process::pinned_folder::PinnedFolder;

/// The start of the name of every gateway's folder.
pub(super) const PREFIX: &str = "sluice-tmp-";
/// The mode of a gateway's folder.
pub(super) const MODE: u32 = 0o711;
/// Folders that are remembered because they cannot be removed. With more of them nothing is swept beyond.
const MAX_FAILED: usize = 1024;

/// One sweep of a place, done in parts.
#[derive(Debug)]
pub(super) struct AbandonedFolders {
    place: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    removed: usize,
    failed: BTreeSet<CString>,
    failure: Option<io::Error>,
}

impl AbandonedFolders {
    pub(super) fn of(place: &Path) -> Self {
        Self { place: place.to_owned(), state: Mutex::default() }
    }

    pub(super) fn place(&self) -> &Path {
        &self.place
    }

    /// Goes on until `deadline`.
    pub(super) fn step(&self, deadline: Instant) -> Outcome {
        let mut state = self.state.lock();
        match state.go_on(&self.place, deadline) {
            Ok(false) => Outcome::Unfinished,
            Ok(true) => match state.failure.take() {
                Some(error) => {
                    state.failed.clear();
                    Outcome::Failed(error)
                }
                None => Outcome::Done,
            },
            // There is no such place: then nothing is left in it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Outcome::Done,
            Err(error) => Outcome::Failed(error),
        }
    }

    /// Sweeps on this thread, until all is removed that can be. Says how many folders that were.
    pub(super) fn run(&self) -> usize {
        /// A folder that something fills again and again is left after as many.
        const PARTS: usize = 1000;
        const PART: std::time::Duration = std::time::Duration::from_secs(60);
        let _ = (0..PARTS).find(|_| !matches!(self.step(Instant::now() + PART), Outcome::Unfinished));
        self.state.lock().removed
    }
}

impl State {
    /// `false` if there is more to do.
    fn go_on(&mut self, place: &Path, deadline: Instant) -> io::Result<bool> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let place = File::from(rustix::fs::open(place, flags, Mode::empty())?);
        let own = rustix::process::geteuid();
        let mut list = Dir::read_from(&place)?;
        while let Some(entry) = list.read() {
            let entry = entry?;
            let name = entry.file_name();
            if !name.to_bytes().starts_with(PREFIX.as_bytes()) || self.failed.contains(name) {
                continue;
            }
            let Ok(lock) = open(&place, name).or_else(|error| open_again(&place, name, error)) else { continue };
            let is_ours = own.is_root() || lock.metadata().is_ok_and(|found| found.uid() == own.as_raw());
            if !is_ours || !lock_now(&lock).is_ok_and(|is_locked| is_locked) {
                continue;
            }
            match remove(&place, name, deadline) {
                Outcome::Done => self.removed += 1,
                Outcome::Unfinished => return Ok(false),
                Outcome::Failed(error) => {
                    let named = format!("{}: {error}", name.to_string_lossy());
                    self.failure.get_or_insert_with(|| io::Error::new(error.kind(), named));
                    self.failed.insert(name.to_owned());
                    if self.failed.len() >= MAX_FAILED {
                        return Ok(true);
                    }
                }
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Opens a folder that a child has taken all rights to. It gets those back that the folders of gateways have.
fn open_again(place: &File, name: &CStr, error: io::Error) -> io::Result<File> {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return Err(error);
    }
    PinnedFolder::open(place, name, MODE)?.put_right()?;
    open(place, name)
}

/// `false` if somebody else has locked it.
pub(super) fn lock_now(folder: &File) -> io::Result<bool> {
    match rustix::fs::flock(folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
