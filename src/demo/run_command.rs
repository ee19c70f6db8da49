//! Starts the program of a `run_command` call, bounds its output and its time, and ends its whole process group.
//! Invariant: however the call ends (answered, timed out, cancelled, the server gone), no process of it is left.

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

use super::Error;
use super::workspace::Workspace;

/// Where a program without a `/` in its name is looked up, and the `PATH` it gets.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// The most that is kept of each of stdout and stderr, in bytes.
pub(super) const MAX_OUTPUT: usize = 64 * 1024;
/// The longest report of the confining process, in bytes.
const MAX_REPORT: u64 = 4096;

/// Runs programs in a workspace, confined.
#[derive(Debug, Clone)]
pub struct Runner {
    sluice: PathBuf,
    system: &'static [&'static str],
}

impl Runner {
    /// `sluice` is the path of this program, which is executed again, as `sluice confine`, to run another: one of the
    /// workspace, or one from the folders `system`.
    pub fn new(sluice: PathBuf, system: &'static [&'static str]) -> Self {
        Self { sluice, system }
    }

    /// Runs `program` with `arguments` for at most `limit`. A program that fails is an outcome, not an error.
    pub(super) async fn run(
        &self,
        workspace: &Workspace,
        program: &str,
        arguments: &[String],
        limit: Duration,
    ) -> Result<Outcome, Error> {
        if let Some(bad) = arguments.iter().find(|argument| argument.contains('\0')) {
            return Err(Error::refused(bad.replace('\0', "\\0"), "an argument cannot contain NUL"));
        }
        let path = self.resolve(workspace.root(), program)?;
        let failed = |error: std::io::Error| Error::io(format!("starting {program}"), error);
        let (report, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        report.set_nonblocking(true).map_err(failed)?;
        let report = tokio::net::UnixStream::from_std(report).map_err(failed)?;
        let child = Command::new(&self.sluice)
            .args(["confine", "--"])
            .arg(path)
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", workspace.root())
            .current_dir(workspace.root())
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let mut group = Group { leader: child };
        let (mut stdout, mut stderr) = (Captured::default(), Captured::default());
        let (out, err) = (group.leader.stdout.take(), group.leader.stderr.take());
        let followed = tokio::time::timeout(limit, async {
            tokio::join!(
                async {
                    let ended = read_report(report).await;
                    // What the program left running holds the pipes open.
                    group.kill();
                    ended
                },
                stdout.fill(out),
                stderr.fill(err),
            )
        })
        .await;
        group.kill();
        group.leader.wait().await.map_err(failed)?;
        let ended = match followed {
            Ok((report, (), ())) => Ended::parse(program, &report)?,
            Err(_) => Ended::TimedOut,
        };
        Ok(Outcome { ended, stdout, stderr })
    }

    /// The path of `program`: a bare name is looked up in [`PATH`]; a path must be in the workspace or among the
    /// system's programs. This is for the message only: what may be executed is enforced by the kernel.
    fn resolve(&self, root: &Path, program: &str) -> Result<PathBuf, Error> {
        if program.is_empty() || program.contains('\0') {
            return Err(Error::refused("run_command", "`command` must name a program"));
        }
        if !program.contains('/') {
            let found = PATH.split(':').map(|folder| Path::new(folder).join(program)).find(|path| is_program(path));
            return found.ok_or_else(|| {
                Error::refused(program, format!("there is no such program in {PATH}; a program has no shell around it"))
            });
        }
        if Path::new(program).components().any(|component| component == Component::ParentDir) {
            return Err(Error::refused(program, "`..` is not allowed in a path"));
        }
        let path = root.join(program);
        if !path.starts_with(root) && !self.system.iter().any(|folder| path.starts_with(folder)) {
            return Err(Error::refused(program, "is neither in the workspace nor among the system's programs"));
        }
        if !is_program(&path) {
            return Err(Error::refused(program, "there is no such program, or it is not executable"));
        }
        Ok(path)
    }
}

/// How a program ended, and what it wrote.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) ended: Ended,
    pub(super) stdout: Captured,
    pub(super) stderr: Captured,
}

/// How a program ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// With this exit code.
    Exit(i32),
    /// By this signal.
    Signal(i32),
    /// Killed, because its time was over.
    TimedOut,
}

impl Ended {
    /// Reads what the confining process reported.
    fn parse(program: &str, report: &str) -> Result<Self, Error> {
        let report = report.trim_end();
        let number = |prefix: &str| report.strip_prefix(prefix).and_then(|number| number.parse().ok());
        if let Some(code) = number("exit ") {
            return Ok(Self::Exit(code));
        }
        if let Some(signal) = number("signal ") {
            return Ok(Self::Signal(signal));
        }
        match report.strip_prefix("failed ") {
            Some(why) => Err(Error::refused(format!("`{program}` was not run"), why)),
            // The program killed its own group, and with it the process that watches it.
            None => Ok(Self::Signal(9)),
        }
    }
}

/// The beginning of an output stream.
#[derive(Debug, Default)]
pub(super) struct Captured {
    kept: Vec<u8>,
    dropped: u64,
}

impl Captured {
    /// Reads `from` to its end; keeps the first [`MAX_OUTPUT`] bytes and counts the rest. Cancel-safe: what was read
    /// is kept.
    async fn fill(&mut self, from: Option<impl AsyncRead + Unpin>) {
        let Some(mut from) = from else { return };
        let mut chunk = vec![0; 8192];
        // An error is an end: the program is gone, and what it wrote is here.
        while let Ok(read @ 1..) = from.read(&mut chunk).await {
            let keep = read.min(MAX_OUTPUT - self.kept.len());
            self.kept.extend_from_slice(chunk.get(..keep).unwrap_or_default());
            self.dropped += (read - keep) as u64;
        }
    }

    /// The text, with a last line that says how much is missing.
    pub(super) fn text(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.kept).into_owned();
        if self.dropped > 0 {
            text.push_str(&format!("\n[cut after {MAX_OUTPUT} bytes; {} more were written]\n", self.dropped));
        }
        text
    }
}

/// The process group of one call. Its leader is reaped only after the group was killed, so that the group's id cannot
/// have passed to another.
#[derive(Debug)]
struct Group {
    leader: Child,
}

impl Group {
    fn kill(&self) {
        if let Some(pid) = self.leader.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            // No such group: everything in it has gone already.
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn read_report(from: tokio::net::UnixStream) -> String {
    let mut report = Vec::new();
    // A reset is an end as well; an empty report says that the process was killed.
    let _ = from.take(MAX_REPORT).read_to_end(&mut report).await;
    String::from_utf8_lossy(&report).into_owned()
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
