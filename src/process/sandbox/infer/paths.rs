//! Guesses where a server's programs, code, caches and data are, from its command, arguments and environment.
//! Invariant: no guess opens secrets of the gateway or another tenant: neither `/etc`, nor a home folder, nor `/tmp` as
//! a whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

use super::shared_directories::SharedDirectories;
use super::untrusted_paths::{UntrustedPaths, start_of};
use crate::config::{RUNNING, SELF};
use crate::process::sandbox::seccomp::KnownProgram;

/// Runtimes and tools below a home folder, to read and execute.
pub(super) const HOME_TOOLS: &[&str] = &[
    ".nvm",
    ".fnm",
    ".volta",
    ".asdf",
    ".pyenv",
    ".rbenv",
    ".sdkman",
    ".bun",
    ".deno",
    ".cargo/bin",
    ".rustup",
    "go/bin",
    ".local/bin",
    ".local/lib",
    ".local/pipx",
    ".local/share/mise",
    ".local/share/fnm",
    ".local/share/pnpm",
    ".config/fontconfig",
    ".config/uv",
    ".gitconfig",
];
/// Caches below a home folder, to change. Each is listed by itself, because credentials of tools are beside them.
pub(super) const HOME_CACHES: &[&str] = &[
    ".cache/uv",
    ".cache/node",
    ".cache/node-gyp",
    ".cache/pip",
    ".cache/pnpm",
    ".cache/yarn",
    ".cache/deno",
    ".cache/fontconfig",
    ".npm",
    ".local/share/uv/python",
    ".local/share/uv/tools",
    ".local/share/virtualenv",
    ".bun/install/cache",
];
/// Environment variables that name code or certificates. A server has no reason to change those.
const CODE_VARIABLES: &[&str] = &[
    "VIRTUAL_ENV",
    "NODE_PATH",
    "PYTHONPATH",
    "PYTHONHOME",
    "RUBYLIB",
    "PERL5LIB",
    "LD_LIBRARY_PATH",
    "JAVA_HOME",
    "GOROOT",
    "NVM_DIR",
    "PYENV_ROOT",
    "VOLTA_HOME",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
];
/// Environment variables whose values are not meant as data for the server.
const NOT_FOR_THE_SERVER: &[&str] = &["HOME", "PATH", "PWD", "OLDPWD", "TMPDIR", "TMP", "TEMP", "SHELL"];
/// Commands that need exceptions from denied system calls.
const KNOWN: &[(&str, KnownProgram)] = &[
    ("npx", KnownProgram::Npm),
    ("npm", KnownProgram::Npm),
    ("uvx", KnownProgram::Uv),
    ("uv", KnownProgram::Uv),
    (SELF, KnownProgram::Sluice),
];
/// Caches below the home folder that a launcher needs, whether they exist or not.
const OF_NPM: &[&str] = &[".npm"];
const OF_UV: &[&str] = &[".cache/uv", ".local/share/uv/python", ".local/share/uv/tools"];
/// The name of a container engine's client, and its settings below the home folder.
const ENGINE_SETTINGS: (&str, &str) = ("docker", ".docker");
/// Folders of the system. A path in one of them, if it is named, is opened for reading only.
const OF_THE_SYSTEM: &[&str] =
    &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/boot", "/proc", "/sys", "/nix"];
/// Extensions of program files.
const OF_PROGRAMS: &[&str] = &[
    "js", "mjs", "cjs", "jsx", "ts", "mts", "cts", "tsx", "py", "pyc", "pyz", "rb", "pl", "php", "lua", "sh", "jar",
    "wasm", "dll", "exs", "ps1",
];
/// Files and folders that mark the top folder of a project.
const PROJECT: &[&str] = &["package.json", "pyproject.toml", "node_modules", "deno.json", "pyvenv.cfg"];

/// Those of the paths `names` below `home` that exist.
pub(super) fn existing_below(home: &Path, names: &[&str]) -> impl Iterator<Item = PathBuf> {
    names.iter().map(|name| home.join(name)).filter(|path| path.exists())
}

