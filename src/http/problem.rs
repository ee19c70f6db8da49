//! The two ways to refuse a request (ADR 0013) and the responses for both.
//!
//! A [`Refusal`] is made before the envelope of a message has been read, or because of a header: the response has an
//! HTTP status. A [`RequestError`] is the error of one request whose id is known: the error goes under that id to the
//! place where answers go. The types keep the two apart: only code that reads headers or bodies makes a `Refusal`, and
//! the caller cannot give a `RequestError` a status.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::json;

use super::body::Body;
use crate::jsonrpc::{Code, ParseError, RawId, error_response, error_response_with_data};
use crate::mcp::revision::{SPOKEN, STATELESS};
use crate::memory::Exhausted;
use crate::session::Rejected;
use crate::tenant;
use crate::worker::Refused;

/// An HTTP response.
pub type Reply = Response<Body>;

/// The refusal of an HTTP request of which no message was accepted. The response has an HTTP status.
pub struct Refusal(Reply);

impl Refusal {
    /// Refuses the HTTP request itself, because of its credential, size or headers. The body is problem JSON (RFC
    /// 9457).
    pub fn problem(status: StatusCode, detail: &str) -> Self {
        Self(problem(status, detail))
    }

    /// Refuses a request with status 400 and the JSON-RPC error `InvalidRequest`: for a body that is not a message or
    /// an allowed batch, and for a wrong header `Mcp-Session-Id` or `MCP-Protocol-Version` (Streamable HTTP, "Session
    /// Management", "Protocol Version Header"). `id` is the id of the message, if one could be read.
    pub fn invalid(id: Option<&RawId>, text: &str) -> Self {
        Self::rpc(StatusCode::BAD_REQUEST, id, Code::InvalidRequest, text)
    }

    /// Refuses a body, or a message of a batch, that is not JSON-RPC, with status 400.
    pub fn unreadable(error: &ParseError) -> Self {
        match error {
            ParseError::NotJson(_) => Self::rpc(StatusCode::BAD_REQUEST, None, Code::Parse, &error.to_string()),
            ParseError::Invalid { id, .. } => Self::invalid(id.as_ref(), &error.to_string()),
        }
    }

    /// Refuses a request for a session that is unknown or belongs to another caller. The status 404 tells the client to
    /// start a new session.
    pub fn no_session(id: Option<&RawId>) -> Self {
        let text = "there is no such session: it has ended, or never was; send initialize to start a new one";
        Self::rpc(StatusCode::NOT_FOUND, id, Code::InvalidRequest, text)
    }

    /// Refuses a request with status 400 whose header names the stateless revision, and whose body is not a single
    /// request.
    pub fn stateless() -> Self {
        Self(json(StatusCode::BAD_REQUEST, unsupported(None, Code::UnsupportedVersion, STATELESS)))
    }

    /// Refuses a principal that may not use the server: status 403 for an unknown tenant, 404 for a server that is
    /// unknown, not allowed, or not named.
    pub fn no_server(refusal: &tenant::Refusal) -> Self {
        let status = match refusal {
            tenant::Refusal::UnknownTenant(_) => StatusCode::FORBIDDEN,
            tenant::Refusal::NoServer(_) | tenant::Refusal::NoDefault => StatusCode::NOT_FOUND,
        };
        Self::problem(status, &refusal.to_string())
    }

    /// Refuses a GET that would open a session: status 429 because of a limit on sessions, 503 while the gateway
    /// drains or the tenant has no memory left, 500 without random numbers.
    pub fn no_room(rejected: &Rejected) -> Self {
        let status = match rejected {
            Rejected::Full(..) | Rejected::Principal(_) | Rejected::Tenant(_) | Rejected::Share(_) => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Rejected::Memory(_) | Rejected::Draining(_) => StatusCode::SERVICE_UNAVAILABLE,
            Rejected::NoRandomness => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::rpc(status, None, Code::Overloaded, &rejected.to_string()).retry_after(rejected.retry_after())
    }

    /// Refuses a notification or a response of the client that cannot be accepted now, with status 503. Such a message
    /// has no id to answer under (Streamable HTTP, "Sending Messages to the Server").
    pub fn busy(refused: Refused) -> Self {
        Self::rpc(StatusCode::SERVICE_UNAVAILABLE, None, Code::Overloaded, &refused.to_string()).retry_after(1)
    }

    /// Refuses a request for which the caller's tenant has no memory left: status 413 for what could never have it, 503
    /// otherwise. `what` is what the memory was wanted for.
    pub fn no_memory(what: &str, why: Exhausted) -> Self {
        match why {
            Exhausted::TooLarge => Self::rpc(
                StatusCode::PAYLOAD_TOO_LARGE,
                None,
                Code::Overloaded,
                &format!("{what} takes {why}; send less"),
            ),
            Exhausted::Share | Exhausted::Limit => {
                let text = format!("there is no room for {what}: {why}; try again later");
                Self::rpc(StatusCode::SERVICE_UNAVAILABLE, None, Code::Overloaded, &text).retry_after(1)
            }
        }
    }

    fn rpc(status: StatusCode, id: Option<&RawId>, code: Code, text: &str) -> Self {
        Self(json(status, error_response(id, code, text)))
    }

    /// Adds the header `Retry-After`: the client should wait for `seconds` seconds.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        self.with(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Sets a header of the response.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers_mut().insert(name, value);
        self
    }

