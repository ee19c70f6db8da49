//! Runs a program as a gateway would start a server, through `sluice stage`, but by hand: as root, as root that becomes
//! another user, and as an ordinary user.

use std::io::{IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use secrecy::ExposeSecret as _;
use sluice::config::{Account, Server};
use sluice::process::sandbox::Reach;
use sluice::process::{Folders, Launch, Owner};

pub const SLUICE: &str = env!("CARGO_BIN_EXE_sluice");
pub const NOBODY: u32 = 65534;

/// As whom the server is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum As {
    /// The user of the tests, whoever that is.
    Tester,
    /// By root, as another user.
    Switched,
    /// By an ordinary user.
    Ordinary,
}

impl As {
    /// All that this test run can do.
    pub fn all() -> Vec<Self> {
        if is_root() { vec![Self::Tester, Self::Switched, Self::Ordinary] } else { vec![Self::Tester] }
    }

    /// A command as this user, with nothing else about it changed.
    pub fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        match self {
            Self::Tester => Command::new(program),
            Self::Switched | Self::Ordinary => {
                let mut command = Command::new("setpriv");
                command.args([&format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}"), "--clear-groups", "--"]);
                command.arg(program);
                command
            }
        }
    }

    fn account(self) -> Option<Account> {
        let account =
            || Account { name: "nobody".to_owned(), uid: NOBODY, gid: NOBODY, groups: Vec::new(), home: None };
        (self != Self::Tester).then(account)
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What became of a program.
#[derive(Debug)]
pub struct Ended {
    pub _status: ExitStatus,
    pub stdout: String,
    pub _stderr: String,
    /// What the stage answered, if it did not become the program.
    pub fault: String,
    /// Its private folder, gone by now.
    pub folder: Option<PathBuf>,
}

/// A server that is a shell script, and may change the folder that it starts in.
pub fn script(text: &str, cwd: &Path) -> Server {
    let mut server = Server::new("s".parse().unwrap(), "/bin/sh", vec!["-c".to_owned(), text.to_owned()]);
    server.cwd = Some(cwd.to_owned());
    server.sandbox.write.push(cwd.to_owned());
    server
}

/// Runs a server to its end; `edit` may change its configuration.
pub fn run(mut server: Server, user: As) -> Ended {
    server.sandbox.account = user.account();
    if let (Some(cwd), Some(owner)) = (&server.cwd, &server.sandbox.account)
        // One of the tests' own, and not the folder that these are in.
        && cwd.starts_with(std::env::temp_dir())
        && *cwd != std::env::temp_dir()
    {
        std::os::unix::fs::chown(cwd, Some(owner.uid), Some(owner.gid)).unwrap();
    }
    let mut launch = Launch::of(&server, &Folders::new(None), &Reach::default(), &Owner::everybody()).unwrap();
    let mut stage = Command::new(SLUICE);
    if user == As::Ordinary {
        launch.policy.identity = None;
        stage = user.command(SLUICE);
    }
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    stage.args(["stage", &std::process::id().to_string()]).stdin(OwnedFd::from(theirs)).env_clear();
    stage.process_group(0).stdout(Stdio::inherit()).stderr(Stdio::inherit());
    use std::os::unix::process::CommandExt as _;
    let mut child = stage.spawn().unwrap();
    drop(stage);
    let (mut stdout, out) = std::io::pipe().unwrap();
    let (mut stderr, err) = std::io::pipe().unwrap();
    let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    send(&mut ours, &launch, &[null, out.into(), err.into()]);
    let reading = std::thread::spawn(move || {
        let mut text = Vec::new();
        stderr.read_to_end(&mut text).unwrap();
        text
    });
    let mut text = Vec::new();
    stdout.read_to_end(&mut text).unwrap();
    let status = child.wait().unwrap();
    let mut fault = String::new();
    ours.read_to_string(&mut fault).unwrap();
    let lossy = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let folder = launch.folder.as_ref().map(|folder| folder.path().to_owned());
    Ended {
        _status: status,
        stdout: lossy(text),
        _stderr: lossy(reading.join().unwrap()),
        fault: fault.trim_start_matches('+').to_owned(),
        folder,
    }
}

fn send(socket: &mut UnixStream, launch: &Launch, streams: &[OwnedFd]) {
    let env: Vec<_> = launch.env.iter().map(|(name, value)| (name, value.expose_secret())).collect();
    let order = serde_json::json!({
        "program": launch.program, "args": launch.args, "env": env, "cwd": launch.cwd, "policy": launch.policy,
    });
    let body = serde_json::to_vec(&order).unwrap();
    let head = u32::try_from(body.len()).unwrap().to_be_bytes();
    let borrowed: Vec<_> = streams.iter().map(|stream| stream.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&borrowed)));
    rustix::net::sendmsg(&*socket, &[IoSlice::new(&head)], &mut control, SendFlags::empty()).unwrap();
    socket.write_all(&body).unwrap();
}
