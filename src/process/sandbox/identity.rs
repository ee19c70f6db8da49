//! Becomes another user, and nobody with a privilege. Invariant: there is no way back.

use std::io;

use rustix::process::{Gid, Uid};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use crate::config::Account;

/// A user, a group and further groups, by number.
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
    /// Takes it on. The groups first: afterwards there is no right to change them. This clears the parent-death signal.
    pub(super) fn take_on(&self) -> io::Result<()> {
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        rustix::thread::set_thread_groups(&groups)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        Ok(())
    }
}

/// Gives up the bounding set: what an execution could ever bring back. Possible to who has a privilege only, which is
/// who it matters to; so this comes before a change of user.
pub(super) fn drop_bounding_set() {
    for capability in CapabilitySet::all().iter() {
        // One that the kernel does not know is refused, as is all to who has no privilege.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
}

/// Makes this process one whose memory and environment no other process of the same user may read, in a sandbox or not:
/// for the gateway's own processes, until one becomes a server by executing it. It writes no core file either.
///
/// # Errors
/// The system refuses.
pub fn conceal() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?)
}

/// Gives up every capability of the calling thread. With no-new-privileges an execution as root does not bring them
/// back: capabilities(7).
///
/// # Errors
/// The system refuses.
pub(super) fn drop_capabilities() -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    let mut sets = rustix::thread::capabilities(None)?;
    sets.effective = CapabilitySet::empty();
    sets.permitted = CapabilitySet::empty();
    sets.inheritable = CapabilitySet::empty();
    Ok(rustix::thread::set_capabilities(None, sets)?)
}
