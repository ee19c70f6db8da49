//! A call that was in flight when its child crashed, and that another child may get.

use std::sync::Arc;

use super::calls::Kept;
use super::error::Failure;
use crate::jsonrpc::RawId;
use crate::stream::Exchange;

/// A call whose child has crashed.
#[derive(Debug)]
pub struct Orphan {
    /// What to send.
    pub kept: Kept,
    /// The client's id of it.
    pub id: RawId,
    /// Where its answer goes.
    pub exchange: Arc<Exchange>,
    /// What it fails with, if it is not sent again.
    pub failure: Failure,
}
