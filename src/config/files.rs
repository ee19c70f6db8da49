//! Reads files that a configuration names, only regular files of bounded size, and finds files that other users may
//! change or read.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};

use super::units::show_bytes;

/// The largest configuration, in bytes.
pub(super) const MAX_CONFIGURATION: usize = 4 << 20;
/// The largest file with a secret, in bytes.
pub(super) const MAX_SECRET: usize = 64 << 10;

/// Reads a regular file of at most `most` bytes. Other files are not read: a device may react, and a FIFO may never
/// end.
///
/// # Errors
/// The file cannot be read, is not a regular file, or is larger.
pub fn read_bounded(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    regular(&std::fs::metadata(path)?)?;
    // What has taken its place since then does not hold up the open, and is found out below.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    regular(&file.metadata()?)?;
    let mut bytes = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        return Err(other(format!("larger than {}, which is the most that is read of such a file", show_bytes(most))));
    }
    Ok(bytes)
}

/// Like [`read_bounded`], for text.
///
/// # Errors
/// Those of [`read_bounded`], and text that is not UTF-8.
pub(super) fn read_text(path: &Path, most: usize) -> io::Result<String> {
    String::from_utf8(read_bounded(path, most)?).map_err(|_| other("not a text in UTF-8".to_owned()))
}

/// The text of the problem that a configuration cannot be read, with advice. `wanted` is the kind of file that belongs
/// there.
pub(super) fn cannot_read(error: &io::Error, wanted: &str) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => format!("cannot be read: {error}; correct its permissions"),
        _ => format!("cannot be read: {error}; give the path of {wanted}"),
    }
}

