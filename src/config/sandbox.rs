//! The sandbox of children. Reads `sandbox`, of all servers or of one: a word, or a table with a `mode` and exceptions.
//! All paths and users in a valid sandbox exist.

use std::path::PathBuf;

use super::accounts::{self, Account};
use super::section::Section;

/// The sandbox of a server's children.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// The mode.
    pub mode: SandboxMode,
    /// Whether no child is started if the kernel cannot enforce the whole sandbox (`require_sandbox`).
    pub required: bool,
    /// Whether a child may use the network. `None`: the mode decides.
    pub network: Option<bool>,
    /// Which files and folders are open besides those in `read` and `write`.
    pub open: SandboxOpen,
    /// Further files and folders that a child may read and execute. Existing canonical paths.
    pub read: Vec<PathBuf>,
    /// Further files and folders that a child may change. Existing canonical paths.
    pub write: Vec<PathBuf>,
    /// Exceptions from the rules of the mode.
    pub allow: Vec<Allowance>,
    /// The user of a child. `None`: the user of the gateway.
    pub account: Option<Account>,
}

impl Sandbox {
    /// Whether a child may use the network: as `network` says, otherwise in all modes but `strict`.
    pub fn has_network(&self) -> bool {
        self.network.unwrap_or(self.mode != SandboxMode::Strict)
    }

    /// Whether `allow` has `io_uring`, which can open sockets unseen, although the network is off.
    pub fn opens_network_unseen(&self) -> bool {
        self.allow.contains(&Allowance::IoUring) && !self.has_network()
    }

    /// Whether `allow` has `listen`, which has no effect, although the network is off.
    pub fn listens_without_network(&self) -> bool {
        self.allow.contains(&Allowance::Listen) && !self.has_network()
    }
}

/// The strength of a sandbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SandboxMode {
    /// No sandbox: a child may do everything that its user may.
    None,
    /// Refuses what MCP servers do not need. Launchers such as `npx` and `uvx` work. The default.
    #[default]
    Standard,
    /// Opens only the working directory and the code of the server, and no network.
    Strict,
}

impl SandboxMode {
    /// All modes.
    pub const ALL: [Self; 3] = [Self::None, Self::Standard, Self::Strict];

    /// The word in a configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Standard => "standard",
            Self::Strict => "strict",
        }
    }
}

/// Which files and folders a sandbox opens besides those that `sandbox.read` and `sandbox.write` list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SandboxOpen {
    /// Those that the gateway infers from the server's command, arguments, environment and working directory. The
    /// default.
    #[default]
    Inferred,
    /// None but the system's, the program itself, and the temporary folder and workspace that the gateway makes.
    Listed,
}

/// An exception from the rules of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Allowance {
    /// New namespaces, as Chromium's own sandbox and bubblewrap need.
    Namespaces,
    /// Tracing the child's own processes, as debuggers and profilers need.
    Debug,
    /// `io_uring`.
    IoUring,
    /// Shared memory and message queues, by name or of System V, which all processes of the same user can open.
    SharedMemory,
    /// Connections to sockets in the file system, such as those of a container engine or a database.
    UnixSockets,
    /// Listening on a TCP port of the child's choice. Otherwise the kernel chooses the port.
    Listen,
    /// Changing mode, owner, times and attributes of files by path. This covers all files of the child's user.
    Metadata,
}

impl Allowance {
    /// All of them, each with its word in a configuration.
    pub const WORDS: [(&'static str, Self); 7] = [
        ("namespaces", Self::Namespaces),
        ("debug", Self::Debug),
        ("io_uring", Self::IoUring),
        ("shared_memory", Self::SharedMemory),
        ("unix_sockets", Self::UnixSockets),
        ("listen", Self::Listen),
        ("metadata", Self::Metadata),
    ];

    /// The allowance with this word.
    pub fn by_word(word: &str) -> Option<Self> {
        Self::WORDS.into_iter().find(|(known, _)| *known == word).map(|(_, allowance)| allowance)
    }

    /// The word in a configuration.
    pub fn as_str(self) -> &'static str {
        Self::WORDS.into_iter().find(|(_, allowance)| *allowance == self).map_or("", |(word, _)| word)
    }
}

const OPEN: [(&str, SandboxOpen); 2] = [("inferred", SandboxOpen::Inferred), ("listed", SandboxOpen::Listed)];

/// The problem with a sandbox that [opens the network unseen](Sandbox::opens_network_unseen).
const UNSEEN: &str = "allows \"io_uring\", by which a server makes sockets that nobody sees, with the network off; remove \
                      it from allow, or set network = true";

