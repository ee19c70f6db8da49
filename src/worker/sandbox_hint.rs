//! The hint that a server's sandbox may be why the server failed: the server itself mostly writes no more than
//! "permission denied".

use crate::config::{SandboxMode, Server};
use crate::process::Exit;
use crate::process::sandbox::unopened_cwd;

/// Texts that programs write when the system refuses them something, in lower case.
const REFUSED: [&str; 7] = [
    "permission denied",
    "eacces",
    "eperm",
    "operation not permitted",
    "permissionerror",
    "read-only file system",
    "erofs",
];
/// SIGSYS: the program made a system call of another architecture.
const SIGSYS: i32 = 31;

/// A hint about the sandbox of a server that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SandboxHint {
    /// The text for the error.
    pub(super) text: String,
    /// Whether the sandbox is likely to be the cause.
    pub(super) is_likely: bool,
}

impl SandboxHint {
    /// The hint for a server that ended (`exit`), or did not answer (`None`), after these lines on stderr. `None` for a
    /// server without a sandbox.
    pub(super) fn of(server: &Server, exit: Option<Exit>, stderr: &[String]) -> Option<Self> {
        let says_so = |line: &String| {
            let line = line.to_ascii_lowercase();
            REFUSED.iter().any(|words| line.contains(words))
        };
        let is_likely = exit.and_then(Exit::signal) == Some(SIGSYS) || stderr.iter().any(says_so);
        let mode = server.sandbox.mode;
        if mode == SandboxMode::None {
            return None;
        }
        if let Some(text) = unopened_cwd(server) {
            return Some(Self { text: format!("it {text}"), is_likely: true });
        }
        let (mode, name) = (mode.as_str(), &server.name);
        let keys = match server.is_by_arguments {
            true => "--read, --write, --network, --allow or --sandbox none".to_owned(),
            false => format!("servers.{name}.sandbox.read, write, network or allow"),
        };
        let text = match is_likely {
            true => format!("it seems that its sandbox \"{mode}\" refused it something: allow what it needs by {keys}"),
            false => format!("it ran in the sandbox \"{mode}\", which is widened by {keys}"),
        };
        Some(Self { text, is_likely })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn hint(mode: SandboxMode, line: &str) -> Option<SandboxHint> {
        let mut server = Server::new("files".parse().unwrap(), "sh", Vec::new());
        server.sandbox.mode = mode;
        SandboxHint::of(&server, None, &["a line".to_owned(), line.to_owned()])
    }

    #[test]
    fn words_of_a_refusal_make_it_likely() {
        for line in [
            "sh: 1: cannot create x: Permission denied",
            "Error: EACCES: permission denied, open '/etc/shadow'",
            "Error: listen EPERM: operation not permitted /tmp/x",
            "PermissionError: [Errno 13]",
            "OSError: [Errno 30] Read-only file system: '/x'",
        ] {
            assert!(hint(SandboxMode::Standard, line).unwrap().is_likely, "{line}");
            assert_eq!(hint(SandboxMode::None, line), None);
        }
        let hint = hint(SandboxMode::Strict, "cannot open the database").unwrap();
        assert!(!hint.is_likely);
        let text =
            "it ran in the sandbox \"strict\", which is widened by servers.files.sandbox.read, write, network or allow";
        assert_eq!(hint.text, text);
    }

    #[test]
    fn a_folder_that_is_not_opened_is_named_whatever_the_server_says() {
        let mut server = Server::new("files".parse().unwrap(), "sh", Vec::new());
        server.cwd = Some("/srv".into());
        let hint = SandboxHint::of(&server, None, &["No module named 'lib'".to_owned()]).unwrap();
        assert!(hint.is_likely && hint.text.starts_with("it starts in /srv, where everybody's things are"), "{hint:?}");
    }

    #[test]
    fn who_uses_arguments_is_told_of_arguments() {
        let mut server = Server::new("server".parse().unwrap(), "sh", Vec::new());
        server.sandbox.mode = SandboxMode::Standard;
        server.is_by_arguments = true;
        let text = SandboxHint::of(&server, None, &["EACCES".to_owned()]).unwrap().text;
        assert!(
            text.contains("refused it something") && text.contains("--write") && !text.contains("servers."),
            "{text}"
        );
    }
}
