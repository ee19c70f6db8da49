//! Handlers of the admin listener: health, readiness, metrics and the list of child processes.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};

use super::app::App;
use super::body::Body;
use super::problem::{Reply, json, problem};
use super::snapshot::Snapshot;
use crate::pool::{Pools, WorkerStatus};
use crate::process::Guardian;
use crate::telemetry::{Cause, as_gauge};

/// State that the handlers of the admin listener share.
pub struct Admin {
    /// The state that is shared with the public listener.
    pub app: Arc<App>,
    /// All pools of child processes.
    pub pools: Arc<Pools>,
    /// Starts child processes and counts their processes.
    pub guardian: Guardian,
}

/// Answers `/healthz`: the gateway's process is alive.
pub fn healthz() -> Reply {
    Response::new(Body::from("ok\n"))
}

/// Answers `/readyz`: status 200 if the gateway could open a new session now, otherwise 503 with the reason. The
/// response contains no names, because anybody may ask.
pub fn readyz(app: &App, snapshot: &Snapshot) -> Reply {
    if app.is_ready(snapshot) {
        return Response::new(Body::from("ready\n"));
    }
    let why = if app.shutdown.drain.is_cancelled() { "draining" } else { "sessions.max is reached" };
    problem(StatusCode::SERVICE_UNAVAILABLE, &format!("not ready: {why}"))
}

impl Admin {
    /// Answers `/readyz` on the admin listener: like [`readyz`], and if the gateway is ready with a line for each
    /// circuit breaker that is open or half-open. A circuit breaker does not make the gateway unready.
    pub fn readyz_in_full(&self, snapshot: &Snapshot) -> Reply {
        if !self.app.is_ready(snapshot) {
            return readyz(&self.app, snapshot);
        }
        let loops: String = self.pools.crash_loops().iter().map(|one| format!("{one}\n")).collect();
        Response::new(Body::from(format!("ready\n{loops}")))
    }

    /// Answers `/metrics` with all metrics as OpenMetrics text. Asks the guardian for the numbers of processes first;
    /// if they cannot be had, their gauges keep the last values.
    pub async fn metrics(&self) -> Reply {
        let metrics = &self.app.metrics;
        match self.guardian.census().await {
            Ok(census) => {
                metrics.processes_owned.set(as_gauge(census.owned));
                metrics.processes_found.set(as_gauge(census.found));
            }
            Err(error) if Cause::new("processes cannot be counted", "admin").is_news(1) => {
                tracing::error!(%error, "processes cannot be counted")
            }
            Err(_) => {}
        }
        self.pools.measure(metrics);
        metrics.memory(self.app.memory.held(), self.app.memory.limit());
        match metrics.render() {
            Ok(text) => {
                let mut reply = Response::new(Body::from(text));
                let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(openmetrics));
                reply
            }
            Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &format!("metrics could not be written: {error}")),
        }
    }

    /// Answers `/workers` with the running child processes, as JSON.
    pub fn workers(&self) -> Reply {
        listed(&self.pools.workers())
    }

    /// Answers `/workers/exited` with the child processes that ended last, as JSON.
    pub fn exited_workers(&self) -> Reply {
        listed(&self.pools.exited())
    }
}

fn listed(workers: &[WorkerStatus]) -> Reply {
    match serde_json::to_vec(workers) {
        Ok(body) => json(StatusCode::OK, body),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &format!("the children could not be listed: {error}")),
    }
}
