//! Resolves paths without trusting what a server can change. Invariant: neither a symbolic link that a server has made
//! nor the content of a file that it has written decides what is opened to it. Otherwise a server could end itself to
//! be restarted with more access.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::config::Server;

/// Most symbolic links in one path, as in the kernel.
const MAX_LINKS: usize = 40;

/// The folders that a server may change, without symbolic links in their paths.
#[derive(Debug, Clone, Default)]
pub struct UntrustedPaths {
    folders: Vec<PathBuf>,
}

impl UntrustedPaths {
    /// The folders that the configuration lets `server` change, and its workspaces.
    pub fn of(server: &Server) -> Self {
        let workspaces = server.workspace.as_ref().and_then(|base| base.canonicalize().ok());
        Self { folders: workspaces.into_iter().chain(server.sandbox.write.iter().cloned()).collect() }
    }

    /// Adds `folders`.
    pub fn with(mut self, folders: impl IntoIterator<Item = PathBuf>) -> Self {
        self.folders.extend(folders);
        self
    }

    /// Resolves the home folder `home`. `None` if that fails, or if the server may change all of it, so that nothing in
    /// it needs to be opened.
    pub fn home(&self, home: &Path) -> Option<PathBuf> {
        self.resolve(home).filter(|home| !self.folders.contains(home))
    }

    /// Whether `path` is inside one of the folders. A folder is not inside itself.
    fn holds(&self, path: &Path) -> bool {
        self.folders.iter().any(|folder| path != folder && path.starts_with(folder))
    }

    /// Resolves all symbolic links of an absolute path. `None` if nothing is there, or if the way leads into an
    /// untrusted folder: the server can change what is in there, and has access to it anyway.
    pub fn resolve(&self, path: &Path) -> Option<PathBuf> {
        let mut done = PathBuf::from("/");
        let mut rest = parts(path);
        let mut links = 0;
        while let Some(part) = rest.pop() {
            if part == ".." {
                done.pop();
                continue;
            }
            done.push(part);
            if self.holds(&done) {
                return None;
            }
            let Ok(target) = done.read_link() else { continue };
            links += 1;
            if links > MAX_LINKS {
                return None;
            }
            done = if target.is_absolute() { PathBuf::from("/") } else { done.parent()?.to_owned() };
            rest.extend(parts(&target));
        }
        done.symlink_metadata().is_ok().then_some(done)
    }
}

/// The components of a path, in reverse order.
fn parts(path: &Path) -> Vec<OsString> {
    let part = |component: Component<'_>| match component {
        Component::Normal(_) | Component::ParentDir => Some(component.as_os_str().to_owned()),
        _ => None,
    };
    path.components().rev().filter_map(part).collect()
}

/// The first 256 bytes of a regular file. Nothing else is opened, because opening a device or pipe could block or have
/// effects.
pub fn start_of(path: &Path) -> Option<Vec<u8>> {
    let is_file = path.symlink_metadata().is_ok_and(|found| found.is_file());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty()).ok().filter(|_| is_file);
    let file = opened.map(std::fs::File::from).filter(|file| file.metadata().is_ok_and(|found| found.is_file()))?;
    let mut start = Vec::new();
    file.take(256).read_to_end(&mut start).ok()?;
    Some(start)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_path_is_followed_up_to_what_the_server_can_change() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for name in ["own/below", "other"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        for (target, link) in [("../other", "own/out"), ("own", "in"), ("other", "link"), ("circle", "circle")] {
            symlink(target, root.join(link)).unwrap();
        }
        let untrusted = UntrustedPaths::default().with([root.join("own")]);
        let resolve = |path: &str| untrusted.resolve(&root.join(path));
        assert_eq!(resolve("link"), Some(root.join("other")));
        assert_eq!(resolve("in"), Some(root.join("own")));
        assert_eq!(resolve("in/../link"), Some(root.join("other")));
        for path in ["own/out", "in/out", "own/below", "own/below/../../other", "link/../in/out", "circle", "nothing"] {
            assert_eq!(resolve(path), None, "{path}");
        }
        assert_eq!(UntrustedPaths::default().resolve(&root.join("in/out")), Some(root.join("other")));
    }

    #[test]
    fn nothing_but_a_file_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let (pipe, link) = (folder.path().join("pipe"), folder.path().join("link"));
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, Mode::from(0o600), 0).unwrap();
        symlink(&pipe, &link).unwrap();
        assert_eq!((start_of(&pipe), start_of(&link), start_of(folder.path())), (None, None, None));
        std::fs::write(folder.path().join("file"), "#!x").unwrap();
        assert_eq!(start_of(&folder.path().join("file")), Some(b"#!x".to_vec()));
    }
}
