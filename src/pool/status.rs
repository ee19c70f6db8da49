//! The state of a worker as the admin API shows it to operators.

use serde::Serialize;

use crate::worker::Worker;

/// A child process, as `/workers` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct WorkerStatus {
    /// The name of the configured server.
    pub server: String,
    /// The phase: `starting`, `ready`, `busy`, `draining` or `exited`.
    pub state: &'static str,
    /// The process id of the child.
    pub pid: Option<u32>,
    /// The tenant that the child runs for; `None` for a spare, and for a child that all tenants share.
    pub tenant: Option<String>,
    /// Sessions that lease the worker.
    pub sessions: usize,
    /// Calls in flight.
    pub in_flight: usize,
    /// Calls that clients have made since the start.
    pub calls: u64,
    /// Seconds since the start; for an ended child, from its start to its end.
    pub age_seconds: u64,
    /// The reason of the end, for an ended child.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<&'static str>,
}

impl WorkerStatus {
    /// Reads the state of a worker now.
    pub(super) fn of(worker: &Worker) -> Self {
        Self {
            server: worker.server().to_string(),
            state: worker.phase().as_str(),
            pid: Some(worker.pid()),
            tenant: worker.tenant().map(|tenant| tenant.to_string()),
            sessions: worker.listeners(),
            in_flight: worker.load(),
            calls: worker.calls(),
            age_seconds: worker.age().as_secs(),
            exit: worker.exit_reason().map(|reason| reason.as_str()),
        }
    }
}
