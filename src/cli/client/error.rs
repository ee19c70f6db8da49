//! The errors of the client, each with advice, and their exit codes and JSON-RPC errors.

use std::time::Duration;

use bytes::Bytes;
use reqwest::StatusCode;
use serde_json::json;

use crate::jsonrpc::{Code, RawId, error_response_with_data};

/// The text about the exit codes of `tools` and `call` in `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    fine
  1    the tool itself answered with an error (what it said is on stdout)
  2    the command line is wrong
  64   the arguments do not fit the tool, or there is no such tool
  69   nothing there: cannot connect, no such path (404), the gateway is broken (5xx), or the connection was lost
  70   the answer is not MCP, or the gateway refused the message
  75   busy, try again later (429, or 503 with Retry-After)
  76   the server answered with a JSON-RPC error
  77   the key was refused, or one is needed (401, 403)
  124  no answer in time (--timeout)
  130  interrupted (Ctrl-C); the call was cancelled";

/// The exit code for a result with `isError`.
pub const TOOL_FAILED: u8 = 1;

/// The reason why a command or a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection could be made.
    #[error(
        "cannot reach {origin}: {reason}. Is the gateway running there? `sluice demo` starts one on 127.0.0.1:8081"
    )]
    Unreachable {
        /// Scheme, host and port of the gateway.
        origin: String,
        /// The innermost cause, in words of the system.
        reason: String,
    },
    /// The HTTP status is not a success.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The gateway has lost the session (404, or the end of the stream of HTTP+SSE).
    #[error("the gateway has ended the session; run the command again")]
    SessionGone,
    /// The connection was lost, so that the answer cannot come.
    #[error("the connection was lost before the answer came ({0}); the call may or may not have been made")]
    Lost(String),
    /// The gateway sent something that is not MCP.
    #[error("this is not MCP: {0}")]
    Protocol(String),
    /// The server answered with a JSON-RPC error.
    #[error("{0}")]
    Rpc(RpcError),
    /// The arguments are wrong. No call was made.
    #[error("{0}")]
    Arguments(String),
    /// No answer came in this time.
    #[error("no answer within {0:?}; --timeout gives it more")]
    TimedOut(Duration),
    /// The user pressed Ctrl-C, or nothing takes messages any more.
    #[error("interrupted")]
    Interrupted,
}

/// A JSON-RPC error object (JSON-RPC 2.0 section 5.1).
#[derive(Debug, Clone, serde::Deserialize, serde::Serialize, thiserror::Error)]
#[error("the server answered with error {code}: {message}")]
pub struct RpcError {
    pub(super) code: i64,
    pub(super) message: String,
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub(super) data: serde_json::Value,
}

/// An HTTP response whose status is not a success.
#[derive(Debug)]
pub struct Refusal {
    /// The status.
    pub(super) status: StatusCode,
    /// The URL of the request, without its query.
    pub(super) url: String,
    /// Whether the request had a credential.
    pub(super) with_credential: bool,
    /// The header `Retry-After`.
    pub(super) retry_after: Option<String>,
    /// The header `Location`.
    pub(super) location: Option<String>,
    /// The message in the body: problem details (RFC 9457) or plain text.
    pub(super) detail: Option<String>,
    /// The JSON-RPC error in the body.
    pub(super) rpc: Option<RpcError>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { url, status, .. } = self;
        let what = match status.as_u16() {
            401 if self.with_credential => "the gateway does not accept this key (401)".to_owned(),
            401 => "the gateway wants a key: give --key-file or --key, or set SLUICE_KEY_FILE or SLUICE_KEY (401)"
                .to_owned(),
            403 => "the gateway does not allow this (403)".to_owned(),
            404 => format!(
                "there is no server at {url} (404); paths are /mcp, /sse, /servers/NAME/mcp and /servers/NAME/sse"
            ),
            405 => format!(
                "{url} does not speak this transport (405); a URL that ends in /sse means HTTP+SSE, any other Streamable HTTP"
            ),
            429 | 503 => format!("the gateway is busy ({status})"),
            300..=399 => match &self.location {
                Some(location) => format!("{url} has moved to {location} ({status}): give that URL"),
                None => format!("{url} has moved ({status})"),
            },
            500..=599 => format!("the gateway, or what is behind it, failed ({status})"),
            _ => format!("the gateway refused the message ({status})"),
        };
        f.write_str(&what)?;
        if let Some(after) = &self.retry_after {
            write!(f, "; try again in {after}{}", if after.bytes().all(|b| b.is_ascii_digit()) { " s" } else { "" })?;
        }
        match (&self.rpc, &self.detail) {
            (Some(rpc), _) => write!(f, ": {}", rpc.message),
            (None, Some(detail)) => write!(f, ": {detail}"),
            (None, None) => Ok(()),
        }
    }
}

