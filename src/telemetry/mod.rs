//! What operators see: log lines and metrics. Neither ever holds a body, a token or a header value.

mod logs;
mod metrics;
mod words;

pub use logs::init as init_logs;
pub use metrics::{Metrics, ServerMetrics, as_gauge};
pub use words::{Direction, DropReason, ExitReason, method_label};
