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

fn accepts(headers: &HeaderMap, wanted: &str) -> bool {
    let family = wanted.split_once('/').map_or(wanted, |(family, _)| family);
    let is_wanted = |range: &[u8]| {
        let range = without_parameters(range);
        range == b"*/*"
            || range.eq_ignore_ascii_case(wanted.as_bytes())
            || range.strip_suffix(b"/*").is_some_and(|range| range.eq_ignore_ascii_case(family.as_bytes()))
    };
    headers.get_all(ACCEPT).iter().any(|value| value.as_bytes().split(|byte| *byte == b',').any(is_wanted))
}

/// The media type or range in an element of a header. Headers are short: a search byte by byte is the quickest.
fn without_parameters(element: &[u8]) -> &[u8] {
    element.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

/// Checks that a POST accepts both JSON and event streams (Streamable HTTP, "Sending Messages to the Server").
pub fn check_accepts_both(headers: &HeaderMap) -> Result<(), Refusal> {
    if accepts(headers, "application/json") && accepts(headers, "text/event-stream") {
        return Ok(());
    }
    Err(Refusal::problem(StatusCode::NOT_ACCEPTABLE, "send the header Accept: application/json, text/event-stream"))
}

/// Checks that a GET accepts event streams. Without an `Accept` header anything is accepted (RFC 9110 section 12.5.1).
pub fn check_accepts_events(headers: &HeaderMap) -> Result<(), Refusal> {
    if accepts(headers, "text/event-stream") || !headers.contains_key(ACCEPT) {
        return Ok(());
    }
    Err(Refusal::problem(StatusCode::NOT_ACCEPTABLE, "send the header Accept: text/event-stream"))
}

/// Checks that the `Content-Type` of the body is JSON.
pub fn check_is_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let media_type = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| without_parameters(value.as_bytes()));
    if media_type.eq_ignore_ascii_case(b"application/json") {
        return Ok(());
    }
    Err(Refusal::problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send the header Content-Type: application/json"))
}

/// The meaning of the header `MCP-Protocol-Version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version<'a> {
    /// The header is absent.
    None,
    /// A revision that the gateway carries.
    Carried(&'a str),
    /// The stateless revision.
    Modern,
    /// A version that the gateway does not know.
    Unknown,
}

impl<'a> Version<'a> {
    /// Reads the header `MCP-Protocol-Version`.
    pub fn of(headers: &'a HeaderMap) -> Self {
        let Some(value) = headers.get(PROTOCOL_VERSION) else { return Self::None };
        match value.to_str().ok().map(str::trim) {
            Some(STATELESS) => Self::Modern,
            Some(version) if SPOKEN.contains(&version) => Self::Carried(version),
            _ => Self::Unknown,
        }
    }

    /// Like [`Self::of`], for a request within a session: the version that the session negotiated counts as carried, even if
    /// it is unknown here. Servers may choose a version older than those carried.
    pub fn or_negotiated(self, headers: &'a HeaderMap, negotiated: impl FnOnce() -> Option<String>) -> Self {
        if matches!(self, Self::None | Self::Carried(_)) {
            return self;
        }
        let said = headers.get(PROTOCOL_VERSION).and_then(|value| value.to_str().ok()).map(str::trim);
        match said.zip(negotiated()) {
            Some((said, negotiated)) if said == negotiated => Self::Carried(said),
            _ => self,
        }
    }

    /// The version, if the request names one that the gateway carries.
    pub fn carried(self) -> Option<&'a str> {
        match self {
            Self::Carried(version) => Some(version),
            Self::None | Self::Modern | Self::Unknown => None,
        }
    }

    /// The refusal of a request whose version the gateway does not carry. `id` is the id of the only request in the body.
    pub fn refusal(self, id: Option<&RawId>) -> Refusal {
        if self == Self::Modern {
            return Refusal::modern(STATELESS);
        }
        let text = format!("unsupported protocol version in MCP-Protocol-Version; supported: {}", SPOKEN.join(", "));
        Refusal::header(id, &text)
    }
}

/// Checks the protocol version of a request without a body: absent, carried by the gateway, or the `negotiated` one of the
/// session.
pub fn check_version(headers: &HeaderMap, negotiated: impl FnOnce() -> Option<String>) -> Result<(), Refusal> {
    match Version::of(headers).or_negotiated(headers, negotiated) {
        Version::None | Version::Carried(_) => Ok(()),
        version @ (Version::Modern | Version::Unknown) => Err(version.refusal(None)),
    }
}

/// The session id that the request names, if there is one.
pub fn session_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(SESSION_ID).map(|value| value.to_str().unwrap_or_default())
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
        assert_eq!(Version::of(&with(PROTOCOL_VERSION, "2025-06-18")).carried(), Some("2025-06-18"));
        assert_eq!(status(check_version(&with(PROTOCOL_VERSION, "1999-01-01"), || Some("2024-10-07".to_owned()))), 400);
        assert!(check_version(&with(PROTOCOL_VERSION, "2024-10-07"), || Some("2024-10-07".to_owned())).is_ok());
        assert_eq!(Version::of(&HeaderMap::new()), Version::None);
    }
}
