//! Whom the capacity of a child counts for.

use crate::auth::Principal;
use crate::config::TenantId;

/// The tenant that a child is for; `None` for a spare, and for a child that all tenants share.
pub(super) type TenantKey = Option<TenantId>;

/// Whom the capacity of a child counts for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Holder<'a> {
    /// The principal; `None` for a child that counts for nobody.
    pub(super) principal: Option<&'a Principal>,
    /// Whether the child is the tenant's, and counts among its children.
    pub(super) is_owned: bool,
}
