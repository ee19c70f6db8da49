//! Log lines and metrics for operators. Neither contains bodies, tokens or header values.

mod logs;
mod metrics;
mod outlet;
mod repeated;
mod resolved;
mod words;

pub use logs::{CHILD, finish as finish_logs, init as init_logs, log_panics, say_panics};
pub use metrics::{ConnectionMetrics, Metrics, ServerMetrics, as_gauge};
pub use outlet::say;
pub use repeated::Cause;
pub use words::{Direction, DropReason, ExitReason, MemoryUse, Rejection};
