//! A request of the server to a client.

use std::time::Duration;

use tokio::time::Instant;

use super::lease_id::LeaseId;
use crate::jsonrpc::RawId;

/// A request of the server that the client has not answered yet.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) peer: LeaseId,
    pub(super) original: RawId,
    /// What the child calls its progress.
    pub(super) progress_token: Option<RawId>,
    pub(super) deadline: Instant,
    pub(super) timeout: Duration,
}
