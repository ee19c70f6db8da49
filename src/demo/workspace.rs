//! The one folder that the built-in server reads and writes. Invariant: a path is resolved by the kernel beneath the
//! directory that was opened at the start (`openat2` with `RESOLVE_BENEATH`), never by comparing strings, so that no
//! link made before or during the call leads outside.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::Error;

/// The largest file that is read or written, in bytes.
pub(super) const MAX_FILE: usize = 1024 * 1024;
/// The longest path taken, in bytes.
const MAX_PATH: usize = 1024;
/// The most entries that a listing names.
const MAX_LISTED: usize = 1000;

/// A workspace folder.
#[derive(Debug)]
pub struct Workspace {
    root: PathBuf,
    dir: OwnedFd,
    private: bool,
}

impl Workspace {
    /// Opens the folder at `path`, and makes it where it is missing. Fails if it cannot be made or is no directory.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let named = || format!("the workspace {}", path.display());
        std::fs::create_dir_all(path).map_err(|error| Error::io(named(), error))?;
        let root = path.canonicalize().map_err(|error| Error::io(named(), error))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(CWD, &root, flags, Mode::empty()).map_err(|error| Error::io(named(), error))?;
        Ok(Self { root, dir, private: false })
    }

    /// Makes a new folder among the temporary files, for this user only; it is removed with everything in it when the
    /// value is dropped.
    pub fn private() -> Result<Self, Error> {
        let path = std::env::temp_dir().join(format!("sluice-demo-{}", random_name()?));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| Error::io(format!("the workspace {}", path.display()), error))?;
        let mut workspace = Self::open(&path)?;
        workspace.private = true;
        Ok(workspace)
    }

    /// Where the folder is: absolute, without links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The content of the file at `path`. Fails if it is outside, is no regular file, or has more than 1 MiB.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, Error> {
        let relative = relative(path)?;
        // Without NONBLOCK, opening a FIFO would wait for its writer.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = File::from(self.beneath(&relative, flags).map_err(|errno| explain(path, errno))?);
        let kind = rustix::fs::fstat(&file).map_err(|errno| Error::io(path, errno))?.st_mode;
        require_regular(path, FileType::from_raw_mode(kind))?;
        let mut content = Vec::new();
        file.take(MAX_FILE as u64 + 1).read_to_end(&mut content).map_err(|error| Error::io(path, error))?;
        require_size(path, content.len())?;
        Ok(content)
    }

    /// Makes `content` the file at `path`, and the directories above it where they are missing. The file is replaced
    /// in one step: a reader sees the old content or the new. Fails if it would be outside, if something that is no
    /// regular file has the name, or if the content has more than 1 MiB.
    pub fn write(&self, path: &str, content: &[u8]) -> Result<(), Error> {
        require_size(path, content.len())?;
        let relative = relative(path)?;
        let name = relative.file_name().ok_or_else(|| Error::refused(path, "the path names no file"))?;
        let parent = self.make_parents(path, relative.parent().unwrap_or(Path::new("")))?;
        let mode = match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) => {
                require_regular(path, FileType::from_raw_mode(there.st_mode))?;
                Mode::from_raw_mode(there.st_mode) & (Mode::RWXU | Mode::RWXG | Mode::RWXO)
            }
            Err(Errno::NOENT) => Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH,
            Err(errno) => return Err(explain(path, errno)),
        };
        let temporary = format!(".{}.tmp", random_name()?);
        replace(&parent, OsStr::new(&temporary), name, mode, content).map_err(|error| {
            let _ = rustix::fs::unlinkat(&parent, temporary.as_str(), AtFlags::empty());
            Error::io(path, error)
        })
    }

    /// The files in the folder, a line each: path, tab, size in bytes. Links are named and not followed; at most 1000
    /// entries are listed, and a last line says so where there are more.
    pub fn list(&self) -> Result<String, Error> {
        let mut lines = Vec::new();
        let mut pending = vec![PathBuf::from(".")];
        while let Some(folder) = pending.pop() {
            let shown = folder.strip_prefix(".").unwrap_or(&folder);
            let opened = match self.beneath(&folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW) {
                Ok(opened) => opened,
                // Removed, replaced or unreadable since its name was seen.
                Err(_) if !shown.as_os_str().is_empty() => continue,
                Err(errno) => return Err(Error::io("the workspace", errno)),
            };
            for entry in Dir::read_from(&opened).map_err(|errno| Error::io("the workspace", errno))? {
                let entry = entry.map_err(|errno| Error::io("the workspace", errno))?;
                let name = OsStr::new(entry.file_name().to_str().unwrap_or("\u{fffd}"));
                if name == "." || name == ".." {
                    continue;
                }
                if lines.len() >= MAX_LISTED {
                    lines.sort();
                    return Ok(format!(
                        "{}\n(more than {MAX_LISTED} entries; the rest is not listed)\n",
                        lines.join("\n")
                    ));
                }
                let Ok(there) = rustix::fs::statat(&opened, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else {
                    continue;
                };
                let path = shown.join(name);
                match FileType::from_raw_mode(there.st_mode) {
                    FileType::Directory => {
                        lines.push(format!("{}/", path.display()));
                        pending.push(path);
                    }
                    FileType::RegularFile => lines.push(format!("{}\t{}", path.display(), there.st_size)),
                    FileType::Symlink => lines.push(format!("{}\t(a link)", path.display())),
                    _ => lines.push(format!("{}\t(no regular file)", path.display())),
                }
            }
        }
        lines.sort();
        Ok(lines.into_iter().map(|line| line + "\n").collect())
    }

    /// Opens `relative` beneath the folder. Links are followed as long as they stay inside.
    fn beneath(&self, relative: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let mut attempts = 0;
        loop {
            match rustix::fs::openat2(&self.dir, relative, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                // The kernel could not rule out an escape, because something was renamed meanwhile: openat2(2).
                Err(Errno::AGAIN | Errno::INTR) if attempts < 32 => attempts += 1,
                outcome => return outcome,
            }
        }
    }

    /// Opens the directory `parent`, after making what is missing of it, a component at a time. `path` is for errors.
    fn make_parents(&self, path: &str, parent: &Path) -> Result<OwnedFd, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let open = |at: &Path| self.beneath(if at == Path::new("") { Path::new(".") } else { at }, flags);
        match open(parent) {
            Err(Errno::NOENT) => {}
            outcome => return outcome.map_err(|errno| explain(path, errno)),
        }
        let mut so_far = PathBuf::new();
        let mut above = open(&so_far).map_err(|errno| explain(path, errno))?;
        for component in parent {
            so_far.push(component);
            match rustix::fs::mkdirat(&above, component, Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH)
            {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(explain(path, errno)),
            }
            above = open(&so_far).map_err(|errno| explain(path, errno))?;
        }
        Ok(above)
    }
}

