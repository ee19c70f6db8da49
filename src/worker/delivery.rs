//! Delivery of the gateway's own answers, and the drop reasons of undelivered messages.

use bytes::Bytes;

use crate::stream::{Exchange, PushError};
use crate::telemetry::{DropReason, ServerMetrics};

/// Delivers an answer of the gateway's own. If the stream has no room even in its second budget, the stream is cut. An
/// answer that is not delivered is counted.
pub fn deliver(metrics: &ServerMetrics, exchange: &Exchange, message: Bytes) {
    if let Err(error) = exchange.answer_or_cut(message) {
        metrics.dropped(lost(error));
    }
}

/// The drop reason of a message that a stream did not take.
pub(super) fn lost(error: PushError) -> DropReason {
    match error {
        PushError::Full => DropReason::SlowClient,
        PushError::Closed => DropReason::StreamClosed,
    }
}