/// The known program that a command is, by its file name.
pub fn known_program(program: &str) -> Option<KnownProgram> {
    let name = Path::new(program).file_name()?;
    KNOWN.iter().find(|(known, _)| name == *known).map(|(_, program)| *program)
}

/// For the command `program`: the settings below `home` to read, and the caches below `home` to change, which may not
/// exist yet.
pub(super) fn of_launcher(program: &str, home: &Path) -> (Option<PathBuf>, Vec<PathBuf>) {
    let caches = match known_program(program) {
        Some(KnownProgram::Npm) => OF_NPM,
        Some(KnownProgram::Uv) => OF_UV,
        Some(KnownProgram::Sluice) | None => &[],
    };
    let (engine, settings) = ENGINE_SETTINGS;
    let is_engine = Path::new(program).file_name() == Some(engine.as_ref());
    (is_engine.then(|| home.join(settings)), caches.iter().map(|path| home.join(path)).collect())
}

/// The paths of an installed program: the file, each symbolic link on the way to it, and the folder with the code
/// around each. If the program is a script, the same for the interpreter in its first line, looked up in `path`. Links
/// and scripts that the server itself can change are not followed.
pub(super) fn of_program(
    program: &Path,
    path: &str,
    shared: &SharedDirectories,
    untrusted: &UntrustedPaths,
) -> Vec<PathBuf> {
    // This program, whose file is another by now: the kernel's link to it, which nobody can change.
    if program == Path::new(RUNNING) {
        return vec![program.to_owned()];
    }
    let mut paths = Vec::new();
    let mut next = Some(program.to_owned());
    // An interpreter can be a script too. Neither chain is long, and a circle does not end.
    for _ in 0..4 {
        let Some(program) = next.take() else { break };
        let mut step = Some(program.clone());
        for _ in 0..8 {
            let Some(link) = step.take().filter(|link| untrusted.resolve(link).is_some()) else { break };
            paths.extend(code_around(&link, shared));
            step = link.read_link().ok().and_then(|target| Some(link.parent()?.join(target)));
            paths.push(link);
        }
        if let Some(file) = untrusted.resolve(&program) {
            paths.extend(code_around(&file, shared));
            next = interpreter(&file, path, untrusted);
            paths.push(file);
        }
    }
    paths
}

/// The interpreter in the first line of a script, such as `#!/usr/bin/python3` or `#!/usr/bin/env node`.
fn interpreter(script: &Path, path: &str, untrusted: &UntrustedPaths) -> Option<PathBuf> {
    let start = start_of(script)?;
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let program = Path::new(words.next()?);
    if !program.ends_with("env") {
        return Some(program.to_owned());
    }
    let name = words.find(|word| !word.starts_with('-') && !word.contains('='))?;
    // With options that take a word of their own, that is none. A program that is meant to be looked up has no path.
    let mut folders = path.split(':').filter(|_| !name.contains('/')).map(|folder| Path::new(folder).join(name));
    folders.find(|found| untrusted.resolve(found).is_some_and(|file| file.is_file()))
}

/// The folder with the code around `file`: its `node_modules`, project, installation prefix or parent folder; the first
/// of these that is no shared directory.
pub(super) fn code_around(file: &Path, shared: &SharedDirectories) -> Option<PathBuf> {
    let parent = file.parent()?;
    // What a package needs is beside it, not below it.
    let packages = parent.ancestors().filter(|folder| folder.ends_with("node_modules")).last();
    let project = parent.ancestors().take(5).find(|folder| PROJECT.iter().any(|mark| folder.join(mark).exists()));
    let installation = parent.parent().filter(|folder| parent.ends_with("bin") && !shared.is_install_prefix(folder));
    let mut folders = packages.into_iter().chain(project).chain(installation).chain([parent]);
    folders.find(|folder| !shared.includes(folder)).map(Path::to_owned)
}

