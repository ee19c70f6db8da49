//! The HTTP client of both transports: one URL, the headers for it, and errors in words a user can act on.
//!
//! Redirects are not followed: a credential goes to the address it was given for, and nowhere else.

use std::error::Error as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Client, Method, RequestBuilder, Response, Url};
use serde::Deserialize;
use tokio::sync::oneshot;

use super::error::{Error, Refusal, RpcError};
use super::events::{Event, EventParser};
use super::message::Message;

/// The largest message taken, either way (bytes).
pub(super) const MAX_MESSAGE: usize = 16 << 20;
/// How much of an error's body is read (bytes).
const MAX_ERROR_BODY: usize = 64 << 10;
/// The longest time for ending a session.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A gateway to talk to.
#[derive(Debug)]
pub(super) struct Remote {
    http: Client,
    headers: HeaderMap,
    /// Where the transport begins.
    pub(super) url: Url,
}

/// Makes an HTTP client for `url`.
///
/// # Errors
/// Where the system has no certificates to check `https` with.
pub fn http_client(url: &Url) -> Result<Client, Error> {
    let mut builder = Client::builder()
        .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(Duration::from_secs(30))
        .redirect(reqwest::redirect::Policy::none());
    if url.scheme() == "http" {
        // Without TLS no certificates are needed: a container without any can still ask for its health.
        builder = builder.tls_certs_only([]);
    }
    if is_loopback(url) {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| Error::Unreachable { origin: origin(url), reason: reason(&error) })
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl Remote {
    /// A gateway at `url`, to be sent `headers` with every request.
    pub(super) fn new(url: Url, headers: HeaderMap) -> Result<Self, Error> {
        Ok(Self { http: http_client(&url)?, headers, url })
    }

    /// Begins a request to `url`.
    pub(super) fn request(&self, method: Method, url: &Url) -> RequestBuilder {
        self.http.request(method, url.clone()).headers(self.headers.clone())
    }

    /// Sends a request and hands out the answer, whatever its status.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        request.send().await.map_err(|error| {
            if error.is_connect() {
                Error::Unreachable { origin: origin(&self.url), reason: reason(&error) }
            } else {
                Error::Lost(reason(&error))
            }
        })
    }

    /// Makes an answer that is no success into an error, with what its body says.
    pub(super) async fn refusal(&self, response: Response) -> Error {
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(excerpt);
        let mut refusal = Refusal {
            status: response.status(),
            url: display(response.url()),
            with_credential: self.headers.contains_key(AUTHORIZATION) || self.headers.contains_key("x-api-key"),
            retry_after: header(RETRY_AFTER),
            location: header(LOCATION),
            detail: None,
            rpc: None,
        };
        let is_text = content_type(&response) == "text/plain";
        // The status says enough where the body cannot be had.
        if let Ok(body) = read_body(response, MAX_ERROR_BODY).await {
            read_detail(&mut refusal, &body, is_text);
        }
        Error::Refused(Box::new(refusal))
    }
}

fn read_detail(refusal: &mut Refusal, body: &[u8], is_text: bool) {
    #[derive(Deserialize)]
    struct Rpc {
        error: RpcError,
    }
    #[derive(Deserialize)]
    struct Problem {
        title: Option<String>,
        detail: Option<String>,
    }
    if let Ok(body) = serde_json::from_slice::<Rpc>(body) {
        refusal.rpc = Some(body.error);
    } else if let Ok(problem) = serde_json::from_slice::<Problem>(body) {
        refusal.detail = problem.detail.or(problem.title).as_deref().map(excerpt);
    } else if is_text {
        refusal.detail = Some(excerpt(String::from_utf8_lossy(body).trim())).filter(|text| !text.is_empty());
    }
}

/// The media type of an answer, in lower case and without parameters.
pub(super) fn content_type(response: &Response) -> String {
    let value = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Reads a body of at most `limit` bytes.
pub(super) async fn read_body(mut response: Response, limit: usize) -> Result<Bytes, Error> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| Error::Lost(reason(&error)))? {
        if body.len() + chunk.len() > limit {
            return Err(Error::Protocol(format!("the answer is larger than {limit} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// An answer whose body is read event by event.
#[derive(Debug)]
pub(super) struct EventStream {
    response: Response,
    parser: EventParser,
}

impl EventStream {
    /// Reads the body of `response`.
    pub(super) fn new(response: Response) -> Self {
        Self { response, parser: EventParser::new(MAX_MESSAGE) }
    }

    /// The next event; `None` when the stream has ended.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.parser.next_event() {
                return Ok(Some(event));
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.parser.push(&chunk).map_err(|error| Error::Protocol(error.to_string()))?,
                Ok(None) => return Ok(None),
                Err(error) => return Err(Error::Lost(reason(&error))),
            }
        }
    }

    /// What the stream has said so far: ids and when to come back.
    pub(super) fn parser(&self) -> &EventParser {
        &self.parser
    }
}

/// Resolves the receiver when it is dropped: the body of a request goes when it has been written, or given up.
pub(super) type Sent = oneshot::Sender<()>;

/// The body of a POST: one piece of known length, which tells when it is gone.
#[derive(Debug)]
pub(super) struct MessageBody {
    text: Option<Bytes>,
    _sent: Option<Sent>,
}

impl MessageBody {
    /// The body that carries `message`.
    pub(super) fn of(message: &Message, sent: Option<Sent>) -> reqwest::Body {
        reqwest::Body::wrap(Self { text: Some(message.text.clone()), _sent: sent })
    }
}

impl http_body::Body for MessageBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.text.take().map(|text| Ok(Frame::data(text))))
    }

    fn is_end_stream(&self) -> bool {
        self.text.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.text.as_ref().map_or(0, |text| text.len() as u64))
    }
}

/// The innermost cause of an error: what the system said. It never has the URL, and so no query either.
pub fn reason(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    while let Some(inner) = cause.and_then(std::error::Error::source) {
        cause = Some(inner);
    }
    cause.map_or_else(
        || if error.is_timeout() { "timed out".to_owned() } else { "no reason given".to_owned() },
        ToString::to_string,
    )
}

/// A URL as it may be shown: without its query.
pub fn display(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// Text from the other side for one line of an error: bounded, and without control characters.
fn excerpt(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn loopback_is_recognised() {
        for (url, expected) in [
            ("http://127.0.0.1:8081/mcp", true),
            ("http://[::1]:8081/mcp", true),
            ("http://localhost/mcp", true),
            ("http://127.example.com/mcp", false),
            ("https://gateway.example/mcp", false),
        ] {
            assert_eq!(is_loopback(&url.parse().unwrap()), expected, "{url}");
        }
    }

    #[test]
    fn queries_are_not_shown() {
        assert_eq!(display(&"http://h/mcp?token=secret#x".parse().unwrap()), "http://h/mcp");
    }
}