/// An error that names the kind of a file that is not a regular file.
fn regular(metadata: &std::fs::Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    let what = match kind {
        _ if kind.is_file() => return Ok(()),
        _ if kind.is_dir() => "a folder",
        _ if kind.is_fifo() => "a FIFO or a pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Err(other(format!("{what}, and no regular file")))
}

fn other(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// The reason why a file or folder of the gateway is not safe: other users may change or replace it or, for a file with
/// `is_secret`, read it. `None` if the file is safe or cannot be looked at.
pub(super) fn careless(path: &Path, is_secret: bool) -> Option<String> {
    let path = std::fs::canonicalize(path).ok()?;
    let metadata = path.metadata().ok()?;
    // Nobody changes what is mounted read-only, whatever its mode says.
    let is_fixed =
        rustix::fs::statvfs(&path).is_ok_and(|mount| mount.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    if !is_fixed {
        if let Some(who) = writers(&metadata) {
            return Some(format!("{who} may change it; take that right away (chmod go-w)"));
        }
        for folder in path.ancestors().skip(1) {
            if let Some(who) = folder.metadata().ok().and_then(|folder| writers(&folder)) {
                let folder = folder.display();
                return Some(format!(
                    "{who} may put another in its place, since {folder} can be written to; take that right away (chmod go-w), \
                     or keep the file elsewhere"
                ));
            }
        }
    }
    let readers = match metadata.mode() {
        // Who mounts one file, into a container, has chosen who is there, and leaves it the mode that it has elsewhere.
        _ if is_fixed && is_mounted_alone(&path) => return None,
        _ if path.ancestors().skip(1).any(is_closed) => return None,
        mode if mode & 0o004 != 0 => "anybody on this machine",
        mode if mode & 0o040 != 0 && !is_own_group(&metadata) => "its group",
        _ => return None,
    };
    (is_secret && metadata.is_file()).then(|| format!("{readers} may read it; take that right away (chmod go-r)"))
}

/// Whether only the owner of a folder, and root, can reach the files in it.
fn is_closed(folder: &Path) -> bool {
    folder.metadata().is_ok_and(|folder| match folder.mode() {
        mode if mode & 0o001 != 0 => false,
        mode => mode & 0o010 == 0 || is_own_group(&folder),
    })
}

/// Whether a file is a mount of its own, apart from the folder around it.
fn is_mounted_alone(path: &Path) -> bool {
    let mount = |path: &Path| {
        let found = rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MNT_ID).ok()?;
        (found.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(found.stx_mnt_id)
    };
    path.parent().and_then(mount).is_some_and(|around| mount(path).is_some_and(|own| own != around))
}

/// The users other than the owner who may write to a file, or replace files in a folder. `None` if there are none.
fn writers(metadata: &std::fs::Metadata) -> Option<&'static str> {
    // In a folder with the sticky bit, such as /tmp, only an owner replaces what is there.
    if metadata.is_dir() && metadata.mode() & 0o1000 != 0 {
        return None;
    }
    match metadata.mode() {
        mode if mode & 0o002 != 0 => Some("anybody on this machine"),
        mode if mode & 0o020 != 0 && !is_own_group(metadata) => Some("its group"),
        _ => None,
    }
}

/// Whether the group is the private group of the owner, which has the owner's number in most distributions.
fn is_own_group(metadata: &std::fs::Metadata) -> bool {
    metadata.gid() == metadata.uid()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn only_regular_files_of_bounded_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("text"), "text").unwrap();
        std::fs::write(path("large"), [b' '; 100]).unwrap();
        std::fs::write(path("bytes"), [0xff]).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), rustix::fs::FileType::Fifo, Mode::from(0o600), 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        std::os::unix::fs::symlink(path("fifo"), path("link")).unwrap();
        assert_eq!(read_bounded(&path("text"), 4).unwrap(), b"text");
        let error = |path: &Path| read_text(path, 50).unwrap_err().to_string();
        for (name, says) in [
            ("large", "larger than 50B"),
            ("bytes", "not a text"),
            ("fifo", "a FIFO"),
            ("link", "a FIFO"),
            ("socket", "a socket"),
            ("absent", "No such file"),
        ] {
            let said = error(&path(name));
            assert!(said.contains(says), "{name}: {said}");
        }
        assert!(error(folder.path()).contains("a folder"));
        for device in ["/dev/zero", "/dev/null", "/dev/tty"] {
            assert!(error(Path::new(device)).contains("a device"));
        }
        // A regular file without a size, and without an end that is near.
        assert!(read_bounded(Path::new("/proc/self/maps"), 10).unwrap_err().to_string().contains("larger than"));
    }

    #[test]
    fn a_configuration_that_may_not_be_read_needs_other_permissions_and_not_another_path() {
        let said = cannot_read(&io::ErrorKind::PermissionDenied.into(), "a configuration file");
        assert!(said.ends_with("correct its permissions"), "{said}");
        let said = cannot_read(&io::ErrorKind::NotFound.into(), "a configuration file");
        assert!(said.ends_with("give the path of a configuration file"), "{said}");
    }

    #[test]
    fn who_else_may_change_or_read_a_file_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let (inner, file) = (folder.path().join("inner"), folder.path().join("inner/file"));
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(&file, "x").unwrap();
        let set = |path: &Path, mode: u32| {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap()
        };
        set(folder.path(), 0o755);
        set(&inner, 0o755);
        for (mode, is_secret, says) in [
            (0o600, true, None),
            (0o644, false, None),
            (0o644, true, Some("anybody on this machine may read it")),
            (0o602, false, Some("anybody on this machine may change it")),
            (0o666, true, Some("anybody on this machine may change it")),
        ] {
            set(&file, mode);
            let said = careless(&file, is_secret);
            assert_eq!(said.is_some(), says.is_some(), "{mode:o}: {said:?}");
            assert!(said.unwrap_or_default().contains(says.unwrap_or_default()), "{mode:o}");
        }
        set(&file, 0o644);
        for (mode, is_said) in [(0o700, false), (0o711, true), (0o755, true)] {
            for (outer, within) in [(mode, 0o755), (0o755, mode)] {
                set(folder.path(), outer);
                set(&inner, within);
                let said = careless(&file, true);
                assert_eq!(
                    said.is_some(),
                    is_said,
                    "who cannot pass a folder reads nothing in it: {outer:o} {within:o} {said:?}"
                );
            }
        }
        set(&file, 0o600);
        set(&inner, 0o777);
        assert!(careless(&file, true).unwrap().contains("may put another in its place"));
        set(&inner, 0o1777);
        assert_eq!(careless(&file, true), None, "the sticky bit keeps it");
        assert_eq!(careless(Path::new("/absent"), true), None);
    }

    #[test]
    fn the_mode_of_a_file_that_is_mounted_by_itself_and_read_only_says_nothing_about_its_readers() {
        use nix::mount::{MsFlags, mount};
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let key = folder.path().join("key");
        std::fs::write(&key, "secret").unwrap();
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        assert!(careless(&key, true).is_some_and(|why| why.contains("may read it")));
        // On this thread only.
        if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).is_err() {
            return;
        }
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let mounted = folder.path().join("mounted");
        std::fs::write(&mounted, "").unwrap();
        mount(Some(&key), &mounted, none, MsFlags::MS_BIND, none).unwrap();
        assert!(careless(&mounted, true).is_some_and(|why| why.contains("may read it")), "it can be written to");
        mount(none, &mounted, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none).unwrap();
        assert_eq!(careless(&mounted, true), None);
        assert!(careless(&key, true).is_some());
    }
}
