//! Describes for the operator what a server's sandbox leaves open, and which of the gateway's own files are within
//! reach.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret as _;

use super::infer::{UntrustedPaths, paths, shared_directories};
use super::landlock::Enclosure;
use super::policy::{Policy, Reach};
use super::system_paths::of_the_system;
use crate::config::{Account, Isolation, OwnFile, SandboxMode, SandboxOpen, Server};
use crate::process::folder;

/// Usual extensions of SQLite databases.
const DATABASES: [&str; 3] = ["db", "sqlite", "sqlite3"];

/// What a server can reach, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    /// The paths that the server can read and change, in one line.
    pub open: String,
    /// Risks and likely mistakes, each with a remedy.
    pub warnings: Vec<String>,
    /// Faults through which one tenant could act as another, each with a remedy.
    pub errors: Vec<String>,
}

/// Describes what `server` can reach when `tenants` tenants may use it. `own` are the gateway's own files. `None` if
/// the server has no sandbox or its program is not found.
pub fn exposure(server: &Server, own: &[OwnFile], tenants: usize) -> Option<Exposure> {
    let program = server.program()?;
    let policy = Policy::of(server, &program, &[], &Reach::default());
    let enclosure = policy.confinement?.enclosure;
    let reads = outermost(&enclosure.read, &enclosure.write);
    let changes = outermost(&enclosure.write, &[]);
    let list = |first: &str, paths: &[&Path]| {
        let paths = paths.iter().map(|path| path.display().to_string());
        [first.to_owned()].into_iter().chain(paths).collect::<Vec<_>>().join(", ")
    };
    let own_folders = match &server.workspace {
        Some(base) => format!("its temporary folder, that of its {} in {}", owner(server.isolation), base.display()),
        None => "its temporary folder".to_owned(),
    };
    let open = format!("reads {}; changes {}", list("the system", &reads), list(&own_folders, &changes));
    let mut warnings = Vec::new();
    warnings.extend(unopened_cwd_in(server, &enclosure));
    let is_inferred = server.sandbox.open == SandboxOpen::Inferred;
    let named = is_inferred.then(|| paths::named(&server.args, &server.env));
    warnings.extend(named.iter().flatten().filter_map(|path| unmade(path, &enclosure.write, server.is_by_arguments)));
    for file in own.iter().chain(&of_the_process(own)).filter(|file| !file.is_for(&server.name)) {
        let Some(path) = real(&file.path) else { continue };
        let within = |paths: &[PathBuf]| paths.iter().find(|open| path.starts_with(open)).cloned();
        let (what, opened) = match (within(&enclosure.write), within(&enclosure.read)) {
            (Some(opened), _) => ("change", opened),
            (None, Some(opened)) if file.is_secret => ("read", opened),
            _ => continue,
        };
        if is_open_to(&path, server.sandbox.account.as_ref()) {
            let key = if file.key.is_empty() { "the configuration" } else { &file.key };
            warnings.push(format!(
                "can {what} what is the gateway's own: {} ({key}), as {} is open to it; keep that elsewhere, or give \
                 the server another folder, or a user (sandbox.user) who has no right to it",
                path.display(),
                opened.display()
            ));
        }
    }
    let errors = if tenants > 1 { changed_code(server, &program, &enclosure.write) } else { Vec::new() };
    Some(Exposure { open, warnings, errors })
}

/// The noun for the owner of a working directory under this isolation.
fn owner(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::Session | Isolation::Principal => "principal",
        Isolation::Tenant => "tenant",
        Isolation::Shared => "sharers",
    }
}

