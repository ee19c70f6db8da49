//! The two ways to refuse a request (ADR 0013) and the responses for both.
//!
//! A [`Refusal`] is made before the envelope of a message has been read, or because of a header: the response has an HTTP
//! status. A [`RequestError`] is the error of one request whose id is known: the error goes under that id to the place where
//! answers go. The types keep the two apart: only code that reads headers or bodies makes a `Refusal`, and a `RequestError`
//! cannot be given a status.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::json;

use super::body::Body;
use crate::jsonrpc::{Code, ParseError, RawId, error_response, error_response_with_data};
use crate::mcp::revision::SPOKEN;
use crate::session::Rejected;
use crate::tenant;
use crate::worker::Refused;

/// An HTTP response with a body of any kind.
pub type Reply = Response<Body>;

/// The refusal of an HTTP request of which no message was accepted. The response has an HTTP status.
#[derive(Debug)]
pub struct Refusal(Reply);

impl Refusal {
    /// Refuses the HTTP request itself: its credential, its size, its headers or the form of its body.
    pub fn problem(status: StatusCode, detail: &str) -> Self {
        Self(problem(status, detail))
    }

    /// Refuses a body that is not a message, or not a batch that is allowed. `id` is the id of the message, if one could be
    /// read.
    pub fn form(id: Option<&RawId>, code: Code, text: &str) -> Self {
        Self(rpc_error(StatusCode::BAD_REQUEST, id, code, text))
    }

    /// Refuses a body, or a message of a batch, that is not JSON-RPC.
    pub fn unreadable(error: &ParseError) -> Self {
        match error {
            ParseError::NotJson(_) => Self::form(None, Code::Parse, &error.to_string()),
            ParseError::Invalid { id, .. } => Self::form(id.as_ref(), Code::InvalidRequest, &error.to_string()),
        }
    }

    /// Refuses a request whose header `Mcp-Session-Id` or `MCP-Protocol-Version` is wrong (Streamable HTTP, "Session
    /// Management", "Protocol Version Header").
    pub fn header(id: Option<&RawId>, text: &str) -> Self {
        Self(rpc_error(StatusCode::BAD_REQUEST, id, Code::InvalidRequest, text))
    }

    /// Refuses a request for a session that is unknown or belongs to another caller. The status tells the client to start a
    /// new session.
    pub fn no_session(id: Option<&RawId>) -> Self {
        let text = "there is no such session: it has ended, or never was; send initialize to start a new one";
        Self(rpc_error(StatusCode::NOT_FOUND, id, Code::InvalidRequest, text))
    }

    /// Refuses a request whose header names the stateless revision and whose body contains no single request to answer.
    pub fn modern(requested: &str) -> Self {
        Self(json(StatusCode::BAD_REQUEST, unsupported(None, Code::UnsupportedVersion, requested)))
    }

    /// Refuses a principal that may not use the server.
    pub fn no_server(refusal: &tenant::Refusal) -> Self {
        let status = match refusal {
            tenant::Refusal::UnknownTenant(_) => StatusCode::FORBIDDEN,
            tenant::Refusal::NoServer(_) | tenant::Refusal::NoDefault => StatusCode::NOT_FOUND,
        };
        Self::problem(status, &refusal.to_string())
    }

