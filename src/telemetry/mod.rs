//! What operators see: log lines and metrics. Neither ever holds a body, a token or a header value.

mod logs;
mod metrics;

pub use logs::init as init_logs;
pub use metrics::{Direction, DropReason, ExitReason, Metrics, ServerMetrics, method_label};