/// Errors for the folders in `write` that contain the server's program, script, working directory or all workspaces.
/// Runtimes load code and settings from there (`node_modules`, `.npmrc`, Python modules), so what one tenant's child
/// writes could be executed by another's.
fn changed_code(server: &Server, program: &Path, write: &[PathBuf]) -> Vec<String> {
    let untrusted = UntrustedPaths::default();
    let cwd = server.cwd.as_deref();
    let code = [Some(program.to_owned()), untrusted.resolve(program), paths::script_in(&server.args, cwd, &untrusted)];
    let places = [cwd, server.workspace.as_deref()].map(|place| place?.canonicalize().ok());
    let runs: Vec<_> = code.into_iter().chain(places).flatten().collect();
    let home = server.env.get("HOME").and_then(|home| Path::new(home.expose_secret()).canonicalize().ok());
    let key = |folder: &Path| match (server.sandbox.write.iter().any(|listed| folder == listed), &home) {
        (true, _) => format!("servers.{}.sandbox.write", server.name),
        (_, Some(home)) if folder.starts_with(home) => format!("its HOME, servers.{0}.env or pass_env", server.name),
        _ => format!("servers.{0}.args or servers.{0}.env, which name it", server.name),
    };
    let folders = write.iter().filter_map(|folder| Some((folder, runs.iter().find(|path| path.starts_with(folder))?)));
    let say = |(folder, path): (&PathBuf, &PathBuf)| {
        format!(
            "can change {}, in which is what it runs for several tenants ({}): one tenant's child could change what another's \
             runs; take that folder out of {}, and give servers.{}.workspace for what each of them may change",
            folder.display(),
            path.display(),
            key(folder),
            server.name
        )
    };
    folders.map(say).collect()
}

/// Files of the gateway that no configuration key names: its program, and the folder with all temporary folders.
/// `named` are the other ones.
fn of_the_process(named: &[OwnFile]) -> Vec<OwnFile> {
    let state_dir = named.iter().find(|file| file.key == "state_dir").map(|file| file.path.as_path());
    let own = |key: &str, path, is_secret| OwnFile { key: key.to_owned(), path, is_secret };
    let program = std::env::current_exe().ok().map(|path| own("its program", path, false));
    // Where they are in the state directory, that says it.
    let place = Some(folder::place(state_dir)).filter(|place| Some(place.as_path()) != state_dir);
    let folders = place.map(|place| own("the temporary folders of all servers", place, true));
    program.into_iter().chain(folders).collect()
}

/// A warning if the sandbox does not open the working directory of `server`, which would then seem empty. `None`
/// without a sandbox, without a `cwd`, or if its program is not found.
pub fn unopened_cwd(server: &Server) -> Option<String> {
    let policy = Policy::of(server, &server.program()?, &[], &Reach::default());
    unopened_cwd_in(server, &policy.confinement?.enclosure)
}

/// As [`unopened_cwd`], where `enclosure` is what the sandbox of `server` opens.
fn unopened_cwd_in(server: &Server, enclosure: &Enclosure) -> Option<String> {
    let cwd = server.cwd.as_ref()?.canonicalize().ok()?;
    if enclosure.write.iter().chain(&enclosure.read).any(|open| cwd.starts_with(open)) {
        return None;
    }
    let remedy = match server.is_by_arguments {
        true => "start it in a folder of its own, or list what it needs (--read, --write)",
        false => "give it a folder of its own (cwd), or list what it needs (sandbox.read, sandbox.write)",
    };
    let (why, remedy) = match server.sandbox.open {
        SandboxOpen::Listed => {
            ("which its sandbox does not open, as it is not listed", "list it (sandbox.read, sandbox.write)")
        }
        SandboxOpen::Inferred if !shared_directories(server).includes(&cwd) => return None,
        SandboxOpen::Inferred => ("where everybody's things are, so its sandbox does not open that folder", remedy),
    };
    Some(format!("starts in {}, {why}; {remedy}", cwd.display()))
}

