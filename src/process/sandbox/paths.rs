//! Where programs, their libraries and their caches are. Invariant: nothing here holds a secret of the gateway or of
//! another tenant: not `/etc` as a whole, not a home folder as a whole, not `/tmp`.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

/// Where programs and what they need to run are.
pub const PROGRAMS: &[&str] = &[
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/share",
    "/usr/include",
    "/usr/local/bin",
    "/usr/local/lib",
    "/usr/local/share",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/localtime",
];
/// Devices without a state that programs expect.
pub const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];
/// What programs read of the system, beside [`PROGRAMS`].
pub(super) const SYSTEM: &[&str] = &[
    "/usr",
    "/opt",
    "/nix/store",
    "/home/linuxbrew/.linuxbrew",
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/fonts",
    "/etc/gai.conf",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/inputrc",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/locale.conf",
    "/etc/machine-id",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/pki",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/ssl/openssl.cnf",
    "/etc/timezone",
    "/proc",
    "/sys/devices/system",
    "/sys/fs/cgroup",
    "/sys/kernel/mm/transparent_hugepage",
];
/// What the language runtimes read about the machine, without the processes on it.
pub(super) const MACHINE: &[&str] = &[
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/uptime",
    "/proc/version",
    "/proc/filesystems",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/kernel/osrelease",
    "/sys/devices/system/cpu",
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/ssl/openssl.cnf",
    "/etc/os-release",
    "/etc/alternatives",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/nsswitch.conf",
];
/// Versions and tools below a home folder: read and executed.
const HOME_TOOLS: &[&str] = &[
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
/// Caches below a home folder: changed.
const HOME_CACHES: &[&str] = &[".cache", ".npm", ".local/share/uv", ".local/share/virtualenv", ".bun/install/cache"];
/// Variables with code and certificates, which a server has no reason to change.
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
/// Variables whose folders are not meant for the server itself.
const NOT_FOR_THE_SERVER: &[&str] = &["HOME", "PATH", "PWD", "OLDPWD", "TMPDIR", "TMP", "TEMP", "SHELL"];
/// Launchers that make their caches below the home folder where there are none yet, and which.
const LAUNCHERS: &[(&str, &str)] =
    &[("npx", ".npm"), ("npm", ".npm"), ("uvx", ".cache"), ("uvx", ".local/share/uv"), ("uv", ".cache"), ("uv", ".local/share/uv")];
/// What marks the folder in which a program's own code begins.
const PROJECT: &[&str] = &["package.json", "pyproject.toml", "node_modules", "deno.json", "pyvenv.cfg"];

/// The folders of a home that are read, and that are changed.
pub(super) fn of_home(home: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let under = |names: &[&str]| names.iter().map(|name| home.join(name)).filter(|path| path.exists()).collect();
    (under(HOME_TOOLS), under(HOME_CACHES))
}

/// The caches that a launcher needs and may not find.
pub(super) fn caches_of(program: &str, home: &Path) -> Vec<PathBuf> {
    let name = Path::new(program).file_name().unwrap_or_default();
    LAUNCHERS.iter().filter(|(launcher, _)| name == *launcher).map(|(_, cache)| home.join(cache)).collect()
}

/// Where a program is installed: itself, and the folder around its `bin` or around itself, for every link to it.
pub(super) fn of_program(program: &Path, home: Option<&Path>) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let mut step = Some(program.to_owned());
    // A chain of links is short; a circle of them does not end.
    for _ in 0..8 {
        let Some(path) = step.take() else { break };
        paths.push(path.clone());
        paths.extend(code_around(&path, home));
        step = path.read_link().ok().and_then(|target| Some(path.parent()?.join(target)));
    }
    if let Ok(path) = program.canonicalize() {
        paths.extend(code_around(&path, home));
        paths.push(path);
    }
    paths
}

/// The folder with a file's own code: the project, the installation or the folder that it is in, as long as that is not
/// one with everything in it.
pub(super) fn code_around(file: &Path, home: Option<&Path>) -> Option<PathBuf> {
    let parent = file.parent()?;
    let project = parent.ancestors().take(5).find(|folder| PROJECT.iter().any(|mark| folder.join(mark).exists()));
    let installation = parent.parent().filter(|_| parent.ends_with("bin"));
    let mut folders = project.into_iter().chain(installation).chain([parent]);
    folders.find(|folder| !is_crowded(folder, home)).map(Path::to_owned)
}

/// Whether a folder is one in which everybody's things are: to allow it for the sake of one file would be wrong.
pub(super) fn is_crowded(folder: &Path, home: Option<&Path>) -> bool {
    const CROWDED: [&str; 14] = [
        "/tmp", "/var", "/var/tmp", "/etc", "/run", "/root", "/home", "/proc", "/sys", "/dev", "/srv", "/mnt", "/media",
        "/boot",
    ];
    folder.components().any(|part| part == Component::ParentDir)
        || folder.parent().is_none()
        || CROWDED.iter().any(|crowded| folder == Path::new(crowded))
        || home.is_some_and(|home| home.starts_with(folder))
}

/// The existing paths that arguments name, also as `--flag=PATH`. Whoever configured them meant the server to use them.
pub(super) fn in_arguments(args: &[String], cwd: Option<&Path>) -> Vec<PathBuf> {
    let named = |arg: &String| {
        let value = if arg.starts_with('-') { arg.split_once('=')?.1 } else { arg.as_str() };
        existing(value.strip_prefix("file://").unwrap_or(value), cwd)
    };
    args.iter().filter_map(named).collect()
}

/// The existing paths that variables name: those to read, and those to change.
pub(super) fn in_variables(env: &BTreeMap<String, SecretString>, home: Option<&Path>) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (mut read, mut write) = (Vec::new(), Vec::new());
    for (name, value) in env.iter().filter(|(name, _)| !NOT_FOR_THE_SERVER.contains(&name.as_str())) {
        // A list of paths, as in PYTHONPATH, or a single one.
        let paths = value.expose_secret().split(':').filter(|text| text.starts_with('/'));
        let paths = paths.filter_map(|text| existing(text, None)).filter(|path| !is_crowded(path, home));
        if CODE_VARIABLES.contains(&name.as_str()) { read.extend(paths) } else { write.extend(paths) }
    }
    (read, write)
}

fn existing(text: &str, cwd: Option<&Path>) -> Option<PathBuf> {
    let path = match cwd {
        Some(cwd) => cwd.join(text),
        None => PathBuf::from(text),
    };
    // A word such as "stdio" names a file only by accident, unless it is looked for where the server runs.
    let path = Some(path).filter(|path| path.is_absolute() && path.exists())?;
    path.canonicalize().ok().filter(|path| path.parent().is_some())
}
