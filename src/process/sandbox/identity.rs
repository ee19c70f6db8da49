//! Changes the user of a process and gives up all privileges. Invariant: neither can be undone.

use std::io;

use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};
use serde::{Deserialize, Serialize};

use crate::config::Account;

/// Numbers of a user, its group and its supplementary groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

impl From<&Account> for Identity {
    fn from(account: &Account) -> Self {
        Self { uid: account.uid, gid: account.gid, groups: account.groups.clone() }
    }
}

impl Identity {
    /// Becomes this user. Sets the groups first, because that takes a privilege which the change of user removes.
    /// Clears the parent-death signal.
    pub(super) fn take_on(&self) -> io::Result<()> {
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        rustix::thread::set_thread_groups(&groups)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        Ok(())
    }
}

/// Empties the capability bounding set, so that no execution can regain a capability. Must come before a change of
/// user. Has no effect without privileges, where it is not needed.
pub(super) fn drop_bounding_set() {
    for capability in CapabilitySet::all().iter() {
        // One that the kernel does not know is refused, as is all to who has no privilege.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
}

/// Forbids other processes of the same user to read memory and environment of this process, and forbids core dumps.
/// Lasts until the process executes another program.
///
/// # Errors
/// The system refuses.
pub fn conceal() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?)
}

/// Gives up every capability of the calling thread. With no-new-privileges, executing a program as root does not
/// restore them: capabilities(7).
///
/// # Errors
/// The system refuses.
pub(super) fn drop_capabilities() -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}
