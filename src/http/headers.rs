//! Reads and checks the HTTP headers that the MCP transports define.

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, StatusCode};

use super::problem::Refusal;
use crate::jsonrpc::RawId;
use crate::mcp::revision::{SPOKEN, STATELESS};

/// The header that names the session (MCP 2025-03-26 to 2025-11-25).
pub const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// The header that names the protocol version (MCP 2025-06-18 and later).
pub const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// For each media type in `wanted`, whether an `Accept` header names the type, or a range with the type in it. Weights
/// (`q`) are ignored.
fn accepts<const N: usize>(headers: &HeaderMap, wanted: [&str; N]) -> [bool; N] {
    let mut are_accepted = [false; N];
    let ranges = headers.get_all(ACCEPT).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    for range in ranges.map(without_parameters) {
        for (wanted, is_accepted) in wanted.iter().zip(&mut are_accepted) {
            *is_accepted = *is_accepted || covers(range, wanted);
        }
    }
    are_accepted
}

/// Whether a media range has the media type `wanted` in it.
fn covers(range: &[u8], wanted: &str) -> bool {
    let is_of_family = |range: &[u8]| {
        let family = wanted.split_once('/').map_or(wanted, |(family, _)| family);
        range.eq_ignore_ascii_case(family.as_bytes()) || range == b"*"
    };
    range.eq_ignore_ascii_case(wanted.as_bytes()) || range.strip_suffix(b"/*").is_some_and(is_of_family)
}

/// The media type or range in an element of a header, without its parameters. For short texts, a search byte by byte is
/// the fastest.
fn without_parameters(element: &[u8]) -> &[u8] {
    element.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

/// Checks that a POST accepts both JSON and event streams (Streamable HTTP, "Sending Messages to the Server"). Without
/// an `Accept` header nothing is accepted. The refusal has status 406.
pub fn check_accepts_both(headers: &HeaderMap) -> Result<(), Refusal> {
    if accepts(headers, ["application/json", "text/event-stream"]) == [true, true] {
        return Ok(());
    }
    Err(Refusal::problem(StatusCode::NOT_ACCEPTABLE, "send the header Accept: application/json, text/event-stream"))
}

/// Checks that a GET accepts event streams. Without an `Accept` header anything is accepted (RFC 9110 section 12.5.1).
/// The refusal has status 406.
pub fn check_accepts_events(headers: &HeaderMap) -> Result<(), Refusal> {
    if accepts(headers, ["text/event-stream"]) == [true] || !headers.contains_key(ACCEPT) {
        return Ok(());
    }
    Err(Refusal::problem(StatusCode::NOT_ACCEPTABLE, "send the header Accept: text/event-stream"))
}

/// Checks that the `Content-Type` of the body is `application/json`, with any parameters. The refusal has status 415.
pub fn check_is_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let media_type = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| without_parameters(value.as_bytes()));
    if media_type.eq_ignore_ascii_case(b"application/json") {
        return Ok(());
    }
    Err(Refusal::problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send the header Content-Type: application/json"))
}

/// The protocol version in the header `MCP-Protocol-Version`, if the gateway carries that version. `None` without the
/// header. The version that the session has `negotiated` is carried even if it is unknown here: servers may choose an
/// older one.
pub fn version(headers: &HeaderMap, negotiated: impl FnOnce() -> Option<String>) -> Result<Option<&str>, Unsupported> {
    let Some(value) = headers.get(PROTOCOL_VERSION) else { return Ok(None) };
    match value.to_str().ok().map(str::trim) {
        Some(version) if SPOKEN.contains(&version) || negotiated().as_deref() == Some(version) => Ok(Some(version)),
        Some(STATELESS) => Err(Unsupported::Stateless),
        _ => Err(Unsupported::Unknown),
    }
}

/// A protocol version that the gateway does not carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsupported {
    /// The stateless revision.
    Stateless,
    /// A version that the gateway does not know, or a header value that is not text.
    Unknown,
}

impl Unsupported {
    /// Refuses a request that names this version. `id` is the id of the only request in the body, for the error
    /// response; the stateless revision gets no id.
    pub fn refusal(self, id: Option<&RawId>) -> Refusal {
        if self == Self::Stateless {
            return Refusal::stateless();
        }
        let text = format!("unsupported protocol version in MCP-Protocol-Version; supported: {}", SPOKEN.join(", "));
        Refusal::invalid(id, &text)
    }
}

/// Refuses a request without a body whose header names a protocol version that the gateway does not carry, see
/// [`version`].
pub fn check_version(headers: &HeaderMap, negotiated: impl FnOnce() -> Option<String>) -> Result<(), Refusal> {
    version(headers, negotiated).map(drop).map_err(|unsupported| unsupported.refusal(None))
}

/// The session id that the request names. `None` without the header, empty for a value that is not visible ASCII.
///
/// # Errors
/// Status 400 for more than one header: another reader on the way may take the other one.
pub fn session_id(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut values = headers.get_all(SESSION_ID).iter();
    let first = values.next().map(|value| value.to_str().unwrap_or_default());
    if values.next().is_some() {
        return Err(Refusal::invalid(None, "the request has more than one Mcp-Session-Id header; send one"));
    }
    Ok(first)
}

/// Whether a response is an event stream.
pub fn is_event_stream<B>(reply: &http::Response<B>) -> bool {
    reply.headers().get(CONTENT_TYPE).is_some_and(|value| value == "text/event-stream")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use http::HeaderValue;

    use super::*;

    fn with(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    fn status(checked: Result<(), Refusal>) -> StatusCode {
        checked.unwrap_err().reply().status()
    }

    #[test]
    fn accept_needs_both_forms() {
        for good in ["application/json, text/event-stream", "*/*", "Text/Event-Stream;q=0.9 , application/*"] {
            assert!(check_accepts_both(&with(ACCEPT, good)).is_ok(), "{good}");
        }
        for bad in ["application/json", "text/event-stream", "text/html", ""] {
            assert_eq!(status(check_accepts_both(&with(ACCEPT, bad))), 406, "{bad}");
        }
        assert!(check_accepts_both(&HeaderMap::new()).is_err());
        assert!(check_accepts_events(&HeaderMap::new()).is_ok());
        assert!(check_accepts_events(&with(ACCEPT, "application/json")).is_err());
    }

    #[test]
    fn content_type_and_version() {
        assert!(check_is_json(&with(CONTENT_TYPE, "Application/JSON; charset=utf-8")).is_ok());
        assert_eq!(status(check_is_json(&with(CONTENT_TYPE, "text/plain"))), 415);
        assert_eq!(version(&with(PROTOCOL_VERSION, "2025-06-18"), || None), Ok(Some("2025-06-18")));
        assert_eq!(status(check_version(&with(PROTOCOL_VERSION, "1999-01-01"), || Some("2024-10-07".to_owned()))), 400);
        assert!(check_version(&with(PROTOCOL_VERSION, "2024-10-07"), || Some("2024-10-07".to_owned())).is_ok());
        assert_eq!(version(&HeaderMap::new(), || None), Ok(None));
    }

    #[test]
    fn a_request_names_one_session() {
        assert!(matches!(session_id(&HeaderMap::new()), Ok(None)));
        let mut headers = with(SESSION_ID, "a");
        assert!(matches!(session_id(&headers), Ok(Some("a"))));
        headers.append(SESSION_ID, HeaderValue::from_static("a"));
        assert_eq!(status(session_id(&headers).map(drop)), 400);
    }
}
