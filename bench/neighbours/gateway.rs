//! The gateway that is attacked: the real program, in a process of its own.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, PipeWriter, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::arguments::Arguments;
use crate::configuration;
use crate::disk::SmallDisk;
use crate::processes;

/// The longest time for the gateway's end.
const END: Duration = Duration::from_secs(20);

/// What is particular to the gateway of one row.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Setup {
    /// Nobody reads its log, and the pipe is full.
    pub(crate) unread_log: bool,
    /// TMPDIR and `state_dir` are on a small file system of their own.
    pub(crate) small_disk: bool,
}

/// A running gateway. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Gateway {
    process: Child,
    /// Where clients connect.
    pub(crate) address: SocketAddr,
    folder: tempfile::TempDir,
    _disk: Option<SmallDisk>,
    /// Both ends of the log that nobody reads.
    _log: Option<io::PipeReader>,
}

impl Gateway {
    /// Starts it, and waits until it listens.
    pub(crate) fn start(arguments: &Arguments, setup: Setup) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let disk = if setup.small_disk { Some(SmallDisk::mount(folder.path())?) } else { None };
        let state = disk.as_ref().map(|disk| disk.path().join("state"));
        let path = folder.path().join("sluice.toml");
        std::fs::write(&path, configuration::text(arguments, state.as_deref()))?;
        let (log, stderr) = log(setup, folder.path())?;
        let mut command = match &arguments.cgroups {
            Some(cgroups) => cgroups.gateway(&arguments.sluice)?,
            None => Command::new(&arguments.sluice),
        };
        command.args(["serve", "--config"]).arg(&path).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        if let Some(disk) = &disk {
            let temporary = disk.path().join("tmp");
            std::fs::create_dir(&temporary)?;
            command.env("TMPDIR", temporary);
        }
        let mut process = command.spawn()?;
        let Some(stdout) = process.stdout.take() else { return Err(io::Error::other("it has no stdout")) };
        let mut lines = BufReader::new(stdout).lines();
        let address = loop {
            let Some(line) = lines.next() else {
                let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
                return Err(io::Error::other(format!("the gateway does not start: {log}")));
            };
            let line = line?;
            if let Some(address) = line.strip_prefix("Sluice is serving http://") {
                break address.parse().map_err(io::Error::other)?;
            }
        };
        // Whatever else it says is read to its end, which is the gateway's.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { process, address, folder, _disk: disk, _log: log })
    }

    /// Waits until it has no more to do for anybody, at most for `patience`.
    pub(crate) fn wait_for_quiet(&self, patience: Duration) -> bool {
        processes::wait_for_quiet(self.process.id(), patience)
    }

    /// The last lines of its log.
    pub(crate) fn last_lines(&self) -> String {
        let log = std::fs::read(self.folder.path().join("log")).unwrap_or_default();
        let tail = log.get(log.len().saturating_sub(2000)..).unwrap_or_default();
        String::from_utf8_lossy(tail).into_owned()
    }

    /// Stops it as an operator does; the error says how it has ended otherwise.
    pub(crate) fn stop(mut self) -> Result<(), String> {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).ok_or("it has no process id")?;
        if let Ok(Some(status)) = self.process.try_wait() {
            return Err(format!("the gateway has ended by itself: {status}: {}", self.last_lines()));
        }
        rustix::process::kill_process(pid, Signal::TERM).map_err(|error| error.to_string())?;
        let deadline = Instant::now() + END;
        while Instant::now() < deadline {
            match self.process.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(format!("the gateway has ended with {status}: {}", self.last_lines())),
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        Err(format!("SIGTERM does not end the gateway within {END:?}"))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Where the log goes: to a file, or into a pipe that is full already and that nobody reads.
fn log(setup: Setup, folder: &Path) -> io::Result<(Option<io::PipeReader>, Stdio)> {
    if !setup.unread_log {
        return Ok((None, File::create(folder.join("log"))?.into()));
    }
    let (reader, mut writer) = io::pipe()?;
    fill(&mut writer)?;
    Ok((Some(reader), writer.into()))
}

fn fill(pipe: &mut PipeWriter) -> io::Result<()> {
    rustix::io::ioctl_fionbio(&*pipe, true)?;
    while pipe.write(&[b'\n'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&*pipe, false)?;
    Ok(())
}
