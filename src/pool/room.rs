//! Makes room for a request that waits: unused and idle children go whose capacity the request can have.

use super::child::PooledWorker;
use super::holder::Holder;
use super::pool::Pool;
use crate::permits::{By, Ceiling, Full};
use crate::worker::Due;

/// Ends unused and idle children so that capacity becomes free where `wanted` requests find none: children of the
/// server, of the tenant, or, where the requests wait at a share, of who has that share. Without effect for anything
/// but children.
pub(super) fn make_room(pool: &Pool, full: &Full, wanted: usize) {
    let (children, inventory) = (&pool.surroundings.children, &pool.inventory);
    if pool.has_all(full) {
        inventory.lock().make_room(wanted);
        return children.make_room(|child| *child.worker.server() == pool.server.name, wanted, Due::PoolRoom);
    }
    if matches!(full.ceiling, Ceiling::Tenant(_) | Ceiling::InUse(_)) {
        inventory.lock().make_places(|holder| relieves(pool, full, holder));
        let counts = |child: &PooledWorker| match &full.ceiling {
            Ceiling::InUse(server) => child.worker.server() == server,
            _ => true,
        };
        let of_holder = |child: &PooledWorker| counts(child) && relieves(pool, full, child.holder());
        children.make_room(of_holder, wanted, Due::TenantRoom);
    }
}

/// Whether a request that finds no room would find some without a child of this holder, which counts under the ceiling.
fn relieves(pool: &Pool, full: &Full, holder: Holder<'_>) -> bool {
    let Some(principal) = holder.principal else { return false };
    let is_counted = match &full.ceiling {
        Ceiling::Tenant(tenant) => holder.is_owned && principal.tenant() == tenant,
        Ceiling::InUse(server) => *server == pool.server.name,
        _ => false,
    };
    let is_theirs = match &full.by {
        By::Tenant(tenant, _) => principal.tenant() == tenant,
        By::Principal(one, _) => principal == one,
        By::All | By::Queue => true,
    };
    is_counted && is_theirs
}
