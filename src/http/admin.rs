//! Health, readiness and metrics.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};

use super::app::App;
use super::problem::{Reply, json, problem};
use crate::pool::WorkerStatus;
use crate::telemetry::{Cause, as_gauge};

/// `/healthz`: the process is alive.
pub async fn healthz() -> Reply {
    Response::new(Body::from("ok\n"))
}

/// `/readyz`: a new session would be served now. Anybody may ask, so it says no name.
pub async fn readyz(State(app): State<Arc<App>>) -> Reply {
    if app.is_ready() {
        return Response::new(Body::from("ready\n"));
    }
    let why = if app.shutdown.drain.is_cancelled() { "draining" } else { "sessions.max is reached" };
    problem(StatusCode::SERVICE_UNAVAILABLE, &format!("not ready: {why}"))
}

/// `/readyz` for operators: also what keeps crashing, and for whom. That is somebody's trouble, but not the gateway's,
/// which is ready all the same.
pub async fn readyz_in_full(State(app): State<Arc<App>>) -> Reply {
    if !app.is_ready() {
        return readyz(State(app)).await;
    }
    let loops: String = app.pools.crash_loops().iter().map(|one| format!("{one}\n")).collect();
    Response::new(Body::from(format!("ready\n{loops}")))
}

/// `/metrics`: OpenMetrics text.
pub async fn metrics(State(app): State<Arc<App>>) -> Reply {
    match app.guardian.census().await {
        Ok(census) => {
            app.metrics.processes_owned.set(as_gauge(census.owned));
            app.metrics.processes_found.set(as_gauge(census.found));
        }
        Err(error) if Cause::new("processes cannot be counted", "admin").is_news(1) => {
            tracing::error!(%error, "processes cannot be counted")
        }
        Err(_) => {}
    }
    app.pools.measure(&app.metrics);
    match app.metrics.render() {
        Ok(text) => {
            let mut reply = Response::new(Body::from(text));
            let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(openmetrics));
            reply
        }
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &format!("metrics could not be written: {error}")),
    }
}

/// `/workers`: the children, as JSON.
pub async fn workers(State(app): State<Arc<App>>) -> Reply {
    listed(&app.pools.workers())
}

/// `/workers/exited`: the last children that have ended, as JSON.
pub async fn exited_workers(State(app): State<Arc<App>>) -> Reply {
    listed(&app.pools.exited())
}

fn listed(workers: &[WorkerStatus]) -> Reply {
    match serde_json::to_vec(workers) {
        Ok(body) => json(StatusCode::OK, body.into()),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &format!("the children could not be listed: {error}")),
    }
}