/// The problem with a sandbox that [listens without a network](Sandbox::listens_without_network).
const UNHEARD: &str = "allows \"listen\" with the network off, where nobody can connect; remove it from allow, or set \
                       network = true";

/// Reads `sandbox` and `require_sandbox` of a table. `default` has the values for absent keys.
pub(super) fn read(parent: &mut Section<'_>, default: &Sandbox) -> Sandbox {
    let required = parent.flag("require_sandbox");
    let mut sandbox = if parent.is_text("sandbox") {
        Sandbox { mode: parent.choice("sandbox", default.mode, &modes()), ..default.clone() }
    } else {
        parent.table("sandbox", |section| table(section, default))
    };
    if sandbox.mode == SandboxMode::None {
        // What the default allows beside its mode has no meaning here.
        sandbox = Sandbox { mode: SandboxMode::None, account: sandbox.account, ..Sandbox::default() };
        if required == Some(true) {
            parent.problem("require_sandbox", "there is none to require: sandbox is \"none\"; change one of the two");
        } else if required.is_none() && default.required && parent.has("sandbox") {
            let text = "is \"none\", while require_sandbox = true holds for all servers; choose another mode, or set \
                        require_sandbox = false here";
            parent.problem("sandbox", text);
        }
        return sandbox;
    }
    sandbox.required = required.unwrap_or(default.required);
    if sandbox.opens_network_unseen() && parent.has("sandbox") {
        parent.problem("sandbox", UNSEEN);
    }
    if sandbox.listens_without_network() && parent.has("sandbox") {
        parent.problem("sandbox", UNHEARD);
    }
    sandbox
}

/// The words of all modes.
fn modes() -> [(&'static str, SandboxMode); 3] {
    SandboxMode::ALL.map(|mode| (mode.as_str(), mode))
}

fn table(s: &mut Section<'_>, default: &Sandbox) -> Sandbox {
    let mode = s.choice("mode", default.mode, &modes());
    let network = s.flag("network").or(default.network);
    let open = s.choice("open", default.open, &OPEN);
    let read = paths(s, "read").unwrap_or_else(|| default.read.clone());
    let write = paths(s, "write").unwrap_or_else(|| default.write.clone());
    let allow = allowances(s).unwrap_or_else(|| default.allow.clone());
    let account = account(s).or_else(|| default.account.clone());
    if mode == SandboxMode::None {
        for key in ["network", "open", "read", "write", "allow"] {
            if s.has(key) {
                s.problem(key, "has no effect: mode is \"none\"; remove it, or choose another mode");
            }
        }
    }
    Sandbox { mode, required: default.required, network, open, read, write, allow, account }
}

/// The canonical paths of existing files and folders, relative to the folder of the file. `/` is a problem.
fn paths(s: &mut Section<'_>, key: &str) -> Option<Vec<PathBuf>> {
    let texts = s.optional_strings(key)?;
    let mut paths = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let place = s.path.key(key).index(index);
        let path = s.reading.source.folder().join(text);
        match path.symlink_metadata().and_then(|_| path.canonicalize()) {
            Ok(path) if path.parent().is_none() => {
                s.reading.problem(&place, "is everything; name what the server needs, or choose mode = \"none\"");
            }
            Ok(_) => paths.push(path),
            Err(error) => {
                let text = format!("{} cannot be used: {error}; make it or correct the path", path.display());
                s.reading.problem(&place, text);
            }
        }
    }
    Some(paths)
}

fn allowances(s: &mut Section<'_>) -> Option<Vec<Allowance>> {
    let words = s.optional_strings("allow")?;
    for (index, word) in words.iter().enumerate().filter(|(_, word)| Allowance::by_word(word).is_none()) {
        let names = Allowance::WORDS.map(|(word, _)| format!("{word:?}"));
        let text = format!("{word:?} is none of {}; use one of them", names.join(", "));
        s.reading.problem(&s.path.key("allow").index(index), text);
    }
    Some(words.iter().filter_map(|word| Allowance::by_word(word)).collect())
}

/// The account that `user` and `group` name. A problem if the gateway does not run as root.
fn account(s: &mut Section<'_>) -> Option<Account> {
    let (user, group) = (s.nonempty("user"), s.nonempty("group"));
    let Some(user) = user else {
        if group.is_some() {
            s.problem("group", "a group without a user; give the user too");
        }
        return None;
    };
    let account = accounts::find(&user, group.as_deref()).map_err(|(key, text)| s.problem(key, text)).ok()?;
    if !rustix::process::geteuid().is_root() {
        s.problem("user", "only root can start a server as another user; start the gateway as root, or remove it");
    }
    Some(account)
}