/// The existing paths that arguments name, including `--flag=PATH`. The operator who wrote them meant the server to use
/// them.
pub fn in_arguments(args: &[String], cwd: Option<&Path>, untrusted: &UntrustedPaths) -> Vec<PathBuf> {
    values(args).filter_map(|value| existing(value, cwd, untrusted)).collect()
}

/// The script that arguments name: the first argument that is an existing program file and no flag.
pub fn script_in(args: &[String], cwd: Option<&Path>, untrusted: &UntrustedPaths) -> Option<PathBuf> {
    let words = args.iter().filter(|arg| !arg.starts_with('-'));
    words.filter_map(|word| existing(word, cwd, untrusted)).find(|path| is_program(path))
}

/// The values of arguments: those without a leading dash, and what follows the "=" in flags.
fn values(args: &[String]) -> impl Iterator<Item = &str> {
    let values = args.iter().filter_map(|arg| match arg.starts_with('-') {
        true => Some(arg.split_once('=')?.1),
        false => Some(arg.as_str()),
    });
    values.map(|value| value.strip_prefix("file://").unwrap_or(value))
}

/// The absolute paths that arguments and variables name, whether they exist or not, as long as their folder exists and
/// is not `/`. Values with a colon are left out.
pub fn named(args: &[String], env: &BTreeMap<String, SecretString>) -> Vec<PathBuf> {
    let env = env.iter().filter(|(name, _)| !NOT_FOR_THE_SERVER.contains(&name.as_str()));
    let texts = values(args).chain(env.map(|(_, value)| value.expose_secret()));
    let paths = texts.filter(|text| text.starts_with('/') && !text.contains(':')).map(PathBuf::from);
    paths.filter(|path| path.parent().is_some_and(|parent| parent.parent().is_some() && parent.is_dir())).collect()
}

/// Whether a path is code or part of the system. A server must not change it, because the next child runs it, perhaps
/// for another tenant.
pub fn is_code(path: &Path) -> bool {
    OF_THE_SYSTEM.iter().any(|folder| path.starts_with(folder)) || is_program(path)
}

/// Whether a file is a program, by its extension or its first bytes.
fn is_program(path: &Path) -> bool {
    let is_named_as_one =
        || path.extension().is_some_and(|extension| OF_PROGRAMS.iter().any(|known| extension == *known));
    let starts_as_one = || {
        let start = start_of(path).unwrap_or_default();
        start.starts_with(b"#!") || start.starts_with(b"\x7fELF")
    };
    path.is_file() && (is_named_as_one() || starts_as_one())
}

/// The existing paths that environment variables name: those to read, and those to change.
pub(super) fn in_variables(
    env: &BTreeMap<String, SecretString>,
    shared: &SharedDirectories,
    untrusted: &UntrustedPaths,
) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (mut read, mut write) = (Vec::new(), Vec::new());
    for (name, value) in env.iter().filter(|(name, _)| !NOT_FOR_THE_SERVER.contains(&name.as_str())) {
        // A list of paths, as in PYTHONPATH, or a single one.
        let paths = value.expose_secret().split(':').filter(|text| text.starts_with('/'));
        let paths = paths.filter_map(|text| existing(text, None, untrusted)).filter(|path| !shared.includes(path));
        let is_code = CODE_VARIABLES.contains(&name.as_str());
        let (code, data): (Vec<_>, Vec<_>) = paths.partition(|path| is_code || self::is_code(path));
        read.extend(code);
        write.extend(data);
    }
    (read, write)
}

fn existing(text: &str, cwd: Option<&Path>, untrusted: &UntrustedPaths) -> Option<PathBuf> {
    let path = match cwd {
        Some(cwd) => cwd.join(text),
        None => PathBuf::from(text),
    };
    // A word such as "stdio" names a file only by accident, unless it is looked for where the server runs.
    let path = Some(path).filter(|path| path.is_absolute())?;
    untrusted.resolve(&path).filter(|path| path.parent().is_some())
}

#[cfg(test)]
mod tests;
