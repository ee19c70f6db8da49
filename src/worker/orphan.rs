//! A call that was in flight when its child crashed, and that may be sent to another child.

use std::sync::Arc;

use super::Failure;
use super::calls::Kept;
use crate::jsonrpc::RawId;
use crate::stream::Exchange;

/// A call that was in flight when its child crashed.
#[derive(Debug)]
pub struct Orphan {
    /// The message to send again.
    pub kept: Kept,
    /// The client's id of the call.
    pub id: RawId,
    /// The destination of the answer.
    pub exchange: Arc<Exchange>,
    /// The failure for the client, if the call is not sent again.
    pub failure: Failure,
}
