//! The table of all paths, and the checks that every request passes.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::{any, get};
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use http::request::Parts;
use http::{Method, Request, StatusCode};
use tower_http::catch_panic::CatchPanicLayer;

use super::admin::{self, Admin};
use super::app::App;
use super::guard::{allow_origin, preflight};
use super::problem::{Reply, problem};
use super::snapshot::Snapshot;
use super::{metadata, sse, streamable};
use crate::auth::WELL_KNOWN;

/// The router of the public listener. Endpoints of servers are also served with a trailing slash, because a client whose URL
/// has one sends it.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/servers/{name}/mcp", any(streamable::handle))
        .route("/servers/{name}/mcp/", any(streamable::handle))
        .route("/servers/{name}/sse", any(sse::open))
        .route("/servers/{name}/sse/", any(sse::open))
        .route("/servers/{name}/messages", any(sse::post))
        .route("/servers/{name}/messages/", any(sse::post))
        .route("/mcp", any(streamable::handle))
        .route("/mcp/", any(streamable::handle))
        .route("/sse", any(sse::open))
        .route("/sse/", any(sse::open))
        .route("/messages", any(sse::post))
        .route("/messages/", any(sse::post))
        .route("/healthz", get(admin::healthz))
        .route("/readyz", get(admin::readyz))
        .route(WELL_KNOWN, any(metadata::document))
        .route(&format!("{WELL_KNOWN}/{{*endpoint}}"), any(metadata::document))
        .fallback(not_found)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(Arc::clone(&app), pass))
        .with_state(app)
}

/// The router of the admin listener.
pub fn admin_router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/healthz", get(admin::healthz))
        .route("/readyz", get(admin::readyz_in_full))
        .route("/metrics", get(admin::metrics))
        .route("/workers", get(admin::workers))
        .route("/workers/exited", get(admin::exited_workers))
        .fallback(not_found)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(Arc::clone(&admin.app), pass_admin))
        .with_state(admin)
}

/// Wraps every request to the admin listener: checks host and origin, and allows no web page to read a response (no CORS).
async fn pass_admin(State(app): State<Arc<App>>, request: Request<Body>, next: Next) -> Reply {
    let (mut parts, body) = request.into_parts();
    let snapshot = judged(&app, &mut parts);
    let mut reply = match snapshot.admin_guard.check(&parts) {
        Err(refusal) => refusal,
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
    };
    no_sniffing(&mut reply);
    reply
}

/// The snapshot that a request is judged by: the current one, which goes on to the handler as an extension.
fn judged(app: &App, parts: &mut Parts) -> Arc<Snapshot> {
    let snapshot = app.snapshot.load_full();
    parts.extensions.insert(Arc::clone(&snapshot));
    snapshot
}

fn no_sniffing(reply: &mut Reply) {
    reply.headers_mut().insert(http::header::X_CONTENT_TYPE_OPTIONS, http::HeaderValue::from_static("nosniff"));
}

/// Wraps every request to the public listener: first the guard, last the counters.
async fn pass(State(app): State<Arc<App>>, request: Request<Body>, next: Next) -> Reply {
    let (mut parts, body) = request.into_parts();
    let snapshot = judged(&app, &mut parts);
    let mut reply = match snapshot.guard.check(&parts) {
        Err(refusal) => refusal,
        Ok(()) => {
            let origin = parts.headers.get(ORIGIN).cloned();
            let mut reply =
                if parts.method == Method::OPTIONS && parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
                    preflight(&parts.headers)
                } else {
                    next.run(Request::from_parts(parts, body)).await
                };
            allow_origin(origin, &mut reply);
            reply
        }
    };
    no_sniffing(&mut reply);
    app.metrics.response(reply.status().as_u16());
    reply
}

async fn not_found() -> Reply {
    problem(
        StatusCode::NOT_FOUND,
        "nothing is served here: use /servers/NAME/mcp or /servers/NAME/sse (or /mcp and /sse for the default server)",
    )
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> Reply {
    problem(StatusCode::INTERNAL_SERVER_ERROR, "the gateway failed on this request; its log says where")
}
