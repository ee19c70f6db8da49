//! The policy of a child: its limits, user and sandbox, computed in the gateway from the server's configuration. A
//! policy contains paths and numbers but no secret, and is sent to the process that becomes the server.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::error::SandboxError;
use super::identity::Identity;
use super::infer::{self, OpenPaths, UntrustedPaths};
use super::landlock::{Enclosure, real};
use super::seccomp::{Denials, KnownProgram, Metadata, Sockets, deny_metadata, deny_unseen_modes, server_denials};
use super::system_paths::{DEVICES, of_the_system};
use crate::config::{Allowance, RUNNING, SandboxMode, SandboxOpen, Server};
use crate::process::limits::ProcessLimits;

/// The restrictions of a child.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Limits of each of its processes.
    pub limits: ProcessLimits,
    /// The user to become; `None` keeps the gateway's.
    pub identity: Option<Identity>,
    /// The sandbox; `None` in the mode `none`.
    pub confinement: Option<Confinement>,
}

/// The settings of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Whether the child must not start if the kernel lacks a part of the sandbox.
    pub required: bool,
    /// The paths and connections that the child can reach.
    pub enclosure: Enclosure,
    /// Where the child may make and connect to Unix sockets.
    pub local: Local,
    /// Restrictions that the configuration lifts.
    pub allow: Vec<Allowance>,
    /// Whether the mode is `strict`.
    pub is_strict: bool,
    /// The program, if it is one that needs exceptions from denied system calls.
    pub known: Option<KnownProgram>,
    /// Cache folders of a launcher, to be made before the start if they are missing. The server itself could not make
    /// them, because it may not write to the home folder.
    pub caches: Vec<PathBuf>,
}

impl Confinement {
    /// The system calls to deny on a kernel with this version of Landlock.
    pub(super) fn denials(&self, landlock: u8) -> Result<Denials, SandboxError> {
        let local = match self.local {
            Local::Anywhere => true,
            Local::Inside => landlock >= KNOWS_SOCKETS,
            Local::Nowhere => false,
        };
        let mut denials = server_denials(&self.allow, Sockets { network: self.enclosure.network, local })?;
        let metadata = if self.is_strict { Metadata::Refused } else { Metadata::Ignored(self.known) };
        if !self.allow.contains(&Allowance::Metadata) {
            deny_metadata(&mut denials, metadata)?;
        }
        if self.known != Some(KnownProgram::Sluice) {
            deny_unseen_modes(&mut denials);
        }
        Ok(denials)
    }
}

/// First version of Landlock that controls connecting to Unix sockets.
const KNOWS_SOCKETS: u8 = 9;

/// Where in the file system a child may connect to Unix sockets. A socket can lead to a process with all privileges,
/// such as a container engine or systemd, which would act for the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Local {
    /// Anywhere.
    Anywhere,
    /// In folders that the child may change. Before Landlock 9, which cannot tell them apart: nowhere.
    Inside,
    /// Nowhere.
    Nowhere,
}

/// The paths that are open to a server, computed at its first start and kept for all later ones. Otherwise a running
/// server could put a symbolic link on the way to a path before the next start.
#[derive(Debug, Default)]
pub struct Reach(OnceLock<OpenPaths>);

impl Policy {
    /// Computes the policy of a child of `server` that will execute `program`. `own` are the private folders of this
    /// child, and `reach` keeps the opened paths between starts.
    pub fn of(server: &Server, program: &Path, own: &[PathBuf], reach: &Reach) -> Self {
        let sandbox = &server.sandbox;
        let limits = ProcessLimits::from(&server.limits.resources);
        let identity = sandbox.account.as_ref().map(Identity::from);
        if sandbox.mode == SandboxMode::None {
            return Self { limits, identity, confinement: None };
        }
        let OpenPaths { mut read, mut write, caches } = reach.0.get_or_init(|| opened(server, program)).clone();
        // These had no link in them when the configuration was read.
        read.extend(sandbox.read.iter().cloned());
        write.extend(sandbox.write.iter().cloned());
        write.extend(own.iter().map(|own| own.canonicalize().unwrap_or_else(|_| own.clone())));
        let devices = DEVICES.iter().map(PathBuf::from).collect();
        let needed = sandbox.read.iter().chain(&sandbox.write).cloned().collect();
        let network = sandbox.has_network();
        let local = match sandbox.mode {
            _ if sandbox.allow.contains(&Allowance::UnixSockets) => Local::Anywhere,
            _ if sandbox.open == SandboxOpen::Inferred && infer::is_engine_client(server) => Local::Anywhere,
            SandboxMode::Strict if !network => Local::Nowhere,
            _ => Local::Inside,
        };
        let listen = sandbox.allow.contains(&Allowance::Listen);
        let sockets = local == Local::Anywhere;
        let mut enclosure = Enclosure { read, write, needed, devices, network, listen, sockets };
        enclosure.normalize();
        let confinement = Confinement {
            required: sandbox.required,
            enclosure,
            local,
            allow: sandbox.allow.clone(),
            is_strict: sandbox.mode == SandboxMode::Strict,
            known: infer::paths::known_program(&server.command),
            caches,
        };
        Self { limits, identity, confinement: Some(confinement) }
    }
}

