//! Serves the OAuth protected resource metadata (RFC 9728) of each endpoint, which tells a client without a token where
//! to get one.

use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};

use super::guard::authority;
use super::paths::{named_server, resource};
use super::problem::{Reply, json, method_not_allowed, problem};
use super::snapshot::Snapshot;
use crate::auth::{ProtectedResource, WELL_KNOWN};

/// The URL of the gateway without a trailing slash: the public URL, or `http` with the authority that the request
/// names. `None` if there is neither.
fn base_url(snapshot: &Snapshot, parts: &Parts) -> Option<String> {
    if let Some(url) = &snapshot.http.public_url {
        return Some(url.trim_end_matches('/').to_owned());
    }
    let authority = authority(parts).ok()??;
    Some(format!("http://{authority}"))
}

/// The URL of the metadata document of the requested endpoint. `None` if no authorization server is configured, or if
/// neither the configuration nor the request names the gateway's host.
pub fn metadata_url(snapshot: &Snapshot, parts: &Parts) -> Option<String> {
    if snapshot.jwt.as_ref()?.authorization_servers.is_empty() {
        return None;
    }
    let (base, prefix) = (base_url(snapshot, parts)?, snapshot.prefix());
    let origin = base.strip_suffix(prefix).unwrap_or(&base);
    Some(format!("{origin}{WELL_KNOWN}{prefix}{}", resource(parts.uri.path())))
}

/// Answers `GET /.well-known/oauth-protected-resource/…` without authentication. Status 404 if no authorization server
/// is configured.
pub fn document(snapshot: &Snapshot, parts: &Parts) -> Reply {
    if parts.method != Method::GET {
        return method_not_allowed("GET");
    }
    let path = parts.uri.path().strip_prefix(WELL_KNOWN).unwrap_or_default().trim_end_matches('/');
    let path = path.strip_prefix(snapshot.prefix()).unwrap_or(path);
    let document = snapshot.jwt.as_ref().zip(base_url(snapshot, parts)).and_then(|(jwt, base)| {
        let name = named_server(path).unwrap_or("sluice");
        ProtectedResource::new(jwt, &format!("{base}{path}"), name)
    });
    match document.and_then(|document| serde_json::to_vec(&document).ok()) {
        Some(body) => {
            let mut reply = json(StatusCode::OK, body);
            // Web pages read the document before they have any credential.
            reply.headers_mut().insert(http::header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            reply
        }
        None => problem(
            StatusCode::NOT_FOUND,
            "no authorization server is configured here ([auth.jwt] authorization_servers)",
        ),
    }
}