/// A warning if opening the named path `path` does not suffice, because it does not exist yet, or because SQLite makes
/// files beside it. `write` are the paths that the server can change.
fn unmade(path: &Path, write: &[PathBuf], is_by_arguments: bool) -> Option<String> {
    let is_there = path.exists();
    let is_database = path.extension().is_some_and(|extension| DATABASES.iter().any(|known| extension == *known));
    let folder = path.parent()?.canonicalize().ok()?;
    if write.iter().any(|open| folder.starts_with(open)) || (is_there && !is_database) || paths::is_code(path) {
        return None;
    }
    let path = path.display();
    let why = match is_there {
        true => format!("names {path}, beside which SQLite makes files, in a folder that is not open to it"),
        false => format!("names {path}, which does not exist, so its sandbox cannot open it"),
    };
    let key = if is_by_arguments { "--write" } else { "sandbox.write" };
    Some(format!("{why}; list the folder in which it is to be ({key})"))
}

/// The paths to report: existing ones that are neither inside another path of `paths` or `others`, nor part of the
/// system.
fn outermost<'a>(paths: &'a [PathBuf], others: &[PathBuf]) -> Vec<&'a Path> {
    let known = || of_the_system(SandboxMode::Standard).chain(of_the_system(SandboxMode::Strict));
    let system = |path: &Path| known().any(|known| path.starts_with(known));
    let is_inner = |path: &Path| {
        let within = |list: &[PathBuf]| list.iter().any(|other| other != path && path.starts_with(other));
        within(paths) || within(others)
    };
    paths.iter().map(PathBuf::as_path).filter(|path| path.exists() && !system(path) && !is_inner(path)).collect()
}

/// The path without symbolic links, for a file that exists or whose folder does.
fn real(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok().or_else(|| Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?)))
}

