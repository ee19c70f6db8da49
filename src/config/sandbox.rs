//! What a child is kept from. Reads `sandbox`, for all servers and for each: one word, or a table with a `mode` and what
//! is allowed beside it. Every path and every user in it exists, and nothing in it contradicts itself.

use std::path::PathBuf;

use super::accounts::{self, Account};
use super::section::Section;

/// What a child is kept from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// How much.
    pub mode: SandboxMode,
    /// Whether a kernel that cannot enforce all of it is a reason not to start the child.
    pub required: bool,
    /// Whether it may use the network. `None`: as the mode has it.
    pub network: Option<bool>,
    /// Which files and folders are opened to it beside those in `read` and `write`.
    pub open: SandboxOpen,
    /// Files and folders that it may read and execute, beside those of the mode. They exist.
    pub read: Vec<PathBuf>,
    /// Files and folders that it may change, beside those of the mode. They exist.
    pub write: Vec<PathBuf>,
    /// What it may do although its mode refuses it.
    pub allow: Vec<Allowance>,
    /// As whom it runs; as the gateway otherwise.
    pub account: Option<Account>,
}

impl Sandbox {
    /// Whether the child may use the network.
    pub fn has_network(&self) -> bool {
        self.network.unwrap_or(self.mode != SandboxMode::Strict)
    }

    /// Whether the network is off, and there is a way to it all the same.
    pub fn opens_network_unseen(&self) -> bool {
        self.allow.contains(&Allowance::IoUring) && !self.has_network()
    }

    /// Whether it allows to listen with the network off, which opens nothing.
    pub fn listens_without_network(&self) -> bool {
        self.allow.contains(&Allowance::Listen) && !self.has_network()
    }
}

/// How much a child is kept from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SandboxMode {
    /// Nothing: it may do what the gateway's user may.
    None,
    /// What wrapped servers have no business with; launchers such as `npx` and `uvx` work. The default.
    #[default]
    Standard,
    /// All but its working directory and its own code.
    Strict,
}

impl SandboxMode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Standard, Self::Strict];

    /// The word for it in a configuration.
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
    /// Those that the gateway infers from the server's command, arguments, environment and working directory. The default.
    #[default]
    Inferred,
    /// None but the system's, the program itself, and the temporary folder and workspace that the gateway makes.
    Listed,
}

impl SandboxOpen {
    /// The word for it in a configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inferred => "inferred",
            Self::Listed => "listed",
        }
    }
}

/// A thing that a sandbox refuses unless it is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Allowance {
    /// New namespaces: Chromium's own sandbox, bubblewrap.
    Namespaces,
    /// Tracing its own processes: debuggers and profilers.
    Debug,
    /// `io_uring`.
    IoUring,
    /// Memory shared by name (`/dev/shm`) and the kernel's message queues, with every process of the same user.
    SharedMemory,
    /// Sockets in the file system: those of a container engine, a database, the session's bus.
    UnixSockets,
    /// Listening on TCP ports of its choice; otherwise the kernel chooses.
    Listen,
    /// Changing the mode, the owner, the times and the attributes of files by their paths: of all files of its user.
    Metadata,
}

impl Allowance {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Namespaces,
        Self::Debug,
        Self::IoUring,
        Self::SharedMemory,
        Self::UnixSockets,
        Self::Listen,
        Self::Metadata,
    ];

    /// The word for it in a configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Debug => "debug",
            Self::IoUring => "io_uring",
            Self::SharedMemory => "shared_memory",
            Self::UnixSockets => "unix_sockets",
            Self::Listen => "listen",
            Self::Metadata => "metadata",
        }
    }
}

const MODES: [(&str, SandboxMode); 3] = [
    (SandboxMode::None.as_str(), SandboxMode::None),
    (SandboxMode::Standard.as_str(), SandboxMode::Standard),
    (SandboxMode::Strict.as_str(), SandboxMode::Strict),
];

const OPEN: [(&str, SandboxOpen); 2] =
    [(SandboxOpen::Inferred.as_str(), SandboxOpen::Inferred), (SandboxOpen::Listed.as_str(), SandboxOpen::Listed)];

/// What to say where that is so.
const UNSEEN: &str = "allows \"io_uring\", by which a server makes sockets that nobody sees, with the network off; remove \
                      it from allow, or set network = true";

/// The same where it may listen on a network that is off.
const UNHEARD: &str = "allows \"listen\" with the network off, where nobody can connect; remove it from allow, or set \
                       network = true";

/// Reads `sandbox` and `require_sandbox` of a table; what is not there is as in `default`.
pub(super) fn read(parent: &mut Section<'_>, default: &Sandbox) -> Sandbox {
    let required = parent.flag("require_sandbox");
    let mut sandbox = if parent.is_text("sandbox") {
        Sandbox { mode: parent.choice("sandbox", default.mode, &MODES), ..default.clone() }
    } else {
        table(parent.section("sandbox"), default)
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

fn table(mut section: Section<'_>, default: &Sandbox) -> Sandbox {
    let s = &mut section;
    let mode = s.choice("mode", default.mode, &MODES);
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
    section.finish();
    Sandbox { mode, required: default.required, network, open, read, write, allow, account }
}

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
    let known = |word: &str| Allowance::ALL.into_iter().find(|allowance| allowance.as_str() == word);
    for (index, word) in words.iter().enumerate().filter(|(_, word)| known(word).is_none()) {
        let names = Allowance::ALL.map(|allowance| format!("{:?}", allowance.as_str()));
        let text = format!("{word:?} is none of {}; use one of them", names.join(", "));
        s.reading.problem(&s.path.key("allow").index(index), text);
    }
    Some(words.iter().filter_map(|word| known(word)).collect())
}

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
