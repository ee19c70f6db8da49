//! Refuses what a web page of somebody else may send: foreign `Host` (DNS rebinding) and foreign `Origin` get 403.
//! Clients that are no browsers send no `Origin`, and pass.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, HOST, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::app::App;
use super::problem::{Reply, problem};

const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Checks `Host` and `Origin` (Streamable HTTP, "Security Warning").
pub fn check(app: &App, parts: &Parts) -> Result<(), Reply> {
    let host = host_of(parts);
    let named =
        |list: &[String], name: &str| list.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(name));
    // On other addresses any name may be the right one, unless the configuration says which are.
    let must_match = app.is_loopback || !app.http.allowed_hosts.is_empty();
    if must_match && !is_loopback_name(host) && !named(&app.http.allowed_hosts, host) {
        let text =
            "the Host header names a host that is not served here; if it should be, add it to http.allowed_hosts";
        return Err(problem(StatusCode::FORBIDDEN, text));
    }
    let Some(origin) = origin(&parts.headers) else { return Ok(()) };
    let origin_host = origin.split_once("://").map_or(origin, |(_, rest)| without_port(rest));
    let is_own = parts.headers.get(HOST).and_then(|value| value.to_str().ok()).is_some_and(|host| {
        origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
    });
    if is_own || (app.is_loopback && is_loopback_name(origin_host)) || named(&app.http.allowed_origins, origin) {
        return Ok(());
    }
    let text =
        "the Origin header names a site that may not call this gateway; if it may, add it to http.allowed_origins";
    Err(problem(StatusCode::FORBIDDEN, text))
}

fn origin(headers: &HeaderMap) -> Option<&str> {
    headers.get(ORIGIN).map(|value| value.to_str().unwrap_or("(not text)"))
}

fn host_of(parts: &Parts) -> &str {
    // HTTP/2 has it in the URI.
    let host = parts.headers.get(HOST).and_then(|value| value.to_str().ok());
    without_port(host.or_else(|| parts.uri.authority().map(|a| a.as_str())).unwrap_or_default())
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

fn is_loopback_name(host: &str) -> bool {
    LOOPBACK.iter().any(|name| name.eq_ignore_ascii_case(host))
}

/// The answer to a browser that asks before it sends (CORS preflight). The origin has been checked.
pub fn preflight() -> Reply {
    let mut reply = Response::new(axum::body::Body::empty());
    *reply.status_mut() = StatusCode::NO_CONTENT;
    let headers = reply.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE"));
    let allowed = "authorization, content-type, accept, last-event-id, mcp-protocol-version, mcp-session-id, x-api-key";
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(allowed));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    reply
}

/// Lets the page that asked read the answer. The origin has been checked.
pub fn allow_origin(origin: Option<HeaderValue>, reply: &mut Reply) {
    let Some(origin) = origin else { return };
    let headers = reply.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("mcp-session-id, www-authenticate, retry-after"),
    );
    headers.append(VARY, HeaderValue::from_static("origin"));
}