impl Error {
    /// The exit code, as in [`EXIT_CODES`].
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Arguments(_) => 64,
            Self::Unreachable { .. } | Self::SessionGone | Self::Lost(_) => 69,
            Self::Protocol(_) => 70,
            Self::Rpc(_) => 76,
            Self::TimedOut(_) => 124,
            Self::Interrupted => 130,
            Self::Refused(refusal) => match refusal.status.as_u16() {
                401 | 403 => 77,
                429 => 75,
                503 if refusal.retry_after.is_some() => 75,
                404 | 500..=599 => 69,
                _ if refusal.rpc.is_some() => 76,
                _ => 70,
            },
        }
    }

    /// The error as a JSON-RPC answer to the request `id`, for a client on stdio. A JSON-RPC error of the gateway or
    /// the server is passed on with its code, message and data.
    pub(super) fn answer(&self, id: Option<&RawId>) -> Bytes {
        let foreign = match self {
            Self::Rpc(rpc) => Some(rpc),
            Self::Refused(refusal) => refusal.rpc.as_ref(),
            _ => None,
        };
        if let Some(rpc) = foreign {
            let error = json!(rpc);
            return format!(r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, id.map_or("null", RawId::as_str)).into();
        }
        let (code, data) = match self {
            Self::TimedOut(_) => (Code::Timeout, serde_json::Value::Null),
            Self::Arguments(_) => (Code::InvalidRequest, serde_json::Value::Null),
            Self::Refused(refusal) => {
                let code = if self.exit_code() == 75 { Code::Overloaded } else { Code::ServerUnavailable };
                (code, json!({ "status": refusal.status.as_u16(), "retryAfter": refusal.retry_after }))
            }
            _ => (Code::ServerUnavailable, serde_json::Value::Null),
        };
        error_response_with_data(id, code, &self.to_string(), &data)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn refused(status: u16, retry_after: Option<&str>, rpc: Option<i64>) -> Error {
        Error::Refused(Box::new(Refusal {
            status: StatusCode::from_u16(status).unwrap(),
            url: "http://h/mcp".to_owned(),
            with_credential: false,
            retry_after: retry_after.map(str::to_owned),
            location: None,
            detail: Some("because".to_owned()),
            rpc: rpc.map(|code| RpcError { code, message: "inner".to_owned(), data: serde_json::Value::Null }),
        }))
    }

    #[test]
    fn every_failure_has_its_exit_code_and_help_lists_it() {
        let cases = [
            (Error::Arguments(String::new()), 64),
            (Error::Unreachable { origin: String::new(), reason: String::new() }, 69),
            (Error::SessionGone, 69),
            (Error::Lost(String::new()), 69),
            (Error::Protocol(String::new()), 70),
            (Error::Rpc(RpcError { code: 1, message: String::new(), data: serde_json::Value::Null }), 76),
            (Error::TimedOut(Duration::ZERO), 124),
            (Error::Interrupted, 130),
            (refused(401, None, None), 77),
            (refused(403, None, Some(-32000)), 77),
            (refused(404, None, None), 69),
            (refused(400, None, None), 70),
            (refused(400, None, Some(-32600)), 76),
            (refused(429, None, None), 75),
            (refused(503, Some("3"), None), 75),
            (refused(503, None, None), 69),
            (refused(500, None, Some(-32603)), 69),
            (refused(302, None, None), 70),
        ];
        for (error, code) in cases {
            assert_eq!(error.exit_code(), code, "{error:?}");
            assert!(EXIT_CODES.contains(&format!("\n  {code} ")), "{code} is not in the help");
        }
    }

    #[test]
    fn messages_say_what_to_do() {
        assert!(refused(401, None, None).to_string().contains("SLUICE_KEY"));
        assert!(refused(404, None, None).to_string().contains("http://h/mcp"));
        assert!(refused(429, Some("7"), None).to_string().contains("try again in 7 s: because"));
        assert!(refused(400, None, Some(-1)).to_string().ends_with(": inner"));
    }

    #[test]
    fn answers_carry_the_id_and_a_foreign_error_as_it_came() {
        let id = RawId::new("\"a\"");
        let text = refused(400, None, Some(-32602)).answer(id.as_ref());
        assert_eq!(text, r#"{"jsonrpc":"2.0","id":"a","error":{"code":-32602,"message":"inner"}}"#);
        let text = refused(429, Some("7"), None).answer(id.as_ref());
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(value.pointer("/error/code").unwrap(), -32003);
        assert_eq!(value.pointer("/error/data/retryAfter").unwrap(), "7");
    }
}
