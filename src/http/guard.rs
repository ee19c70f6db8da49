//! Refuses requests that a foreign web page may have caused: a foreign `Host` (DNS rebinding) or a foreign `Origin`
//! gets status 403, a request with no host or with two gets 400. Clients that are not browsers send no `Origin` and
//! pass.

use std::ops::Range;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, HOST, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};

use super::problem::{Reply, plain, problem};
use crate::config::{Authority, Host, Http, Origin};

/// The request headers that a web page may send.
const ALLOWED_HEADERS: &str = "authorization, content-type, accept, last-event-id, mcp-protocol-version, mcp-session-id, \
                               mcp-method, mcp-name, x-api-key";
/// The prefix of headers that carry parameters of tools (MCP 2026-07-28, "Streamable HTTP").
const PARAMETER: &str = "mcp-param-";
/// The largest number of such headers that a page may send.
const MOST_PARAMETERS: usize = 32;
/// The lengths in bytes that the name of such a header may have.
const PARAMETER_LENGTHS: Range<usize> = PARAMETER.len() + 1..129;

/// The hosts and origins that a listener serves.
#[derive(Debug)]
pub struct Guard {
    /// Whether requests are served only for listed hosts and for loopback names and addresses, unless `any_host` is
    /// set.
    is_strict: bool,
    /// Whether the listener is bound to a loopback address. Then all origins on loopback hosts are allowed.
    is_loopback: bool,
    /// Whether `http.allowed_hosts` contains `*`.
    any_host: bool,
    /// The allowed hosts, with the host of the public URL.
    hosts: Vec<Host<'static>>,
    /// Whether `http.allowed_origins` contains `*`.
    any_origin: bool,
    /// The allowed origins, with the origin of the public URL.
    origins: Vec<Origin>,
}

impl Guard {
    /// The guard of a listener; `is_loopback` says whether the listener is bound to a loopback address.
    pub fn new(http: &Http, is_loopback: bool) -> Self {
        let listed = |list: &[String], one: &str| list.iter().any(|entry| entry == one);
        let parsed = |entry: &String| Host::parse(entry).ok().map(Host::into_owned);
        let mut hosts: Vec<_> = http.allowed_hosts.iter().filter_map(parsed).collect();
        let mut origins: Vec<_> = http.allowed_origins.iter().filter_map(|entry| Origin::parse(entry).ok()).collect();
        if let Some(own) = http.public_url.as_deref().and_then(|url| Origin::of_url(url).ok()) {
            hosts.push(own.host().clone());
            origins.push(own);
        }
        Self {
            // On other addresses any host is allowed, unless the configuration lists some.
            is_strict: is_loopback || !http.allowed_hosts.is_empty(),
            is_loopback,
            any_host: listed(&http.allowed_hosts, "*"),
            hosts,
            any_origin: listed(&http.allowed_origins, "*"),
            origins,
        }
    }

    /// Checks the authority and the `Origin` of a request (Streamable HTTP, "Security Warning").
    ///
    /// # Errors
    /// Status 400 for an authority that [`authority`] refuses; status 403 for a foreign host, a foreign origin, or
    /// several `Origin` headers.
    pub fn check(&self, parts: &Parts) -> Result<(), Reply> {
        let authority = authority(parts)?;
        let host = authority.as_ref().map(|authority| &authority.host);
        if self.is_strict && !self.any_host && !host.is_some_and(|host| host.is_loopback() || self.hosts.contains(host))
        {
            let text =
                "the Host header names a host that is not served here; if it should be, add it to http.allowed_hosts";
            return Err(problem(StatusCode::FORBIDDEN, text));
        }
        let mut values = parts.headers.get_all(ORIGIN).iter();
        let Some(value) = values.next() else { return Ok(()) };
        let is_one = values.next().is_none();
        if is_one && (self.any_origin || self.takes_origin(value, authority.as_ref())) {
            return Ok(());
        }
        let text =
            "the Origin header names a site that may not call this gateway; if it may, add it to http.allowed_origins";
        Err(problem(StatusCode::FORBIDDEN, text))
    }

