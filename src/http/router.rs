//! The paths of both listeners, and the checks that every request passes.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, CONTENT_LENGTH, CONTENT_TYPE, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::Body as _;

use super::admin::{self, Admin};
use super::app::App;
use super::body::Body;
use super::connection_memory::Unauthenticated;
use super::forwarded_requests::ForwardedRequest;
use super::guard::{allow_origin, preflight};
use super::limits::{Limits, RETRY_SECONDS, Room};
use super::network::Network;
use super::peer::Peer;
use super::problem::{Refusal, Reply, method_not_allowed, problem};
use super::request_body::RequestBody;
use super::request_head::{RequestHead, refuse_forwarded};
use super::snapshot::Snapshot;
use super::{metadata, paths, sse, streamable};
use crate::auth::WELL_KNOWN;
use crate::memory::Memory;
use crate::telemetry::{MemoryUse, Rejection};

/// The largest number of headers for which the memory of a request's headers is kept.
const MOST_SPENT: usize = 48;

/// The paths that a listener serves, and the state of their handlers. Cheap to clone.
#[derive(Clone)]
pub enum Router {
    /// The public listener: the endpoints of servers, health and readiness, and OAuth metadata.
    Public(Arc<App>),
    /// The admin listener: health and readiness, metrics, and lists of child processes.
    Admin(Arc<Admin>),
}

impl Router {
    /// The limits of the listener and of its connections, by the current snapshot of the configuration.
    pub fn limits(&self) -> Limits {
        match self {
            Self::Public(app) => Limits::of_clients(&app.snapshot.load().http, &app.memory),
            Self::Admin(admin) => Limits::of_operators(&admin.app.snapshot.load().http),
        }
    }

    /// The budget that connections are charged to. `None` for operators, who are few and must get through.
    pub fn memory(&self) -> Option<&Memory> {
        match self {
            Self::Public(app) => Some(&app.memory),
            Self::Admin(_) => None,
        }
    }

    /// Counts something for which the memory budget has no room.
    pub fn memory_refused(&self, what: MemoryUse) {
        if let Self::Public(app) = self {
            app.metrics.memory_refused(what);
        }
    }

    /// Answers one request of `peer` by the current snapshot of the configuration. Counts the responses of the public
    /// listener. `charge` is what the request is charged for until it is authenticated. The headers of the request are
    /// taken out of `parts`.
    pub async fn respond<B: RequestBody>(
        &self,
        peer: &Peer,
        parts: &mut Parts,
        charge: &Unauthenticated,
        body: &mut B,
    ) -> Reply {
        let app = match self {
            Self::Public(app) => app,
            Self::Admin(admin) => &admin.app,
        };
        let snapshot = app.snapshot.load_full();
        let mut reply = match self {
            Self::Public(app) => {
                let reply = match admit(app, &snapshot, peer, parts, charge) {
                    Ok((head, counted)) => {
                        let reply = public(app, &snapshot, &head, body).await;
                        match counted {
                            Some(counted) => reply.map(|body| body.hold(counted)),
                            None => reply,
                        }
                    }
                    Err(refusal) => refusal,
                };
                app.metrics.response(reply.status().as_u16());
                reply
            }
            Self::Admin(admin) => match snapshot.admin_guard.check(parts) {
                Err(refusal) => refusal,
                Ok(()) => caught(operators(admin, &snapshot, parts)).await,
            },
        };
        complete(&mut reply, std::mem::take(&mut parts.headers));
        if parts.method == Method::HEAD { head(reply) } else { reply }
    }
}

/// Adds the headers that all responses have, in the memory of the request's headers, `spent`. This saves every response
/// two allocations, and the next request of the connection, whose headers hyper reads into the same memory, as many.
fn complete(reply: &mut Reply, mut spent: HeaderMap) {
    let media_type = reply.body().media_type();
    if spent.capacity() <= MOST_SPENT {
        spent.clear();
        let own = std::mem::replace(reply.headers_mut(), spent);
        reply.headers_mut().extend(own);
    }
    if let Some(media_type) = media_type {
        reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    }
    reply.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// Finds out whose request it is. A request that came through a trusted proxy is counted until its response has been
/// sent, and refused if its client has too many in flight.
fn admit<'a>(
    app: &App,
    snapshot: &Snapshot,
    peer: &'a Peer,
    parts: &'a Parts,
    charge: &'a Unauthenticated,
) -> Result<(RequestHead<'a>, Option<ForwardedRequest>), Reply> {
    let refused = |rejection| app.metrics.connections.rejected(rejection);
    let proxies = &snapshot.http.proxies;
    let head = RequestHead::new(parts, peer, charge, proxies).map_err(|error| {
        refused(Rejection::ForwardedHeader);
        refuse_forwarded(error)
    })?;
    // A proxy that does not tell whose request it is stands for many.
    if head.client == peer.address || proxies.trusts(head.client) {
        return Ok((head, None));
    }
    match app.forwarded.begin(Network::of(head.client), &Room::of_clients(&snapshot.http, &app.memory)) {
        Some(counted) => Ok((head, Some(counted))),
        None => {
            refused(Rejection::RequestShare);
            let text = "your address has as many requests in flight as one address may have (http.max_connections, \
                        http.max_connections_per_address); try again when some are answered";
            Err(Refusal::problem(StatusCode::SERVICE_UNAVAILABLE, text).retry_after(RETRY_SECONDS).reply())
        }
    }
}

