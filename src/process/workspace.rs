//! Working directories below a server's `workspace`: one for each owner, made by the gateway. Invariant: a child never
//! starts in the folder of another owner, whatever the owners' names are, and never where a symbolic link leads.

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

/// Mode of a working directory: accessible to the server's user only.
const MODE: Mode = Mode::RWXU;
/// Most characters of a subject in the name of a folder. They help people who search for a folder.
const SHOWN: usize = 32;
/// Bytes of the hash in the name of a folder. The hash tells all principals apart.
const HASHED: usize = 16;

/// The owner of a working directory, as the name of the folder.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner(String);

impl Owner {
    /// The name of the folder.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The common owner of children that all tenants share.
    pub fn everybody() -> Self {
        Self("everybody".to_owned())
    }

    /// The owner of children that a tenant's sessions share.
    pub fn tenant(tenant: &TenantId) -> Self {
        Self(format!("tenant.{tenant}"))
    }

    /// The owner of a principal's children. The name is derived from tenant, issuer and subject.
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

/// Makes the folder of `owner` below `base`, if it is missing, and returns its path. Gives the folder to `account` (or
/// else the gateway's user), with access for nobody else. Fails if the folder belongs to a third user, or a symbolic
/// link is there.
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
