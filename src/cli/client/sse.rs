//! HTTP+SSE (MCP 2024-11-05, basic/transports): one stream with all messages of the gateway, and a POST request for
//! each message of the client. The session ends with its stream; [`Incoming::Lost`] reports the end.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, StatusCode, Url};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::error::Error;
use super::message::{Incoming, Message};
use super::remote::{EventStream, MessageBody, Remote, Sent, content_type};
use crate::jsonrpc::Kind;
use crate::mcp::protocol_version;

/// The longest time until the first event, which has the URL for POST requests.
const ENDPOINT_TIMEOUT: Duration = Duration::from_secs(30);

/// The client's side of the transport HTTP+SSE: a connection to a gateway.
#[derive(Debug)]
pub(super) struct Sse {
    remote: Remote,
    sink: mpsc::Sender<Incoming>,
    stream: Mutex<Option<Stream>>,
    /// The number of streams opened so far.
    generation: AtomicU64,
    /// The protocol version in the answer to `initialize`, for the header of later requests.
    version: Arc<Mutex<Option<String>>>,
}

/// An open stream.
#[derive(Debug)]
struct Stream {
    /// The URL for POST requests.
    endpoint: Url,
    ended: CancellationToken,
    _reader: AbortOnDropHandle<()>,
}

impl Sse {
    pub(super) fn new(remote: Remote, sink: mpsc::Sender<Incoming>) -> Self {
        let (stream, version) = (Mutex::new(None), Arc::new(Mutex::new(None)));
        Self { remote, sink, stream, generation: AtomicU64::new(0), version }
    }

    /// The number of the current stream, 0 before the first.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Opens a stream and waits for its event `endpoint`. Ends and reports the stream before, if there is one.
    pub(super) async fn open(&self) -> Result<(), Error> {
        let former = self.stream.lock().take();
        if former.is_some() {
            drop(former);
            let generation = self.generation();
            let _ = self.sink.send(Incoming::Lost { generation, error: Error::SessionGone }).await;
        }
        *self.version.lock() = None;
        let request = self.remote.request(Method::GET, &self.remote.url).header(ACCEPT, "text/event-stream");
        let response = self.remote.send(request).await?;
        if !response.status().is_success() {
            return Err(self.remote.refusal(response).await);
        }
        let kind = content_type(&response);
        if kind != "text/event-stream" {
            return Err(Error::Protocol(format!("the answer is of the type \"{kind}\", not text/event-stream")));
        }
        let mut events = EventStream::new(response);
        let first = tokio::time::timeout(ENDPOINT_TIMEOUT, events.next()).await;
        let first = first.map_err(|_| Error::Protocol("no `endpoint` event came".to_owned()))??;
        let first = first.ok_or_else(|| Error::Lost("the stream ended at once".to_owned()))?;
        if first.name != "endpoint" {
            return Err(Error::Protocol(format!("the first event is `{}`, not `endpoint`", first.name)));
        }
        let endpoint = endpoint(&self.remote.url, &String::from_utf8_lossy(&first.data))?;
        self.read(events, endpoint);
        Ok(())
    }

    /// Starts the task that passes on the messages of a stream.
    fn read(&self, mut events: EventStream, endpoint: Url) {
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        let ended = CancellationToken::new();
        let (sink, version, guard) = (self.sink.clone(), self.version.clone(), ended.clone().drop_guard());
        let reader = tokio::spawn(async move {
            let _ended = guard;
            let Err(error) = forward(&mut events, &sink, &version).await;
            // Nobody reads any more: then nobody has to know.
            let _ = sink.send(Incoming::Lost { generation, error }).await;
        });
        *self.stream.lock() = Some(Stream { endpoint, ended, _reader: AbortOnDropHandle::new(reader) });
    }

    /// Posts a message. `sent` is dropped when the message has been written or given up.
    pub(super) async fn post(&self, message: &Message, sent: Option<Sent>) -> Result<(), Error> {
        let endpoint = {
            let stream = self.stream.lock();
            stream.as_ref().filter(|stream| !stream.ended.is_cancelled()).map(|stream| stream.endpoint.clone())
        };
        let endpoint = endpoint.ok_or(Error::SessionGone)?;
        let mut request = self.remote.request(Method::POST, &endpoint).header(CONTENT_TYPE, "application/json");
        if let Some(version) = self.version.lock().clone() {
            request = request.header("mcp-protocol-version", version);
        }
        let response = self.remote.send(request.body(MessageBody::of(message, sent))).await?;
        match response.status() {
            status if status.is_success() => Ok(()),
            StatusCode::NOT_FOUND => Err(Error::SessionGone),
            _ => Err(self.remote.refusal(response).await),
        }
    }

    /// Waits for the end of the stream, and returns [`Error::SessionGone`].
    pub(super) async fn lost(&self) -> Result<(), Error> {
        let ended = self.stream.lock().as_ref().map(|stream| stream.ended.clone());
        if let Some(ended) = ended {
            ended.cancelled().await;
        }
        Err(Error::SessionGone)
    }

    /// Ends the stream, and with it the session.
    pub(super) fn close(&self) {
        *self.stream.lock() = None;
    }
}

/// The URL for POST requests, relative to `base`. An error if it has another origin, because the credential is sent to
/// it.
fn endpoint(base: &Url, text: &str) -> Result<Url, Error> {
    let url = base.join(text.trim()).map_err(|error| Error::Protocol(format!("the `endpoint` is no URL: {error}")))?;
    if url.origin() == base.origin() {
        return Ok(url);
    }
    let origin = url.origin().ascii_serialization();
    Err(Error::Protocol(format!("the `endpoint` is on another host ({origin}), which the key is not for: refused")))
}

/// Passes on messages until the stream ends. The error is the reason for the end.
async fn forward(
    events: &mut EventStream,
    sink: &mpsc::Sender<Incoming>,
    version: &Mutex<Option<String>>,
) -> Result<Infallible, Error> {
    loop {
        let messages = events.messages().await?;
        for message in messages.ok_or_else(|| Error::Lost("the gateway closed the stream".to_owned()))? {
            let message = message?;
            if message.kind == Kind::Response && version.lock().is_none() {
                *version.lock() = protocol_version(&message.text);
            }
            sink.send(Incoming::Message(message)).await.map_err(|_| Error::Interrupted)?;
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_endpoint_is_relative_and_never_elsewhere() {
        let base: Url = "http://127.0.0.1:8081/t/sse".parse().unwrap();
        let joined = |text| endpoint(&base, text).map(String::from).map_err(|error| error.exit_code());
        assert_eq!(joined("/messages?sessionId=1").unwrap(), "http://127.0.0.1:8081/messages?sessionId=1");
        assert_eq!(joined("messages?sessionId=1").unwrap(), "http://127.0.0.1:8081/t/messages?sessionId=1");
        assert_eq!(joined("http://127.0.0.1:8081/m").unwrap(), "http://127.0.0.1:8081/m");
        for text in ["http://evil.example/m", "//evil.example/m", "https://127.0.0.1:8081/m", "http://127.0.0.1:1/m"] {
            assert_eq!(joined(text), Err(70), "{text}");
        }
    }
}
