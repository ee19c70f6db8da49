//! The two ways in which a request is refused (ADR 0013), and how each is written. One place, one look.
//!
//! A [`Refusal`] is made before the envelope of a message has been read, or by a header: its answer is a status. A
//! [`RequestError`] is the error of one request whose id is known: its answer has that id, and goes where answers go. The types
//! keep the two apart: only a header or a body makes a `Refusal`, and a `RequestError` cannot be given a status.

use axum::body::Body;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::json;

use super::headers::VERSIONS;
use crate::jsonrpc::{Code, ParseError, RawId, error_response, error_response_with_data};
use crate::session::Rejected;
use crate::tenant;
use crate::worker::Refused;

/// A response with any body.
pub type Reply = Response<Body>;

/// An HTTP request that is refused before a message of it is taken. Its answer is a status.
#[derive(Debug)]
pub struct Refusal(Reply);

impl Refusal {
    /// The HTTP request itself is at fault or unwelcome: its credential, its size, its headers, its body's form.
    pub fn problem(status: StatusCode, detail: &str) -> Self {
        Self(problem(status, detail))
    }

    /// The body is no message, or no batch that is taken here. `id` is that of the message, where one could be read.
    pub fn form(id: Option<&RawId>, code: Code, text: &str) -> Self {
        Self(rpc_error(StatusCode::BAD_REQUEST, id, code, text))
    }

    /// The body, or a message of a batch, is not JSON-RPC.
    pub fn unreadable(error: &ParseError) -> Self {
        match error {
            ParseError::NotJson(_) => Self::form(None, Code::Parse, &error.to_string()),
            ParseError::Invalid { id, .. } => Self::form(id.as_ref(), Code::InvalidRequest, &error.to_string()),
        }
    }

    /// The headers `Mcp-Session-Id` or `MCP-Protocol-Version` do not fit (Streamable HTTP, "Session Management",
    /// "Protocol Version Header").
    pub fn header(id: Option<&RawId>, text: &str) -> Self {
        Self(rpc_error(StatusCode::BAD_REQUEST, id, Code::InvalidRequest, text))
    }

    /// The session is not known, or not the caller's: the client's signal to start a new one.
    pub fn no_session(id: Option<&RawId>) -> Self {
        let text = "there is no such session: it has ended, or never was; send initialize to start a new one";
        Self(rpc_error(StatusCode::NOT_FOUND, id, Code::InvalidRequest, text))
    }

    /// The header names the stateless revision, in a request that holds no single request that could be answered.
    pub fn modern(requested: &str) -> Self {
        Self(json(StatusCode::BAD_REQUEST, unsupported(None, Code::UnsupportedVersion, requested)))
    }

    /// A principal gets no server.
    pub fn no_server(refusal: &tenant::Refusal) -> Self {
        let status = match refusal {
            tenant::Refusal::UnknownTenant(_) => StatusCode::FORBIDDEN,
            tenant::Refusal::NoServer(_) | tenant::Refusal::NoDefault => StatusCode::NOT_FOUND,
        };
        Self::problem(status, &refusal.to_string())
    }

    /// A stream, which no request has asked for, finds no room for its session.
    pub fn no_room(rejected: &Rejected) -> Self {
        let status = match rejected {
            Rejected::Full(_) | Rejected::Principal(_) | Rejected::Tenant(_) => StatusCode::TOO_MANY_REQUESTS,
            Rejected::Draining => StatusCode::SERVICE_UNAVAILABLE,
            Rejected::NoRandomness => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let body = error_response(None, Code::Overloaded, &rejected.to_string());
        Self(json(status, body)).retry_after(rejected.retry_after())
    }

    /// A notification or an answer of the client is not taken for now. There is no id to answer under, and Streamable HTTP
    /// wants a status then ("Sending Messages to the Server").
    pub fn busy(refused: Refused) -> Self {
        let body = error_response(None, Code::Overloaded, &refused.to_string());
        Self(json(StatusCode::SERVICE_UNAVAILABLE, body)).retry_after(1)
    }

    /// Says when to come back.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        self.with(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Adds a header.
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
    /// The status that the revision of the request fixes for it, on Streamable HTTP.
    fixed: Option<StatusCode>,
}

impl RequestError {
    /// A request that is wrong where it stands.
    pub fn invalid(id: &RawId, text: &str) -> Self {
        Self { response: error_response(Some(id), Code::InvalidRequest, text), fixed: None }
    }

    /// `initialize` finds no room for its session.
    pub fn no_room(id: &RawId, rejected: &Rejected) -> Self {
        let data = json!({ "type": rejected.kind(), "retryable": true, "retryAfter": rejected.retry_after() });
        Self {
            response: error_response_with_data(Some(id), Code::Overloaded, &rejected.to_string(), &data),
            fixed: None,
        }
    }

    /// A request of a revision that is not carried here: which ones are. That revision fixes the statuses (2026-07-28,
    /// "Streamable HTTP").
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

    /// The error response, for a stream or a batch.
    pub fn response(self) -> Bytes {
        self.response
    }

    /// The response to a POST of this one request (Streamable HTTP).
    pub fn reply(self) -> Reply {
        json(self.fixed.unwrap_or(StatusCode::OK), self.response)
    }
}

/// Why a POST over Streamable HTTP has no other answer.
#[derive(Debug)]
pub enum Denied {
    /// Its answer is a status.
    Refused(Refusal),
    /// Its one request has an error.
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

/// An RFC 9457 problem. `detail` says what is wrong and what to do.
pub fn problem(status: StatusCode, detail: &str) -> Reply {
    let title = status.canonical_reason().unwrap_or("Error");
    let body = json!({ "title": title, "status": status.as_u16(), "detail": detail }).to_string();
    with_type(status, "application/problem+json", body.into())
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

fn rpc_error(status: StatusCode, id: Option<&RawId>, code: Code, text: &str) -> Reply {
    json(status, error_response(id, code, text))
}

fn unsupported(id: Option<&RawId>, code: Code, requested: &str) -> Bytes {
    let data = json!({ "supported": VERSIONS, "requested": requested });
    let text = "unsupported protocol version: this endpoint speaks the revisions with initialize";
    error_response_with_data(id, code, text, &data)
}

fn with_type(status: StatusCode, content_type: &'static str, body: Body) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}
