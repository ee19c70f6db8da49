//! The place of a link's current child: empty, being filled by a start, or taken by a lease.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::worker::{Failure, Lease};

/// The result of a start: a lease on the child and the child's answer to `initialize`, or the reason for the failure.
pub(super) type Outcome = Result<(Arc<Lease>, Bytes), Failure>;

/// The result of a start that is under way; `None` until the start is over.
pub(super) type Starting = watch::Receiver<Option<Outcome>>;

/// A link's current child, or the start that will deliver one.
#[derive(Default)]
pub(super) enum Slot {
    /// There is no child, and no start is under way.
    #[default]
    Empty,
    /// A start is under way.
    Starting(Starting),
    /// The lease on the current child, which may have exited since.
    Leased(Arc<Lease>),
}

impl Slot {
    /// The lease, if the child can still be written to.
    pub(super) fn live(&self) -> Option<Arc<Lease>> {
        self.leased().filter(|lease| lease.is_alive()).cloned()
    }

    /// The lease, though its child may have exited.
    pub(super) fn leased(&self) -> Option<&Arc<Lease>> {
        if let Self::Leased(lease) = self { Some(lease) } else { None }
    }

    /// Whether a start is under way.
    pub(super) fn is_starting(&self) -> bool {
        matches!(self, Self::Starting(_))
    }
}
