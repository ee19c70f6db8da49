//! Removes temporary folders of gateways that were killed. Invariant: a folder is removed only if nobody holds its
//! lock, and folders of other users only by root.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Dir, Mode};

use super::removal::{LISTING, Outcome, open, remove};
use crate::process::pinned_folder::PinnedFolder;

/// Start of the name of every gateway's folder.
pub(super) const PREFIX: &str = "sluice-tmp-";
/// Mode of a gateway's folder.
pub(super) const MODE: u32 = 0o711;
/// Most folders that are remembered because their removal failed. Beyond that number the removal stops.
const MAX_FAILED: usize = 1024;
/// Most parts of a removal on the caller's thread, and the longest time that one takes.
const PARTS: usize = 1000;
const PART: Duration = Duration::from_secs(60);

/// The removal of abandoned folders in one place, done in steps.
pub(super) struct AbandonedFolders {
    place: PathBuf,
    /// Number of folders that are removed.
    removed: usize,
    /// Names of the folders whose removal has failed, which are left out until the end.
    failed: BTreeSet<CString>,
    /// The first failure.
    failure: Option<io::Error>,
}

impl AbandonedFolders {
    pub(super) fn of(place: &Path) -> Self {
        Self { place: place.to_owned(), removed: 0, failed: BTreeSet::new(), failure: None }
    }

    /// Continues the removal until `deadline`. Fails with the first error once all other folders are removed; the next
    /// step then tries the failed ones again.
    pub(super) fn step(&mut self, deadline: Instant) -> Outcome {
        match self.go_on(deadline) {
            Ok(false) => Outcome::Unfinished,
            Ok(true) => {
                self.failed.clear();
                self.failure.take().map_or(Outcome::Done, Outcome::Failed)
            }
            // There is no such place: then nothing is left in it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Outcome::Done,
            Err(error) => Outcome::Failed(error),
        }
    }

    /// Continues until `deadline`. `false` if there is more to remove.
    fn go_on(&mut self, deadline: Instant) -> io::Result<bool> {
        let place = File::from(rustix::fs::open(&self.place, LISTING, Mode::empty())?);
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
            if !is_ours || lock.try_lock().is_err() {
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

/// Removes folders of killed gateways in `place` on this thread, as far as possible. Returns how many were removed.
/// Gives up after [`PARTS`] parts of [`PART`], as something may keep filling a folder.
pub(in crate::process) fn remove_abandoned(place: &Path) -> usize {
    let mut folders = AbandonedFolders::of(place);
    let _ = (0..PARTS).find(|_| !matches!(folders.step(Instant::now() + PART), Outcome::Unfinished));
    folders.removed
}

/// Opens a folder that a child has closed by its mode, after restoring the mode. Other errors than that are returned.
fn open_again(place: &File, name: &CStr, error: io::Error) -> io::Result<File> {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return Err(error);
    }
    PinnedFolder::open(place, name, MODE)?.restore_mode()?;
    open(place, name)
}