/// Whether file permissions let the user `account` read `path`. `true` without an account, as the server then runs as
/// the gateway's user, and for a path that cannot be examined.
fn is_open_to(path: &Path, account: Option<&Account>) -> bool {
    let (Some(account), Ok(found)) = (account, path.metadata()) else { return true };
    let groups = || account.groups.iter().chain([&account.gid]);
    let bits = match found.uid() == account.uid {
        true => 0o700,
        false if groups().any(|group| *group == found.gid()) => 0o070,
        false => 0o007,
    };
    found.mode() & bits & 0o444 != 0
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use crate::config::SandboxMode;

    fn own(key: &str, path: &Path, is_secret: bool) -> OwnFile {
        OwnFile { key: key.to_owned(), path: path.to_owned(), is_secret }
    }

    /// A server that starts in `folder/work`; beside that is its script, `folder/code/server.py`.
    fn server(folder: &Path) -> Server {
        for name in ["work", "code", "state"] {
            std::fs::create_dir(folder.join(name)).unwrap();
        }
        let script = folder.join("code/server.py");
        std::fs::write(&script, "").unwrap();
        let mut server = Server::new("s".parse().unwrap(), "sh", vec![script.to_string_lossy().into_owned()]);
        server.cwd = Some(folder.join("work"));
        server.sandbox.write.push(folder.join("work"));
        server.sandbox.mode = SandboxMode::Standard;
        server
    }

    #[test]
    fn what_of_the_gateway_is_open_is_said_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        let server = server(&path);
        for name in ["work/sluice.toml", "code/jwt", "code/key.pem", "token"] {
            std::fs::write(path.join(name), "").unwrap();
        }
        let files = [
            own("", &path.join("work/sluice.toml"), true),
            own("auth.jwt.secret_file", &path.join("code/jwt"), true),
            own("auth.jwt.pem_file", &path.join("code/key.pem"), false),
            own("state_dir", &path.join("work/not-made-yet"), false),
            own("servers.s.env.TOKEN", &path.join("work/token"), true),
            own("servers.other.env.TOKEN", &path.join("token"), true),
        ];
        let exposure = exposure(&server, &files, 1).unwrap();
        let starts = [
            "work/sluice.toml (the configuration)",
            "code/jwt (auth.jwt.secret_file)",
            "work/not-made-yet (state_dir)",
        ];
        assert_eq!(exposure.warnings.len(), starts.len(), "{exposure:#?}");
        for ((warning, start), what) in exposure.warnings.iter().zip(starts).zip(["change", "read", "change"]) {
            let start = format!("can {what} what is the gateway's own: {}/{start}", path.display());
            assert!(warning.starts_with(&start), "{start} is not {warning}");
        }
        let (work, code) = (path.join("work"), path.join("code"));
        assert!(exposure.open.contains(&work.display().to_string()), "{exposure:?}");
        assert!(exposure.open.starts_with("reads the system, "), "{exposure:?}");
        assert!(
            exposure.open.split("; changes ").next().unwrap().contains(&code.display().to_string()),
            "{exposure:?}"
        );
    }

    #[test]
    fn what_is_named_and_cannot_be_opened_as_it_is_meant_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        let mut server = server(&path);
        std::fs::write(path.join("code/there.db"), "").unwrap();
        std::fs::write(path.join("code/there.json"), "").unwrap();
        let text = |name: &str| path.join(name).to_string_lossy().into_owned();
        server.args = vec![text("code/there.json"), format!("--db={}", text("code/there.db")), text("no/folder")];
        server.env.insert("MEMORY_FILE_PATH".to_owned(), text("code/memory.json").into());
        server.env.insert("IN_THE_WORKSPACE".to_owned(), text("work/memory.json").into());
        let warnings = exposure(&server, &[], 1).unwrap().warnings;
        assert_eq!(warnings.len(), 2, "{warnings:#?}");
        assert!(
            warnings[0].starts_with(&format!("names {}, beside which SQLite", text("code/there.db"))),
            "{warnings:?}"
        );
        assert!(
            warnings[1].starts_with(&format!("names {}, which does not exist", text("code/memory.json"))),
            "{warnings:?}"
        );
        server.sandbox.write.push(path.join("code"));
        assert!(exposure(&server, &[], 1).unwrap().warnings.is_empty());
    }

    #[test]
    fn who_has_no_right_to_a_file_needs_no_warning() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let mut server = server(folder.path());
        let file = folder.path().join("work/sluice.toml");
        std::fs::write(&file, "").unwrap();
        let account = Account { name: "a".to_owned(), uid: 4_012_345, gid: 4_012_345, groups: Vec::new(), home: None };
        server.sandbox.account = Some(account);
        for (mode, warnings) in [(0o640, 0), (0o644, 1)] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(exposure(&server, &[own("", &file, true)], 1).unwrap().warnings.len(), warnings, "{mode:o}");
        }
    }

    #[test]
    fn a_folder_with_everybodys_things_is_opened_where_it_is_listed_only() {
        let mut server = Server::new("s".parse().unwrap(), "sh", Vec::new());
        server.cwd = Some("/srv".into());
        server.sandbox.mode = SandboxMode::Standard;
        assert!(
            exposure(&server, &[], 1).unwrap().warnings[0].starts_with("starts in /srv, where everybody's things are")
        );
        server.sandbox.write = vec!["/srv".into()];
        assert!(exposure(&server, &[], 1).unwrap().warnings.is_empty());
        server.sandbox.mode = SandboxMode::None;
        assert_eq!(exposure(&server, &[], 1), None);
    }

    #[test]
    fn a_folder_of_the_system_that_the_mode_opens_need_not_be_listed() {
        let mut server = Server::new("s".parse().unwrap(), "sh", Vec::new());
        server.sandbox.open = SandboxOpen::Listed;
        for (cwd, mode, is_open) in [
            ("/usr/share", SandboxMode::Standard, true),
            ("/opt", SandboxMode::Standard, true),
            ("/opt", SandboxMode::Strict, false),
            ("/srv", SandboxMode::Standard, false),
        ] {
            server.cwd = Some(cwd.into());
            server.sandbox.mode = mode;
            let warning = unopened_cwd(&server);
            assert_eq!(warning.is_none(), is_open, "{cwd}: {warning:?}");
            assert_eq!(exposure(&server, &[], 1).unwrap().warnings, Vec::from_iter(warning));
        }
    }
}
