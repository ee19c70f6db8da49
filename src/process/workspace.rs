//! Working directories of servers that may change them: one for each owner, made by the gateway below the folder that is
//! configured. Invariant: no owner's child starts in the folder of another, whatever their names are, nor where a link leads.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid, getegid, geteuid};
use sha2::{Digest as _, Sha256};

use crate::auth::Principal;
use crate::config::{Account, TenantId};
use crate::text::hex;

/// The folder's mode: nobody but the server's user looks into it.
const MODE: Mode = Mode::RWXU;
/// As many characters of a subject are in the name of its folder, for who looks for it by hand.
const SHOWN: usize = 32;
/// As many bytes of the hash, which tells all subjects apart.
const HASHED: usize = 16;

/// Who has a working directory, as the name of the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner(String);

impl Owner {
    /// The name of the folder.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// All who share a child.
    pub fn everybody() -> Self {
        Self("everybody".to_owned())
    }

    /// A tenant.
    pub fn tenant(tenant: &TenantId) -> Self {
        Self(format!("tenant.{tenant}"))
    }

    /// A principal: its tenant, its issuer and its subject.
    pub fn principal(principal: &Principal) -> Self {
        let mut hash = Sha256::new();
        for part in principal.distinction() {
            // With its length, so that no two lists of parts are the same bytes.
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        let is_plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let shown: String = principal.subject().chars().filter(is_plain).take(SHOWN).collect();
        let hash = hash.finalize();
        let hash = hex(hash.get(..HASHED).unwrap_or_default());
        Self(format!("principal.{}.{shown}.{hash}", principal.tenant()))
    }
}

/// Makes the folder of an owner below `base`, if it is not there yet, for the server's user alone.
pub(super) fn prepare(base: &Path, owner: &Owner, account: Option<&Account>) -> io::Result<PathBuf> {
    let base = base.canonicalize()?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::open(&base, flags, Mode::empty())?;
    let name = owner.name();
    match rustix::fs::mkdirat(&folder, name, MODE) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let open = || rustix::fs::openat(&folder, name, flags, Mode::empty());
    let opened: OwnedFd = match open() {
        // Its server has taken its rights away.
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(&folder, name, MODE, AtFlags::empty())?;
            open()?
        }
        opened => opened?,
    };
    let (user, group) = match account {
        Some(account) => (Uid::from_raw(account.uid), Gid::from_raw(account.gid)),
        None => (geteuid(), getegid()),
    };
    let found = rustix::fs::fstat(&opened)?;
    if found.st_uid != user.as_raw() {
        if found.st_uid != geteuid().as_raw() {
            let text =
                format!("{} belongs to user {}, and not to the server's", base.join(name).display(), found.st_uid);
            return Err(io::Error::other(text));
        }
        rustix::fs::fchown(&opened, Some(user), Some(group))?;
    }
    if Mode::from_raw_mode(found.st_mode) != MODE {
        rustix::fs::fchmod(&opened, MODE)?;
    }
    Ok(base.join(name))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_folder_is_its_owners_and_no_link_is_followed() {
        let base = tempfile::tempdir().unwrap();
        let owner = Owner::tenant(&"acme".parse().unwrap());
        let path = prepare(base.path(), &owner, None).unwrap();
        let mode = || path.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(), 0o700);
        std::fs::write(path.join("file"), "").unwrap();
        for broken in [0, 0o777, 0o2755] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(broken)).unwrap();
            assert_eq!(prepare(base.path(), &owner, None).unwrap(), path);
            assert_eq!(mode(), 0o700);
        }
        assert!(path.join("file").exists());
        symlink("/tmp", base.path().join("everybody")).unwrap();
        assert!(prepare(base.path(), &Owner::everybody(), None).is_err());
        assert!(prepare(&base.path().join("none"), &owner, None).is_err());
    }
}
