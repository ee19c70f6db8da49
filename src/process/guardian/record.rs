//! The record: a file in the state directory that lists the processes below the guardian. If gateway and guardian are
//! both killed, the next gateway kills the processes in the list. A process is listed with its id and start time, so
//! that a later process with the same id is never mistaken for it.
//!
//! The file is locked as long as the gateway or its guardian lives, so that no second gateway uses the same state
//! directory. No other process has the descriptor.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::time::{Instant, sleep};

use crate::process::proc::{ProcessKey, ProcessTree};

/// Time limit for the guardian of an ended gateway to release the lock.
const WAIT: Duration = Duration::from_secs(6);
/// Time limit for killed processes to disappear.
const GONE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);
/// Largest record that is read, in bytes.
const MAX_LIST: u64 = 4 << 20;
/// File with an id that changes at each boot. Process ids and start times are unique between two boots only.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Another gateway uses the directory.
    #[error("{} is in use: another gateway runs with this state_dir; give each its own", .0.display())]
    InUse(PathBuf),
    /// The system refused.
    #[error("{} cannot be used (state_dir): {error}", path.display())]
    System {
        /// The directory, or the file in it.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
}

/// The record of processes, open and locked. The lock lasts until the gateway and its guardian have both closed their
/// descriptors (see [`Self::share`]).
#[derive(Debug)]
pub struct Record {
    file: File,
    boot: String,
    written: BTreeSet<ProcessKey>,
}

impl Record {
    /// Opens and locks the record in `directory`, which is made if it is missing. Waits up to 6 seconds for the lock.
    /// Kills the processes in the record that still run.
    ///
    /// # Errors
    /// Another gateway uses the directory, the directory cannot be used, or a listed process does not end.
    pub async fn take_over(directory: &Path) -> Result<Self, RecordError> {
        let path = directory.join("processes");
        let system = |error: io::Error| RecordError::System { path: path.clone(), error };
        std::fs::create_dir_all(directory).map_err(system)?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(system)?;
        let deadline = Instant::now() + WAIT;
        while let Err(error) = file.try_lock() {
            match error {
                TryLockError::Error(error) => return Err(system(error)),
                TryLockError::WouldBlock if Instant::now() < deadline => sleep(POLL).await,
                TryLockError::WouldBlock => return Err(RecordError::InUse(directory.to_owned())),
            }
        }
        let record = Self::new(file).map_err(system)?;
        let left = record.read().map_err(system)?;
        end(left).await.map_err(system)?;
        record.file.set_len(0).map_err(system)?;
        Ok(record)
    }

    /// Wraps a descriptor of the file, which is locked already.
    pub(super) fn new(file: File) -> io::Result<Self> {
        Ok(Self { file, boot: std::fs::read_to_string(BOOT)?.trim().to_owned(), written: BTreeSet::new() })
    }

    /// Duplicates the descriptor; both hold the same lock.
    pub(super) fn share(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    fn read(&self) -> io::Result<Vec<ProcessKey>> {
        let mut text = String::new();
        (&self.file).take(MAX_LIST).read_to_string(&mut text)?;
        let mut lines = text.lines();
        if lines.next() != Some(&self.boot) {
            return Ok(Vec::new());
        }
        // A line may be cut, or left from a longer list: then it names nothing that exists.
        Ok(lines
            .filter_map(|line| line.split_once(' '))
            .filter_map(|(pid, started)| Some(ProcessKey { pid: pid.parse().ok()?, started: started.parse().ok()? }))
            .collect())
    }

    /// Writes the processes below this one to the file, if they have changed.
    pub(super) fn update(&mut self, tree: &ProcessTree) -> io::Result<()> {
        let below = tree.descendants_of(rustix::process::getpid());
        if below != self.written {
            let mut text = format!("{}\n", self.boot);
            for ProcessKey { pid, started } in &below {
                text.push_str(&format!("{pid} {started}\n"));
            }
            self.file.write_all_at(text.as_bytes(), 0)?;
            self.file.set_len(text.len() as u64)?;
            self.written = below;
        }
        Ok(())
    }
}

/// Kills the processes in `left` that still run, and waits until they are gone. Fails if one is still there after 5
/// seconds.
async fn end(left: Vec<ProcessKey>) -> io::Result<()> {
    let left: Vec<ProcessKey> = left.into_iter().filter(|seen| kill(*seen)).collect();
    if left.is_empty() {
        return Ok(());
    }
    tracing::warn!(processes = left.len(), "an earlier gateway left processes behind: they are killed");
    let deadline = Instant::now() + GONE;
    while left.iter().any(|seen| seen.runs()) {
        if Instant::now() >= deadline {
            return Err(io::Error::other("a process that an earlier gateway left behind cannot be killed"));
        }
        sleep(POLL).await;
    }
    Ok(())
}

/// Kills a process. `false` if the process with this id is gone or another one.
fn kill(seen: ProcessKey) -> bool {
    // With the descriptor first and the look second, the signal goes to what was looked at.
    let process = Pid::from_raw(seen.pid).and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
    process.is_some_and(|process| seen.runs() && rustix::process::pidfd_send_signal(process, Signal::KILL).is_ok())
}
