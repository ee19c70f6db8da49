//! What the client and its child have agreed on: kept, so that a child that takes its place hears the same.

use bytes::Bytes;

use crate::worker::Terms;

/// The largest `initialize`, in bytes: it is kept as long as the session.
pub(super) const INITIALIZE: usize = 256 * 1024;

/// Where the handshake of a session stands.
#[derive(Debug, Clone, Default)]
pub(super) enum Handshake {
    /// The client has not sent `initialize`.
    #[default]
    None,
    /// `initialize` is in flight.
    Initializing,
    /// `initialize` was answered.
    Done(Box<Done>),
}

/// A handshake that can be replayed.
#[derive(Debug, Clone)]
pub(super) struct Done {
    /// The client's `initialize` request, as it came.
    pub(super) initialize: Bytes,
    /// What was negotiated.
    pub(super) version: String,
    /// What else was agreed on with the children before the one that is there.
    pub(super) terms: Terms,
}

impl Done {
    pub(super) fn new(initialize: Bytes, version: String) -> Self {
        Self { initialize, version, terms: Terms::default() }
    }
}
