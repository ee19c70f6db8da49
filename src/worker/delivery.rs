//! Delivery of the gateway's own answers, and the reason under which an undelivered message is counted.

use bytes::Bytes;

use crate::stream::{Exchange, PushError};
use crate::telemetry::{DropReason, ServerMetrics};

/// Delivers an answer that was made here. A client that does not read loses it with its stream, which is counted.
pub fn deliver(metrics: &ServerMetrics, exchange: &Exchange, message: Bytes) {
    if let Err(error) = exchange.answer_or_cut(message) {
        metrics.dropped(lost(error));
    }
}

/// Why a message that a stream did not take was dropped.
pub(super) fn lost(error: PushError) -> DropReason {
    match error {
        PushError::Full => DropReason::SlowClient,
        PushError::Closed => DropReason::StreamClosed,
    }
}