    /// Refuses a GET that would open a session, because a limit on sessions is reached.
    pub fn no_room(rejected: &Rejected) -> Self {
        let status = match rejected {
            Rejected::Full(_) | Rejected::Principal(_) | Rejected::Tenant(_) => StatusCode::TOO_MANY_REQUESTS,
            Rejected::Draining => StatusCode::SERVICE_UNAVAILABLE,
            Rejected::NoRandomness => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let body = error_response(None, Code::Overloaded, &rejected.to_string());
        Self(json(status, body)).retry_after(rejected.retry_after())
    }

    /// Refuses a notification or a response of the client that cannot be accepted now. There is no id to answer under, so
    /// the response has a status, as Streamable HTTP wants ("Sending Messages to the Server").
    pub fn busy(refused: Refused) -> Self {
        let body = error_response(None, Code::Overloaded, &refused.to_string());
        Self(json(StatusCode::SERVICE_UNAVAILABLE, body)).retry_after(1)
    }

    /// Adds `Retry-After`: the client should wait for `seconds` seconds.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        self.with(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Adds a header to the response.
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
#[derive(Debug)]
pub struct RequestError {
    response: Bytes,
    /// The HTTP status that the protocol revision prescribes for the error, on Streamable HTTP.
    fixed: Option<StatusCode>,
}

impl RequestError {
    /// The error of a request that is invalid at its place, such as `initialize` in a batch.
    pub fn invalid(id: &RawId, text: &str) -> Self {
        Self { response: error_response(Some(id), Code::InvalidRequest, text), fixed: None }
    }

    /// The error of an `initialize` whose session would exceed a limit.
    pub fn no_room(id: &RawId, rejected: &Rejected) -> Self {
        let data = json!({ "type": rejected.kind(), "retryable": true, "retryAfter": rejected.retry_after() });
        Self {
            response: error_response_with_data(Some(id), Code::Overloaded, &rejected.to_string(), &data),
            fixed: None,
        }
    }

    /// The error of a request whose revision the gateway does not carry. The error lists the carried revisions. The refused
    /// revision prescribes the status (MCP 2026-07-28, "Streamable HTTP").
    pub fn modern(id: &RawId, is_probe: bool, requested: &str) -> Self {
        // The probe itself is an unknown method here, as it is to any server of the older revisions: rmcp takes an
        // unsupported version as the word of a server that is modern, and gives up.
        let (code, status) = if is_probe {
            (Code::MethodNotFound, StatusCode::NOT_FOUND)
        } else {
            (Code::UnsupportedVersion, StatusCode::BAD_REQUEST)
        };
        Self { response: unsupported(Some(id), code, requested), fixed: Some(status) }
    }

    /// The JSON-RPC error response, for a stream or a batch.
    pub fn response(self) -> Bytes {
        self.response
    }

    /// The HTTP response to a POST of this one request (Streamable HTTP).
    pub fn reply(self) -> Reply {
        json(self.fixed.unwrap_or(StatusCode::OK), self.response)
    }
}

/// The reason why a POST over Streamable HTTP is not answered by its conversation.
#[derive(Debug)]
pub enum Denied {
    /// The HTTP request is refused with a status.
    Refused(Refusal),
    /// The only request of the body has an error.
    Failed(RequestError),
}

impl Denied {
    /// The response.
    pub fn reply(self) -> Reply {
        match self {
            Self::Refused(refusal) => refusal.reply(),
            Self::Failed(error) => error.reply(),
        }
    }
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<RequestError> for Denied {
    fn from(error: RequestError) -> Self {
        Self::Failed(error)
    }
}

/// A problem response (RFC 9457). `detail` says what is wrong and what to do.
pub fn problem(status: StatusCode, detail: &str) -> Reply {
    let title = status.canonical_reason().unwrap_or("Error");
    let body = json!({ "title": title, "status": status.as_u16(), "detail": detail }).to_string();
    with_type(status, "application/problem+json", body.into())
}

/// A response with a JSON body.
pub fn json(status: StatusCode, body: Bytes) -> Reply {
    with_type(status, "application/json", body.into())
}

/// The response to an HTTP method that the path does not serve. `allow` lists those that it serves.
pub fn method_not_allowed(allow: &'static str) -> Reply {
    let mut reply = problem(StatusCode::METHOD_NOT_ALLOWED, &format!("this path takes {allow}"));
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    reply
}

fn rpc_error(status: StatusCode, id: Option<&RawId>, code: Code, text: &str) -> Reply {
    json(status, error_response(id, code, text))
}

fn unsupported(id: Option<&RawId>, code: Code, requested: &str) -> Bytes {
    let data = json!({ "supported": SPOKEN, "requested": requested });
    let text = "unsupported protocol version: this endpoint speaks the revisions with initialize";
    error_response_with_data(id, code, text, &data)
}

fn with_type(status: StatusCode, content_type: &'static str, body: Body) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}
