//! Infers which files and folders a server needs beyond those that its configuration lists: from its command,
//! arguments, environment, working directory and home. All guessing of the sandbox is in this folder; `sandbox.open =
//! "listed"` turns it off. Invariant: no guess depends on anything that the server can change, and no directory with
//! files of several users is opened as a whole.

pub(super) mod paths;
mod shared_directories;
mod untrusted_paths;

use std::path::{Path, PathBuf};

use secrecy::ExposeSecret as _;

#[cfg(feature = "fuzzing")]
pub use self::paths::in_arguments;
use self::shared_directories::SharedDirectories;
#[cfg(feature = "fuzzing")]
pub use self::untrusted_paths::UntrustedPaths;
#[cfg(not(feature = "fuzzing"))]
pub(super) use self::untrusted_paths::UntrustedPaths;
use super::system_paths::of_the_system;
use crate::config::{self, SandboxMode, Server};

/// Paths to open for a server besides those that the configuration lists.
#[derive(Debug, Clone, Default)]
pub(super) struct OpenPaths {
    /// Paths to read and execute.
    pub(super) read: Vec<PathBuf>,
    /// Paths to change as well.
    pub(super) write: Vec<PathBuf>,
    /// Those folders in `write` that a launcher needs, and that have to be made if they are missing.
    pub(super) caches: Vec<PathBuf>,
}

/// Infers what to open for `server`, whose command is the file `program`. The paths may contain symbolic links.
pub(super) fn infer(server: &Server, program: &Path) -> OpenPaths {
    let (shared, cwd) = (shared_directories(server), server.cwd.as_deref());
    // A shared directory is opened only if it is listed.
    let place = cwd.and_then(|cwd| cwd.canonicalize().ok()).filter(|cwd| !shared.includes(cwd));
    let (changed, read) = if server.changes_cwd { (place, None) } else { (None, place) };
    let untrusted = UntrustedPaths::of(server).with(changed.clone());
    let mut inferred = match server.sandbox.mode {
        SandboxMode::Strict => strict(server, program, &shared, &untrusted),
        _ => standard(server, program, &shared, untrusted),
    };
    inferred.read.extend(read);
    inferred.write.extend(changed);
    inferred
}

/// Whether `server` is taken for the client of a container engine, which needs the socket of its engine.
pub(super) fn is_engine_client(server: &Server) -> bool {
    server.sandbox.mode == SandboxMode::Standard && Path::new(&server.command).file_name() == Some("docker".as_ref())
}

/// The directories with files of several users, in the view of `server`. Its own home counts as one.
pub(super) fn shared_directories(server: &Server) -> SharedDirectories {
    SharedDirectories::of(homes(server))
}

/// The `PATH` in the environment of `server`; empty if there is none.
fn path_of(server: &Server) -> &str {
    server.env.get("PATH").map(|path| path.expose_secret()).unwrap_or_default()
}

/// The home folders of `server`: `HOME` in its environment first, then the home of its user in the user database.
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

/// Infers paths for the mode `standard`: the system, tools in the home folder, the program and its code to read; caches
/// of package managers, and files and folders named by arguments and variables, to change.
fn standard(server: &Server, program: &Path, shared: &SharedDirectories, untrusted: UntrustedPaths) -> OpenPaths {
    let homes: Vec<_> = homes(server).into_iter().map(|home| untrusted.home(&home)).collect();
    let mut read: Vec<PathBuf> = of_the_system(SandboxMode::Standard).collect();
    let (mut write, mut caches) = (Vec::new(), Vec::new());
    read.extend(homes.iter().flatten().flat_map(|home| paths::existing_below(home, paths::HOME_TOOLS)));
    if let Some(Some(home)) = homes.first() {
        // Of the home that the server sees only: another one for each server keeps their caches apart.
        write.extend(paths::existing_below(home, paths::HOME_CACHES));
        let (settings, needed) = paths::of_launcher(&server.command, home);
        read.extend(settings);
        write.extend(needed.iter().cloned());
        caches = needed;
    }
    let real = write.iter().filter_map(|path| path.canonicalize().ok()).collect::<Vec<_>>();
    let untrusted = untrusted.with(real);
    read.extend(paths::of_program(program, path_of(server), shared, &untrusted));
    // What is in a folder that is named, and so may be changed, is not followed either.
    let (_, named) = named(server, shared, &untrusted);
    let untrusted = untrusted.with(named.into_iter().filter(|path| path.is_dir()));
    let (code, data) = self::named(server, shared, &untrusted);
    read.extend(code);
    write.extend(data);
    read.extend(code_of_script(server, shared, &untrusted));
    OpenPaths { read, write, caches }
}

/// Infers paths for the mode `strict`: the system's libraries, the program and its code, and files named by arguments.
/// All are read only.
fn strict(server: &Server, program: &Path, shared: &SharedDirectories, untrusted: &UntrustedPaths) -> OpenPaths {
    let mut read: Vec<PathBuf> = of_the_system(SandboxMode::Strict).collect();
    read.extend(paths::of_program(program, path_of(server), shared, untrusted));
    let named = paths::in_arguments(&server.args, server.cwd.as_deref(), untrusted);
    read.extend(named.into_iter().filter(|path| path.is_file()));
    read.extend(code_of_script(server, shared, untrusted));
    OpenPaths { read, ..OpenPaths::default() }
}

/// The paths that arguments and variables of `server` name: those to read, and those to change.
fn named(server: &Server, shared: &SharedDirectories, untrusted: &UntrustedPaths) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let paths = paths::in_arguments(&server.args, server.cwd.as_deref(), untrusted).into_iter();
    let (mut read, mut write): (Vec<_>, Vec<_>) = paths.partition(|path| paths::is_code(path));
    let (code, data) = paths::in_variables(&server.env, shared, untrusted);
    read.extend(code);
    write.extend(data);
    (read, write)
}

/// The folder with the code of the script that the arguments name, if there is one.
fn code_of_script(server: &Server, shared: &SharedDirectories, untrusted: &UntrustedPaths) -> Option<PathBuf> {
    paths::code_around(&paths::script_in(&server.args, server.cwd.as_deref(), untrusted)?, shared)
}
