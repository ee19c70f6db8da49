//! The HTTP client of both transports. It follows no redirects, so that a credential goes only to the given host, and
//! its errors give advice.

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
use super::message::{Message, not_mcp};
use crate::config::Host;

/// The largest message in either direction, in bytes.
pub(super) const MAX_MESSAGE: usize = 16 << 20;
/// The largest body of an error, in bytes. A larger body is ignored.
const MAX_ERROR_BODY: usize = 64 << 10;
/// The longest time for ending a session.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest time for making a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A gateway.
#[derive(Debug)]
pub(super) struct Remote {
    http: Client,
    /// The headers of every request.
    headers: HeaderMap,
    /// The URL of the command line: of the stream with HTTP+SSE, of all requests with Streamable HTTP.
    pub(super) url: Url,
}

/// An HTTP client for `url`. A loopback host is not reached through a proxy.
///
/// # Errors
/// The client cannot be set up, for instance without certificates for `https` on this machine.
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
    Host::parse(url.host_str().unwrap_or_default()).is_ok_and(|host| host.is_loopback())
}

impl Remote {
    /// A gateway at `url`. Every request has these headers.
    pub(super) fn new(url: Url, headers: HeaderMap) -> Result<Self, Error> {
        Ok(Self { http: http_client(&url)?, headers, url })
    }

    /// A request to `url` with the headers of the gateway.
    pub(super) fn request(&self, method: Method, url: &Url) -> RequestBuilder {
        self.http.request(method, url.clone()).headers(self.headers.clone())
    }

    /// Sends a request and returns the response, whatever its status.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        request.send().await.map_err(|error| match error.is_connect() {
            true => Error::Unreachable { origin: origin(&self.url), reason: reason(&error) },
            false => Error::Lost(reason(&error)),
        })
    }

    /// The error for a response whose status is not a success, with the message in its body.
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

/// Reads the JSON-RPC error, the problem details or the plain text in the body of an error.
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

/// The media type of a response in lower case, without parameters. Empty if the header is missing.
pub(super) fn content_type(response: &Response) -> String {
    let value = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Reads a body. A body of more than `limit` bytes is an error.
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

/// A response whose body is parsed event by event.
#[derive(Debug)]
pub(super) struct EventStream {
    response: Response,
    parser: EventParser,
}

impl EventStream {
    /// A stream of the events in a body, of 16 MiB each at most.
    pub(super) fn new(response: Response) -> Self {
        Self { response, parser: EventParser::new(MAX_MESSAGE) }
    }

    /// Waits for the next event. `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.parser.next_event() {
                return Ok(Some(event));
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.parser.push(&chunk)?,
                Ok(None) => return Ok(None),
                Err(error) => return Err(Error::Lost(reason(&error))),
            }
        }
    }

    /// Waits for the next messages, which one event carries. `None` at the end of the stream.
    pub(super) async fn messages(&mut self) -> Result<Option<Vec<Result<Message, Error>>>, Error> {
        while let Some(event) = self.next().await? {
            if event.name == "message" && !event.data.is_empty() {
                let messages = Message::parse_all(&event.data).into_iter();
                return Ok(Some(messages.map(|message| message.map_err(not_mcp)).collect()));
            }
        }
        Ok(None)
    }

    /// The parser, which has the last id and the pause before a reconnection.
    pub(super) fn parser(&self) -> &EventParser {
        &self.parser
    }
}

/// A signal that the body of a request has been written or given up: the receiver resolves when the sender is dropped.
pub(super) type Sent = oneshot::Sender<()>;

/// The body of a POST request, which drops a [`Sent`] with itself.
#[derive(Debug)]
pub(super) struct MessageBody {
    text: Option<Bytes>,
    _sent: Option<Sent>,
}

impl MessageBody {
    /// The body with this message.
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

/// The innermost cause of an error, in words of the system. Does not contain the URL.
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

/// The URL without query and fragment, which may be secrets.
pub fn display(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// The first 500 characters of a foreign text, with spaces for control characters.
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
