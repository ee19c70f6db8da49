//! What a server's sandbox amounts to on this machine, worked out in the gateway. It holds paths and numbers and no
//! secret, and travels to the process that is to become the server.

use std::path::{Path, PathBuf};

use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};

use super::SandboxError;
use super::identity::Identity;
use super::landlock::Enclosure;
use super::paths;
use super::seccomp::{Denials, Sockets};
use crate::config::{Allowance, SandboxMode, Server, home_of};
use crate::process::limits::ProcessLimits;

/// What a child is to be kept from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Limits of each process.
    pub limits: ProcessLimits,
    /// The user to become.
    pub identity: Option<Identity>,
    /// The sandbox; none in the mode `none`.
    pub confinement: Option<Confinement>,
}

/// What a sandbox consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Whether all of it has to be enforced.
    pub required: bool,
    /// What can be reached.
    pub enclosure: Enclosure,
    /// What sockets can be made.
    pub sockets: Sockets,
    /// What may be done all the same.
    pub allow: Vec<Allowance>,
}

impl Confinement {
    /// The system calls to take away.
    pub(super) fn denials(&self) -> Result<Denials, SandboxError> {
        Denials::of_server(&self.allow, self.sockets)
    }
}

impl Policy {
    /// The policy of a server that is to run `program` in `cwd` (where it is one of its own), with `tmp` as its private
    /// folder.
    pub fn of(server: &Server, program: &Path, cwd: Option<&Path>, tmp: Option<&Path>) -> Self {
        let sandbox = &server.sandbox;
        let limits = ProcessLimits::from(&server.limits.resources);
        let identity = sandbox.account.as_ref().map(Identity::from);
        let enclosure = match sandbox.mode {
            SandboxMode::None => return Self { limits, identity, confinement: None },
            SandboxMode::Standard => standard(server, program, cwd),
            SandboxMode::Strict => strict(server, program, cwd),
        };
        let Enclosure { mut read, mut write, mut devices, .. } = enclosure;
        read.extend(sandbox.read.iter().cloned());
        write.extend(sandbox.write.iter().cloned());
        write.extend(tmp.map(Path::to_owned));
        devices.extend(paths::DEVICES.iter().map(PathBuf::from));
        if sandbox.allow.contains(&Allowance::SharedMemory) {
            write.push("/dev/shm".into());
        }
        let needed = sandbox.read.iter().chain(&sandbox.write).cloned().collect();
        let network = sandbox.has_network();
        let sockets = match (network, sandbox.mode) {
            (true, _) => Sockets::Network,
            (false, SandboxMode::Strict) => Sockets::None,
            (false, _) => Sockets::Local,
        };
        let mut enclosure = Enclosure { read, write, needed, devices, network };
        enclosure.tidy();
        let confinement = Confinement { required: sandbox.required, enclosure, sockets, allow: sandbox.allow.clone() };
        Self { limits, identity, confinement: Some(confinement) }
    }
}

fn path_of(server: &Server) -> &str {
    server.env.get("PATH").map(|path| path.expose_secret()).unwrap_or_default()
}

/// The home folder as the child sees it: by its environment, and by its user as the C library looks it up.
fn homes(server: &Server) -> Vec<PathBuf> {
    let named = server.env.get("HOME").map(|home| PathBuf::from(home.expose_secret()));
    let known = match &server.sandbox.account {
        Some(account) => account.home.clone(),
        None => home_of(rustix::process::geteuid().as_raw()),
    };
    let mut homes: Vec<_> = named.into_iter().chain(known).filter(|home| home.is_absolute()).collect();
    // A home such as "/" is nobody's.
    homes.retain(|home| home.parent().is_some());
    homes.dedup();
    homes
}

/// The system and the tools to read; the working directory, the caches, and what the configuration names to change.
fn standard(server: &Server, program: &Path, cwd: Option<&Path>) -> Enclosure {
    let homes = homes(server);
    let home = homes.first().map(PathBuf::as_path);
    let mut read: Vec<PathBuf> = [paths::PROGRAMS, paths::SYSTEM].concat().into_iter().map(PathBuf::from).collect();
    let mut write = Vec::new();
    read.extend(paths::of_program(program, path_of(server), home));
    for home in &homes {
        let (tools, caches) = paths::of_home(home);
        read.extend(tools);
        write.extend(caches);
    }
    if let Some(home) = home {
        let (settings, caches) = paths::of_launcher(&server.command, home);
        read.extend(settings);
        for cache in caches {
            // The child could not make it: that takes the right to write to the home folder.
            make(&cache, server);
            write.push(cache);
        }
    }
    let named = paths::in_arguments(&server.args, cwd);
    read.extend(named.iter().filter(|path| path.is_file()).filter_map(|path| paths::code_around(path, home)));
    write.extend(named);
    let (code, data) = paths::in_variables(&server.env, home);
    read.extend(code);
    write.extend(data);
    write.extend(workspace(cwd, home));
    Enclosure { read, write, ..Enclosure::default() }
}

/// The libraries of the system and the server's own code to read; the working directory to change.
fn strict(server: &Server, program: &Path, cwd: Option<&Path>) -> Enclosure {
    let homes = homes(server);
    let home = homes.first().map(PathBuf::as_path);
    let mut read: Vec<PathBuf> = [paths::PROGRAMS, paths::MACHINE].concat().into_iter().map(PathBuf::from).collect();
    read.extend(paths::of_program(program, path_of(server), home));
    for script in paths::in_arguments(&server.args, cwd).into_iter().filter(|path| path.is_file()) {
        read.extend(paths::code_around(&script, home));
        read.push(script);
    }
    Enclosure { read, write: workspace(cwd, home).into_iter().collect(), ..Enclosure::default() }
}

/// The working directory, unless everybody's things are in it: such a one has to be listed.
fn workspace(cwd: Option<&Path>, home: Option<&Path>) -> Option<PathBuf> {
    let cwd = cwd?.canonicalize().ok()?;
    (!paths::is_crowded(&cwd, home)).then_some(cwd)
}

/// Makes a cache folder for the child's user. If that fails, the child's own error says more than could be said here.
fn make(folder: &Path, server: &Server) {
    if folder.exists() || !folder.ancestors().nth(1).is_some_and(|parent| parent.ancestors().any(Path::is_dir)) {
        return;
    }
    let missing: Vec<&Path> = folder.ancestors().take_while(|path| !path.exists()).collect();
    if std::fs::create_dir_all(folder).is_ok()
        && let Some(account) = &server.sandbox.account
    {
        let (uid, gid) = (rustix::process::Uid::from_raw(account.uid), rustix::process::Gid::from_raw(account.gid));
        for path in missing {
            let _ = rustix::fs::chown(path, Some(uid), Some(gid));
        }
    }
}