    /// The response.
    pub fn reply(self) -> Reply {
        self.0
    }
}

/// The error of one request whose id is known.
pub struct RequestError {
    response: Bytes,
    /// The HTTP status of the response to a POST of the only request, on Streamable HTTP.
    status: StatusCode,
}

impl RequestError {
    /// The error of a request that is invalid at its place, such as `initialize` in a batch.
    pub fn invalid(id: &RawId, text: &str) -> Self {
        Self { response: error_response(Some(id), Code::InvalidRequest, text), status: StatusCode::OK }
    }

    /// The error of an `initialize` that may not open a session now. Tells the client when to retry.
    pub fn no_room(id: &RawId, rejected: &Rejected) -> Self {
        let data = json!({ "type": rejected.kind(), "retryable": true, "retryAfter": rejected.retry_after() });
        let response = error_response_with_data(Some(id), Code::Overloaded, &rejected.to_string(), &data);
        Self { response, status: StatusCode::OK }
    }

    /// The error of a request of the stateless revision: `requested` is the version that the request names, and
    /// `is_probe` says that the method is `server/discover`. The error lists the revisions that the gateway carries.
    /// The stateless revision prescribes the status (MCP 2026-07-28, "Streamable HTTP").
    pub fn stateless(id: &RawId, is_probe: bool, requested: &str) -> Self {
        // The probe is an unknown method, as with any server of the older revisions. rmcp concludes from an unsupported
        // version that the server speaks the stateless revision, and gives up.
        let (code, status) = if is_probe {
            (Code::MethodNotFound, StatusCode::NOT_FOUND)
        } else {
            (Code::UnsupportedVersion, StatusCode::BAD_REQUEST)
        };
        Self { response: unsupported(Some(id), code, requested), status }
    }

    /// The JSON-RPC error response, for a stream or a batch.
    pub fn response(self) -> Bytes {
        self.response
    }

    /// The HTTP response to a POST of this one request (Streamable HTTP).
    pub fn reply(self) -> Reply {
        json(self.status, self.response)
    }
}

/// A problem response (RFC 9457). `detail` says what is wrong and what to do.
pub fn problem(status: StatusCode, detail: &str) -> Reply {
    let title = status.canonical_reason().unwrap_or("Error");
    let body = json!({ "title": title, "status": status.as_u16(), "detail": detail }).to_string();
    with_type(status, "application/problem+json", body)
}

/// A response with a JSON body.
pub fn json(status: StatusCode, body: impl Into<Body>) -> Reply {
    with_type(status, "application/json", body)
}

/// The response to an HTTP method that the path does not serve: status 405. `allow` lists the methods that the path
/// serves.
pub fn method_not_allowed(allow: &'static str) -> Reply {
    let mut reply = problem(StatusCode::METHOD_NOT_ALLOWED, &format!("this path takes {allow}"));
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    reply
}

fn unsupported(id: Option<&RawId>, code: Code, requested: &str) -> Bytes {
    let data = json!({ "supported": SPOKEN, "requested": requested });
    let text = "unsupported protocol version: this endpoint speaks the revisions with initialize";
    error_response_with_data(id, code, text, &data)
}

/// A response without headers.
pub fn plain(status: StatusCode, body: impl Into<Body>) -> Reply {
    let mut reply = Response::new(body.into());
    *reply.status_mut() = status;
    reply
}

fn with_type(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Reply {
    let mut reply = plain(status, body);
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}
