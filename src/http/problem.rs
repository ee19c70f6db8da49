//! Errors as responses: RFC 9457 where the HTTP request is at fault, JSON-RPC where its message is. One place, one look.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use crate::jsonrpc::{Code, RawId, error_response};
use crate::session::Rejected;
use crate::tenant::Refusal;
use crate::worker::Refused;

/// A response with any body.
pub type Reply = Response<Body>;

/// An RFC 9457 problem. `detail` says what is wrong and what to do.
pub fn problem(status: StatusCode, detail: &str) -> Reply {
    let title = status.canonical_reason().unwrap_or("Error");
    let body = json!({ "title": title, "status": status.as_u16(), "detail": detail }).to_string();
    with_type(status, "application/problem+json", body.into())
}

/// A JSON-RPC error response; `id` is null where the request's could not be read.
pub fn rpc_error(status: StatusCode, id: Option<&RawId>, code: Code, message: &str) -> Reply {
    json(status, error_response(id, code, message))
}

/// A JSON body.
pub fn json(status: StatusCode, body: Bytes) -> Reply {
    with_type(status, "application/json", body.into())
}

/// The method is not served here.
pub fn method_not_allowed(allow: &'static str) -> Reply {
    let mut reply = problem(StatusCode::METHOD_NOT_ALLOWED, &format!("this path takes {allow}"));
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    reply
}

/// The server takes no more for now.
pub fn refused(id: Option<&RawId>, refused: Refused) -> Reply {
    retry_after(rpc_error(StatusCode::SERVICE_UNAVAILABLE, id, Code::Overloaded, &refused.to_string()), 1)
}

/// A session was not opened.
pub fn rejected(id: Option<&RawId>, rejected: &Rejected) -> Reply {
    let (status, seconds) = match rejected {
        Rejected::Full(_) | Rejected::Principal(_) | Rejected::Tenant(_) => (StatusCode::TOO_MANY_REQUESTS, 10),
        Rejected::Draining => (StatusCode::SERVICE_UNAVAILABLE, 5),
        Rejected::NoRandomness => (StatusCode::INTERNAL_SERVER_ERROR, 10),
    };
    retry_after(rpc_error(status, id, Code::Overloaded, &rejected.to_string()), seconds)
}

/// A principal gets no server.
pub fn no_server(refusal: &Refusal) -> Reply {
    let status = match refusal {
        Refusal::UnknownTenant(_) => StatusCode::FORBIDDEN,
        Refusal::NoServer(_) | Refusal::NoDefault => StatusCode::NOT_FOUND,
    };
    problem(status, &refusal.to_string())
}

/// The session is not known (or not the caller's): the client's signal to start a new one.
pub fn no_session(id: Option<&RawId>) -> Reply {
    let text = "there is no such session: it has ended, or never was; send initialize to start a new one";
    rpc_error(StatusCode::NOT_FOUND, id, Code::InvalidRequest, text)
}

/// Turns an answer that a limit stands behind into one that says so to HTTP too, unless it is a stream already.
pub fn limit_reached(reply: &mut Reply, after: Duration) {
    if !super::headers::is_event_stream(reply) {
        *reply.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
    }
}

fn with_type(status: StatusCode, content_type: &'static str, body: Body) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

fn retry_after(mut reply: Reply, seconds: u64) -> Reply {
    reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    reply
}