/// The response to HEAD: the same headers, with the length that a GET would have, and no body (RFC 9110, section
/// 9.3.2). hyper drops the body over HTTP/1 only.
fn head(mut reply: Reply) -> Reply {
    if let Some(length) = reply.body().size_hint().exact() {
        reply.headers_mut().entry(CONTENT_LENGTH).or_insert(length.into());
    }
    reply.map(Body::emptied)
}

/// Answers a request to the public listener: the guard checks the request, the endpoint or a preflight response
/// answers, and headers for web pages are added. A refusal of the guard gets no such headers.
async fn public<B: RequestBody>(app: &Arc<App>, snapshot: &Snapshot, parts: &RequestHead<'_>, body: &mut B) -> Reply {
    if let Err(refusal) = snapshot.guard.check(parts) {
        return refusal;
    }
    let is_preflight = parts.method == Method::OPTIONS && parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut reply = match is_preflight {
        true => preflight(&parts.headers),
        false => caught(endpoint(app, snapshot, parts, body)).await,
    };
    allow_origin(parts.headers.get(ORIGIN), &mut reply);
    reply
}

/// Answers a request by its path on the public listener. Endpoints of servers are also served with a slash at the end,
/// because some clients send the slash.
async fn endpoint<B: RequestBody>(app: &Arc<App>, snapshot: &Snapshot, parts: &RequestHead<'_>, body: &mut B) -> Reply {
    let path = parts.uri.path();
    match paths::endpoint(path) {
        Some("mcp") => streamable::handle(app, snapshot, parts, body).await,
        Some("sse") => sse::open(app, snapshot, parts).await,
        Some("messages") => sse::post(app, snapshot, parts, body).await,
        _ => match path {
            "/healthz" => only_get(parts, admin::healthz),
            "/readyz" => only_get(parts, || admin::readyz(app, snapshot)),
            _ => match path.strip_prefix(WELL_KNOWN) {
                Some(of) if of.is_empty() || (of.len() > 1 && of.starts_with('/')) => {
                    metadata::document(snapshot, parts)
                }
                _ => not_found(),
            },
        },
    }
}

/// Answers a request by its path on the admin listener.
async fn operators(admin: &Admin, snapshot: &Snapshot, parts: &Parts) -> Reply {
    match parts.uri.path() {
        "/healthz" => only_get(parts, admin::healthz),
        "/readyz" => only_get(parts, || admin.readyz_in_full(snapshot)),
        "/workers" => only_get(parts, || admin.workers()),
        "/workers/exited" => only_get(parts, || admin.exited_workers()),
        "/metrics" if matches!(parts.method, Method::GET | Method::HEAD) => admin.metrics().await,
        "/metrics" => method_not_allowed("GET, HEAD"),
        _ => not_found(),
    }
}

/// Answers a GET or HEAD by `answer`, and any other method by status 405.
fn only_get(parts: &Parts, answer: impl FnOnce() -> Reply) -> Reply {
    if matches!(parts.method, Method::GET | Method::HEAD) { answer() } else { method_not_allowed("GET, HEAD") }
}

/// The reply of a handler, or status 500 if the handler panics.
async fn caught(handler: impl Future<Output = Reply>) -> Reply {
    AssertUnwindSafe(handler).catch_unwind().await.unwrap_or_else(|_| {
        problem(StatusCode::INTERNAL_SERVER_ERROR, "the gateway failed on this request; its log says where")
    })
}

fn not_found() -> Reply {
    problem(
        StatusCode::NOT_FOUND,
        "nothing is served here: use /servers/NAME/mcp or /servers/NAME/sse (or /mcp and /sse for the default server)",
    )
}
