//! Removes temporary folders of gateways that were killed. Invariant: a folder is removed only if nobody holds its lock,
//! and folders of other users only by root.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use parking_lot::Mutex;
use rustix::fs::{Dir, Mode, OFlags};

use super::removal::{Outcome, open, remove};
use crate::process::lock::try_lock;
use crate::process::pinned_folder::PinnedFolder;

/// Start of the name of every gateway's folder.
pub(super) const PREFIX: &str = "sluice-tmp-";
/// Mode of a gateway's folder.
pub(super) const MODE: u32 = 0o711;
/// Most folders that are remembered because their removal failed. Beyond that number the removal stops.
const MAX_FAILED: usize = 1024;

/// The removal of abandoned folders in one place, done in steps.
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

    /// Continues the removal until `deadline`.
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

    /// Removes all abandoned folders on this thread, as far as possible. Returns how many were removed.
    pub(super) fn run(&self) -> usize {
        /// Most steps. Ends the attempt if something keeps filling a folder.
        const PARTS: usize = 1000;
        const PART: std::time::Duration = std::time::Duration::from_secs(60);
        let _ = (0..PARTS).find(|_| !matches!(self.step(Instant::now() + PART), Outcome::Unfinished));
        self.state.lock().removed
    }
}

impl State {
    /// Continues until `deadline`. `false` if there is more to remove.
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
            if !is_ours || !try_lock(&lock).is_ok_and(|is_locked| is_locked) {
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

/// Opens a folder that a child has closed by its mode, after restoring the mode. Other errors than that are returned.
fn open_again(place: &File, name: &CStr, error: io::Error) -> io::Result<File> {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return Err(error);
    }
    PinnedFolder::open(place, name, MODE)?.restore_mode()?;
    open(place, name)
}