    /// Whether the origin is that of the request's own authority, a loopback origin on a loopback listener, or a listed
    /// one.
    fn takes_origin(&self, value: &HeaderValue, authority: Option<&Authority<'_>>) -> bool {
        let Some(origin) = value.to_str().ok().and_then(|text| Origin::parse(text).ok()) else { return false };
        authority.is_some_and(|own| origin.is_of(own))
            || (self.is_loopback && origin.host().is_loopback())
            || self.origins.contains(&origin)
    }
}

/// The authority of a request, from `Host`, from the absolute form of the target, or from `:authority`. `None` if the
/// target names none, and the client sends an empty `Host`, or HTTP/1.0 without `Host`.
///
/// # Errors
/// Status 400: the authority is missing or invalid, or several authorities differ (RFC 9112 section 3.2, RFC 9113
/// section 8.3.1).
pub fn authority(parts: &Parts) -> Result<Option<Authority<'_>>, Reply> {
    let refused = |text: &str| Err(problem(StatusCode::BAD_REQUEST, text));
    let scheme = parts.uri.scheme_str().unwrap_or_default();
    let read = |text| Authority::parse(text).map(|authority| authority.under(scheme));
    let mut headers = parts.headers.get_all(HOST).iter();
    let header = headers.next().map(|value| value.to_str().unwrap_or("(not text)"));
    if headers.next().is_some() {
        return refused("the request has more than one Host header; send one");
    }
    let target = parts.uri.authority().map(http::uri::Authority::as_str);
    if header.is_none() && (parts.version == Version::HTTP_11 || (target.is_none() && parts.version > Version::HTTP_11))
    {
        return refused("the request names no host; send the header Host");
    }
    let named = match (target, header) {
        (None, None | Some("")) => return Ok(None),
        (None, Some(one)) | (Some(one), None) => read(one),
        (Some(target), Some(header)) => match (read(target), read(header)) {
            (Ok(one), Ok(other)) if one != other => {
                return refused("the Host header and the target of the request name different hosts; send the same");
            }
            (Ok(one), Ok(_)) => Ok(one),
            (Err(error), _) | (_, Err(error)) => Err(error),
        },
    };
    match named {
        Ok(authority) => Ok(Some(authority)),
        Err(error) => {
            refused(&format!("the host that the request names cannot be read: {error}; send host or host:port"))
        }
    }
}

/// The response to a CORS preflight request with the headers `asked`. The origin has been checked.
pub fn preflight(asked: &HeaderMap) -> Reply {
    let mut reply = plain(StatusCode::NO_CONTENT, "");
    let headers = reply.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed_headers(asked));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    headers.append(VARY, HeaderValue::from_static("access-control-request-headers"));
    reply
}

/// The value of `Access-Control-Allow-Headers` in the response to a preflight request with the headers `asked`.
/// Browsers accept no wildcard for requests with credentials, so the headers for parameters that the page asks for are
/// listed by name.
fn allowed_headers(asked: &HeaderMap) -> HeaderValue {
    let asked = asked.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter().filter_map(|value| value.to_str().ok());
    let parameters = asked
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| PARAMETER_LENGTHS.contains(&name.len()))
        .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
        .filter(|name| name.as_str().starts_with(PARAMETER))
        .take(MOST_PARAMETERS);
    let mut all = ALLOWED_HEADERS.to_owned();
    for name in parameters {
        all.push_str(", ");
        all.push_str(name.as_str());
    }
    HeaderValue::from_str(&all).unwrap_or(HeaderValue::from_static(ALLOWED_HEADERS))
}

/// Adds the headers that let the requesting page read the response. `origin` is the request's, and has been checked;
/// without one nothing is added.
pub fn allow_origin(origin: Option<&HeaderValue>, reply: &mut Reply) {
    let Some(origin) = origin else { return };
    let headers = reply.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("mcp-session-id, www-authenticate, retry-after"),
    );
    headers.append(VARY, HeaderValue::from_static("origin"));
}
