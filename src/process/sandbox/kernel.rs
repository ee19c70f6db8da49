//! Finds out which parts of a sandbox this kernel enforces. Invariant: each part is tried out, in a thread of its own,
//! so that a part which a container forbids counts as missing too.

use super::landlock::{Enclosure, enclose};
use super::seccomp::Denials;

/// First version of Landlock that enforces the whole sandbox: it also contains signals and abstract sockets (Linux
/// 6.12).
const ENOUGH: u8 = 6;
/// First version of Landlock that controls TCP ports (Linux 6.7).
const KNOWS_PORTS: u8 = 4;

/// The parts of a sandbox that depend on the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// The version of Landlock; 0 if there is none.
    pub landlock: u8,
    /// Whether system calls can be denied.
    pub seccomp: bool,
}

impl Kernel {
    /// Tries out both parts.
    pub fn probe() -> Self {
        let probe = || {
            // Neither is allowed otherwise to who is not root.
            let _ = rustix::thread::set_no_new_privs(true);
            let landlock = enclose(&Enclosure::default()).unwrap_or(0);
            Self { landlock, seccomp: Denials::default().apply().is_ok() }
        };
        std::thread::spawn(probe).join().unwrap_or(Self { landlock: 0, seccomp: false })
    }

    /// The enforced parts of a sandbox, in words.
    pub fn enforces(&self) -> Vec<String> {
        let landlock = (self.landlock > 0).then(|| format!("paths (Landlock {})", self.landlock));
        let seccomp = self.seccomp.then(|| "system calls (seccomp)".to_owned());
        ["no new privileges".to_owned()].into_iter().chain(landlock).chain(seccomp).collect()
    }

    /// The missing parts of a sandbox with their consequences, in words.
    pub fn lacking(&self) -> Vec<String> {
        let mut parts = Vec::new();
        let version = self.landlock;
        if version == 0 {
            let text = "Landlock (Linux 5.13, enabled at boot): files and other processes are open to a server";
            parts.push(text.to_owned());
        } else if version < ENOUGH {
            let truncate = if version < 3 { "a file that may only be read can be emptied, " } else { "" };
            let listen = if version < KNOWS_PORTS { "any port that is free can be listened on, and " } else { "" };
            let text = format!("Landlock {ENOUGH} (it has {version}): {truncate}{listen}signals reach other processes");
            parts.push(text);
        }
        if !self.seccomp {
            parts.push("seccomp: no system call is refused".to_owned());
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn a_probe_restricts_nobody_else() {
        assert_eq!(Kernel::probe(), Kernel::probe());
        assert!(std::fs::read_dir("/").is_ok());
    }

    #[test]
    fn what_is_missing_is_named() {
        let lacking = |landlock, seccomp| Kernel { landlock, seccomp }.lacking();
        assert!(lacking(6, true).is_empty() && lacking(7, true).is_empty());
        assert!(lacking(0, true)[0].starts_with("Landlock (Linux 5.13"));
        assert!(lacking(5, true)[0].contains("signals"));
        assert!(!lacking(5, true)[0].contains("emptied") && !lacking(5, true)[0].contains("port"));
        assert!(lacking(3, true)[0].contains("any port") && !lacking(4, true)[0].contains("any port"));
        assert!(lacking(2, true)[0].contains("emptied"));
        assert!(lacking(7, false)[0].starts_with("seccomp"));
    }
}
