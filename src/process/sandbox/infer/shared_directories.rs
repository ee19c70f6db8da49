//! Directories that hold files of several users or programs, such as `/tmp` and home folders. Invariant: a guess never
//! opens one of them as a whole for the sake of one file in it.

use std::path::{Component, Path, PathBuf};

use crate::config;

/// Shared directories of the system.
const SHARED: [&str; 15] = [
    "/tmp", "/var", "/var/tmp", "/etc", "/run", "/root", "/home", "/proc", "/sys", "/dev", "/srv", "/mnt", "/media",
    "/boot", "/opt",
];
/// Installation prefixes: folders whose `bin` contains unrelated programs. The last constant is relative to a home
/// folder.
const INSTALLED_IN: [&str; 3] = ["/usr", "/usr/local", "/opt"];
const INSTALLED_IN_HOME: &str = ".local";

/// The shared directories in the view of a server: those of the system and all home folders.
#[derive(Debug, Clone, Default)]
pub struct SharedDirectories {
    homes: Vec<PathBuf>,
}

impl SharedDirectories {
    /// Combines `homes`, the server's own, with the home folders of all users of the machine.
    pub fn of(mut homes: Vec<PathBuf>) -> Self {
        homes.extend(config::homes());
        let real: Vec<_> = homes.iter().filter_map(|home| home.canonicalize().ok()).collect();
        homes.extend(real);
        homes.retain(|home| home.parent().is_some());
        homes.sort();
        homes.dedup();
        Self { homes }
    }

    /// Whether `folder` is a shared directory or contains a home folder. Also true for `/` and for a path with `..`.
    pub fn includes(&self, folder: &Path) -> bool {
        folder.components().any(|part| part == Component::ParentDir)
            || folder.parent().is_none()
            || SHARED.iter().any(|known| folder == Path::new(known))
            || self.homes.iter().any(|home| home.starts_with(folder))
    }

    /// Whether `folder` is an installation prefix.
    pub fn is_install_prefix(&self, folder: &Path) -> bool {
        INSTALLED_IN.iter().any(|known| folder == Path::new(known))
            || self.homes.iter().any(|home| folder == home.join(INSTALLED_IN_HOME))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn every_home_is_crowded_and_so_is_what_they_are_in() {
        let shared = SharedDirectories::of(vec!["/tmp".into(), "/data/me".into()]);
        for folder in ["/", "/tmp", "/data/me", "/data", "/root", "/srv/../etc"] {
            assert!(shared.includes(Path::new(folder)), "{folder}");
        }
        assert!(shared.includes(&config::home_of(0).unwrap()));
        assert!(!shared.includes(Path::new("/data/me/work")));
        assert!(
            shared.is_install_prefix(Path::new("/data/me/.local"))
                && !shared.is_install_prefix(Path::new("/data/me/tool"))
        );
    }
}
