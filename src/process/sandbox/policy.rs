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
use crate::config::{self, Allowance, SandboxMode, Server};
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
    /// Whether sockets can be made that have a name in the file system.
    pub local: Local,
    /// What may be done all the same.
    pub allow: Vec<Allowance>,
}

impl Confinement {
    /// The system calls to take away, where Landlock has this version.
    pub(super) fn denials(&self, landlock: u8) -> Result<Denials, SandboxError> {
        let local = match self.local {
            Local::Anywhere => true,
            Local::Inside => landlock >= KNOWS_SOCKETS,
            Local::Nowhere => false,
        };
        Denials::of_server(&self.allow, Sockets { network: self.enclosure.network, local })
    }
}

/// The first version of Landlock that decides over connecting to a socket in the file system.
const KNOWS_SOCKETS: u8 = 9;

/// Where in the file system sockets can be connected to. Through one of them, a process that can do everything may be
/// asked to do anything: a container engine, systemd, the bus of a desktop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Local {
    /// Anywhere.
    Anywhere,
    /// Where the server may change things. Before Landlock 9 nobody can tell: then nowhere.
    Inside,
    /// Nowhere.
    Nowhere,
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
        let local = match sandbox.mode {
            _ if sandbox.allow.contains(&Allowance::UnixSockets) || speaks_to_an_engine(server) => Local::Anywhere,
            SandboxMode::Strict if !network => Local::Nowhere,
            _ => Local::Inside,
        };
        let mut enclosure = Enclosure { read, write, needed, devices, network, sockets: local == Local::Anywhere };
        enclosure.tidy();
        let confinement = Confinement { required: sandbox.required, enclosure, local, allow: sandbox.allow.clone() };
        Self { limits, identity, confinement: Some(confinement) }
    }
}

/// Whether its program is a container engine's client: a socket is all that it is for, and the server is in a container.
fn speaks_to_an_engine(server: &Server) -> bool {
    server.sandbox.mode == SandboxMode::Standard && Path::new(&server.command).file_name() == Some("docker".as_ref())
}

fn path_of(server: &Server) -> &str {
    server.env.get("PATH").map(|path| path.expose_secret()).unwrap_or_default()
}

/// The home folder of a server.
pub(super) fn home_of(server: &Server) -> Option<PathBuf> {
    homes(server).into_iter().next()
}

/// Makes the caches that a launcher such as `npx` needs, where they are not there yet: the child could not, as that takes
/// the right to write to the home folder.
pub fn make_caches(server: &Server) {
    if let Some(home) = home_of(server).filter(|_| server.sandbox.mode == SandboxMode::Standard) {
        let (_, caches) = paths::of_launcher(&server.command, &home);
        caches.iter().for_each(|cache| make(cache, server));
    }
}

/// The home folder as the child sees it: by its environment, and by its user as the C library looks it up.
fn homes(server: &Server) -> Vec<PathBuf> {
    let named = server.env.get("HOME").map(|home| PathBuf::from(home.expose_secret()));
    let known = match &server.sandbox.account {
        Some(account) => account.home.clone(),
        None => config::home_of(rustix::process::geteuid().as_raw()),
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
    read.extend(homes.iter().flat_map(|home| paths::tools_of(home)));
    if let Some(home) = home {
        // Of the home that the server sees only: another one for each server keeps their caches apart.
        write.extend(paths::caches_of(home));
        let (settings, caches) = paths::of_launcher(&server.command, home);
        read.extend(settings);
        write.extend(caches);
    }
    let named = paths::in_arguments(&server.args, cwd);
    read.extend(named.iter().filter(|path| path.is_file()).filter_map(|path| paths::code_around(path, home)));
    let (code, data): (Vec<_>, Vec<_>) = named.into_iter().partition(|path| paths::is_code(path));
    read.extend(code);
    write.extend(data);
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::config::Account;

    #[test]
    fn the_caches_are_those_of_the_home_that_the_server_sees() {
        let folder = tempfile::tempdir().unwrap();
        let (known, own) = (folder.path().join("known"), folder.path().join("own"));
        for path in [known.join(".npm"), known.join(".nvm"), own.join(".cache")] {
            std::fs::create_dir_all(path).unwrap();
        }
        let mut server = Server::new("s".parse().unwrap(), "npx", Vec::new());
        server.sandbox.mode = SandboxMode::Standard;
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        server.sandbox.account =
            Some(Account { name: "me".to_owned(), uid, gid, groups: Vec::new(), home: Some(known.clone()) });
        let opened =
            |server: &Server| Policy::of(server, Path::new("/bin/sh"), None, None).confinement.unwrap().enclosure;
        assert!(opened(&server).write.contains(&known.join(".npm")));
        server.env.insert("HOME".to_owned(), own.to_string_lossy().into_owned().into());
        let Enclosure { read, write, .. } = opened(&server);
        assert!(read.contains(&known.join(".nvm")), "what is installed there still runs: {read:?}");
        assert!(write.contains(&own.join(".cache")) && write.contains(&own.join(".npm")), "{write:?}");
        assert!(!write.contains(&known.join(".npm")), "{write:?}");
        // Looking changes nothing.
        assert!(!own.join(".npm").exists());
        make_caches(&server);
        assert!(own.join(".npm").is_dir());
    }
}