/// Computes the paths that are open to `server` besides the listed ones. The result contains no symbolic links.
fn opened(server: &Server, program: &Path) -> OpenPaths {
    let mut opened = match server.sandbox.open {
        SandboxOpen::Inferred => infer::infer(server, program),
        SandboxOpen::Listed => OpenPaths { read: without_inference(server, program), ..OpenPaths::default() },
    };
    if server.sandbox.allow.contains(&Allowance::SharedMemory) {
        opened.write.push("/dev/shm".into());
    }
    opened.read.iter_mut().chain(&mut opened.write).for_each(|path| *path = real(path));
    opened
}

/// The paths that are open under `sandbox.open = "listed"` besides the listed ones: those of the system, and the
/// program itself, unless the server can change the program.
fn without_inference(server: &Server, program: &Path) -> Vec<PathBuf> {
    // The kernel's link to this program leads to no path that could be resolved.
    let program = match program == Path::new(RUNNING) {
        true => Some(program.to_owned()),
        false => UntrustedPaths::of(server).resolve(program),
    };
    of_the_system(server.sandbox.mode).chain(program).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::config::Account;

    #[test]
    fn the_caches_are_those_of_the_home_that_the_server_sees() {
        let folder = tempfile::tempdir().unwrap();
        let (known, own) = (folder.path().join("known"), folder.path().join("own"));
        for path in [known.join(".npm"), known.join(".nvm"), own.join(".cache/uv")] {
            std::fs::create_dir_all(path).unwrap();
        }
        let mut server = Server::new("s".parse().unwrap(), "npx", Vec::new());
        server.sandbox.mode = SandboxMode::Standard;
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        server.sandbox.account =
            Some(Account { name: "me".to_owned(), uid, gid, groups: Vec::new(), home: Some(known.clone()) });
        let confinement =
            |server: &Server| Policy::of(server, Path::new("/bin/sh"), &[], &Reach::default()).confinement.unwrap();
        let opened = |server: &Server| confinement(server).enclosure;
        assert!(opened(&server).write.contains(&known.join(".npm")));
        server.env.insert("HOME".to_owned(), own.to_string_lossy().into_owned().into());
        let Enclosure { read, write, .. } = opened(&server);
        assert!(read.contains(&known.join(".nvm")), "what is installed there still runs: {read:?}");
        assert!(write.contains(&own.join(".cache/uv")) && write.contains(&own.join(".npm")), "{write:?}");
        assert!(!write.contains(&known.join(".npm")), "{write:?}");
        // They are made by who is to use them.
        assert_eq!(confinement(&server).caches, [own.join(".npm")]);
        assert!(!own.join(".npm").exists());
        // What a server can change anyway is none of ours.
        server.sandbox.write.push(own.clone());
        assert_eq!(confinement(&server).caches, Vec::<PathBuf>::new());
    }

    #[test]
    fn credentials_of_the_home_stay_closed() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().canonicalize().unwrap();
        let credentials =
            [".netrc", ".npmrc", ".config/pip/pip.conf", ".cache/huggingface/token", ".local/share/uv/credentials/x"];
        for path in credentials {
            std::fs::create_dir_all(home.join(path).parent().unwrap()).unwrap();
            std::fs::write(home.join(path), "").unwrap();
        }
        for command in ["npx", "uvx"] {
            let mut server = Server::new("s".parse().unwrap(), command, Vec::new());
            server.env.insert("HOME".to_owned(), home.to_string_lossy().into_owned().into());
            let confinement = Policy::of(&server, Path::new("/bin/sh"), &[], &Reach::default()).confinement.unwrap();
            let Enclosure { read, write, .. } = confinement.enclosure;
            for path in credentials.map(|path| home.join(path)) {
                assert!(!read.iter().chain(&write).any(|open| path.starts_with(open)), "{command} {path:?}");
            }
        }
    }

    #[test]
    fn what_is_opened_is_worked_out_once() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for name in ["work", "other"] {
            std::fs::create_dir(root.join(name)).unwrap();
        }
        let (cwd, reach) = (root.join("work"), Reach::default());
        let mut server = Server::new("s".parse().unwrap(), "sh", Vec::new());
        server.cwd = Some(cwd.clone());
        let policy = |reach: &Reach| Policy::of(&server, Path::new("/bin/sh"), &[], reach);
        let first = policy(&reach);
        // Another server, to which the folder around is open, puts a link in its place.
        std::fs::remove_dir(&cwd).unwrap();
        std::os::unix::fs::symlink("other", &cwd).unwrap();
        assert_eq!(policy(&reach), first);
        assert_ne!(policy(&Reach::default()), first);
    }
}
