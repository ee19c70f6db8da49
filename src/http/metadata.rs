//! Where a client without a token learns how to get one (RFC 9728): a document for each endpoint.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use http::request::Parts;
use http::{HeaderValue, Method, Request, StatusCode};

use super::app::App;
use super::caller::named_server;
use super::guard::authority;
use super::problem::{Reply, json, method_not_allowed, problem};
use crate::auth::{ProtectedResource, WELL_KNOWN};

/// The scheme, host and path prefix under which this client reaches the gateway.
fn base_url(app: &App, parts: &Parts) -> Option<String> {
    if let Some(url) = &app.http.public_url {
        return Some(url.trim_end_matches('/').to_owned());
    }
    let authority = authority(parts).ok()??;
    Some(format!("http://{authority}"))
}

/// The URL of the document for the endpoint that was called; `None` where no authorization server is configured.
pub fn metadata_url(app: &App, parts: &Parts) -> Option<String> {
    if app.jwt.as_ref()?.authorization_servers.is_empty() {
        return None;
    }
    let base = base_url(app, parts)?;
    let origin_end = base.find("://").and_then(|at| base.get(at + 3..)?.find('/').map(|slash| at + 3 + slash));
    let (origin, prefix) = base.split_at(origin_end.unwrap_or(base.len()));
    Some(format!("{origin}{WELL_KNOWN}{prefix}{}", endpoint(parts.uri.path())))
}

/// The resource that a path belongs to: without a slash at its end, and for a session's `messages` its stream.
fn endpoint(path: &str) -> String {
    let path = path.trim_end_matches('/');
    path.strip_suffix("/messages").map_or_else(|| path.to_owned(), |base| format!("{base}/sse"))
}

/// `GET /.well-known/oauth-protected-resource/…`, without authentication.
pub async fn document(State(app): State<Arc<App>>, request: Request<Body>) -> Reply {
    let (parts, _) = request.into_parts();
    if parts.method != Method::GET {
        return method_not_allowed("GET");
    }
    let path = parts.uri.path().strip_prefix(WELL_KNOWN).unwrap_or_default().trim_end_matches('/');
    let path = path.strip_prefix(app.prefix()).unwrap_or(path);
    let document = app.jwt.as_ref().zip(base_url(&app, &parts)).and_then(|(jwt, base)| {
        let name = named_server(path).unwrap_or("sluice");
        ProtectedResource::new(jwt, &format!("{base}{path}"), name)
    });
    match document.and_then(|document| serde_json::to_vec(&document).ok()) {
        Some(body) => {
            let mut reply = json(StatusCode::OK, body.into());
            // Browser clients read it before they have any credential.
            reply.headers_mut().insert(http::header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            reply
        }
        None => problem(
            StatusCode::NOT_FOUND,
            "no authorization server is configured here ([auth.jwt] authorization_servers)",
        ),
    }
}