impl Drop for Workspace {
    #[expect(clippy::disallowed_methods, reason = "at the end of the program, outside of any runtime")]
    fn drop(&mut self) {
        if !self.private {
            return;
        }
        // A program that was killed a moment ago may still be adding a file: then the removal finds a directory that
        // is not empty, and is tried again.
        let mut attempts = 1;
        let removed = loop {
            match std::fs::remove_dir_all(&self.root) {
                Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty && attempts < 50 => attempts += 1,
                removed => break removed,
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        };
        if let Err(error) = removed
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(%error, "the temporary workspace {} is left behind", self.root.display());
        }
    }
}

/// Writes `content` to a new file `temporary` in `parent`, and renames it to `name`, which replaces what has that name
/// and follows no link.
fn replace(parent: &OwnedFd, temporary: &OsStr, name: &OsStr, mode: Mode, content: &[u8]) -> std::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(parent, temporary, flags, mode)?);
    file.write_all(content)?;
    rustix::fs::renameat(parent, temporary, parent, name)?;
    Ok(())
}

/// A relative path of plain names. Absolute paths and `..` are refused here, for the clearer message; that nothing
/// leads outside is the kernel's to say.
fn relative(path: &str) -> Result<PathBuf, Error> {
    let shown = || path.chars().take(200).collect::<String>();
    if path.contains('\0') {
        return Err(Error::refused(shown().replace('\0', "\\0"), "a path cannot contain NUL"));
    }
    if path.len() > MAX_PATH {
        return Err(Error::refused(shown(), format!("a path has at most {MAX_PATH} bytes")));
    }
    let refused = |why: &str| Err(Error::refused(path, why));
    let mut relative = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => relative.push(name),
            Component::CurDir => {}
            Component::ParentDir => return refused("`..` is not allowed in a path"),
            Component::RootDir | Component::Prefix(_) => {
                return refused("an absolute path is not allowed; give one relative to the workspace");
            }
        }
    }
    if relative.as_os_str().is_empty() {
        return Err(Error::refused(format!("`{path}`"), "the path names no file"));
    }
    Ok(relative)
}

fn require_regular(path: &str, kind: FileType) -> Result<(), Error> {
    match kind {
        FileType::RegularFile => Ok(()),
        FileType::Directory => Err(Error::refused(path, "is a directory, not a file")),
        FileType::Symlink => Err(Error::refused(path, "is a link; write to the file that it names")),
        _ => Err(Error::refused(path, "is no regular file")),
    }
}

fn require_size(path: &str, bytes: usize) -> Result<(), Error> {
    if bytes > MAX_FILE {
        return Err(Error::refused(path, format!("has more than {MAX_FILE} bytes, which is the most that is taken")));
    }
    Ok(())
}

/// What an error of `openat2` beneath the workspace means to the caller.
fn explain(path: &str, errno: Errno) -> Error {
    match errno {
        Errno::XDEV => Error::refused(path, "a link on the way leads outside the workspace"),
        Errno::NOENT => Error::refused(path, "there is no such file in the workspace, or a link leads nowhere"),
        Errno::NOTDIR => Error::refused(path, "a file stands where the path has a directory"),
        Errno::LOOP => Error::refused(path, "the links on the way go in a circle, or are too many"),
        Errno::NOSYS => Error::refused(path, "this kernel cannot confine a path (openat2 needs Linux 5.6)"),
        other => Error::io(path, other),
    }
}

/// 16 random hexadecimal digits.
fn random_name() -> Result<String, Error> {
    let number = getrandom::u64().map_err(|error| Error::io("random numbers", std::io::Error::other(error)))?;
    Ok(format!("{number:016x}"))
}

#[cfg(test)]
#[path = "workspace_tests.rs"]
mod tests;
