//! The list, in the state directory, of the processes below the guardian: what a later gateway looks through when both
//! gateway and guardian were killed at once. A process is known by its id and the time of its start, so that another
//! that got the id is never taken for it.
//!
//! The file is locked for as long as the gateway or its guardian lives: no second gateway takes its processes for left
//! behind. Nobody else has the descriptor.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::time::{Instant, sleep};

use crate::process::proc::{ProcessKey, ProcessTree};

/// How long the guardian of a gateway that has just ended may still be at work.
const WAIT: Duration = Duration::from_secs(6);
/// How long what is killed may take to be gone.
const GONE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);
/// The longest list that is read, in bytes.
const MAX_LIST: u64 = 4 << 20;
/// Process ids and times of start begin anew with the machine: this is different then.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Another gateway uses it.
    #[error("{} is in use: another gateway runs with this state_dir; give each its own", .0.display())]
    InUse(PathBuf),
    /// The system refused.
    #[error("{} cannot be used (state_dir): {error}", path.display())]
    System {
        /// The directory, or the file in it.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// The locked file.
#[derive(Debug)]
pub struct Record {
    file: File,
    boot: String,
    written: BTreeSet<ProcessKey>,
}

impl Record {
    /// Takes over the record in a directory, which is made if it is not there; ends what is in it and still runs.
    ///
    /// # Errors
    /// Another gateway has the directory, or it cannot be used.
    pub async fn take_over(directory: &Path) -> Result<Self, RecordError> {
        let path = directory.join("processes");
        let system = |error: io::Error| RecordError::System { path: path.clone(), error };
        std::fs::create_dir_all(directory).map_err(system)?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(system)?;
        let deadline = Instant::now() + WAIT;
        while let Err(error) = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(system(error.into()));
            }
            if Instant::now() >= deadline {
                return Err(RecordError::InUse(directory.to_owned()));
            }
            sleep(LOOK).await;
        }
        let record = Self::new(file).map_err(system)?;
        let left = record.read().map_err(system)?;
        end(left).await.map_err(system)?;
        record.file.set_len(0).map_err(system)?;
        Ok(record)
    }

    /// The record behind a descriptor that is locked already.
    pub(super) fn new(file: File) -> io::Result<Self> {
        Ok(Self { file, boot: std::fs::read_to_string(BOOT)?.trim().to_owned(), written: BTreeSet::new() })
    }

    /// Another descriptor of the same lock.
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

    /// Writes down what is below this process, if that has changed.
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

/// Kills what is still there of `left`, and waits until it is gone.
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
        sleep(LOOK).await;
    }
    Ok(())
}

/// Kills a process, if it is the one. `false` if there is nothing to kill.
fn kill(seen: ProcessKey) -> bool {
    // With the descriptor first and the look second, the signal goes to what was looked at.
    let process = Pid::from_raw(seen.pid).and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
    process.is_some_and(|process| seen.runs() && rustix::process::pidfd_send_signal(process, Signal::KILL).is_ok())
}
