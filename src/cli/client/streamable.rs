//! Streamable HTTP (MCP 2025-03-26 … 2025-11-25, basic/transports): the response to a POST request has the answer, as
//! JSON or in a stream; a GET stream carries the messages outside of requests.

use std::time::Duration;

use parking_lot::Mutex;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::error::Error;
use super::message::{Incoming, Message, id_key, not_mcp};
use super::remote::{CLOSE_TIMEOUT, EventStream, MAX_MESSAGE, MessageBody, Remote, Sent, content_type, read_body};
use crate::jsonrpc::Kind;
use crate::mcp::protocol_version;

/// The largest number of resumptions in a row, of a stream without its answer, that bring no new event.
const RESUMPTIONS: u32 = 5;
/// The longest time for reading a stream to its end after the answer, so that the connection can be used again.
const REST: Duration = Duration::from_millis(250);
/// The header with the session id.
const SESSION_ID: &str = "mcp-session-id";
/// The shortest and the longest pause before the GET stream is opened again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// The transport Streamable HTTP.
#[derive(Debug)]
pub(super) struct Streamable {
    remote: Remote,
    sink: mpsc::Sender<Incoming>,
    /// The headers of all requests after `initialize`: session id and protocol version. Empty before its answer, and at
    /// the end.
    session: Mutex<HeaderMap>,
}

/// A request that waits for its answer.
#[derive(Debug)]
struct Awaited {
    /// The key of its id, see [`id_key`].
    key: String,
    /// The headers of the session that the answer begins, without the protocol version. `Some` for `initialize` only.
    begins: Option<HeaderMap>,
}

impl Streamable {
    pub(super) fn new(remote: Remote, sink: mpsc::Sender<Incoming>) -> Self {
        Self { remote, sink, session: Mutex::default() }
    }

    /// Posts a message. For a request, waits until its answer is in the channel. `sent` is dropped when the message has
    /// been written or given up.
    pub(super) async fn post(&self, message: &Message, sent: Option<Sent>) -> Result<(), Error> {
        let session = if message.is_initialize() { HeaderMap::new() } else { self.session.lock().clone() };
        let request = self.remote.request(Method::POST, &self.remote.url).headers(session.clone());
        let request = request.header(ACCEPT, "application/json, text/event-stream");
        let request = request.header(CONTENT_TYPE, "application/json").body(MessageBody::of(message, sent));
        let response = self.remote.send(request).await?;
        if !response.status().is_success() {
            return Err(self.failure(response, &session).await);
        }
        let (Kind::Request, Some(id)) = (message.kind, &message.id) else { return Ok(()) };
        let id_header = response.headers().get(SESSION_ID).map(|id| (HeaderName::from_static(SESSION_ID), id.clone()));
        let begins = message.is_initialize().then(|| id_header.into_iter().collect());
        let awaited = Awaited { key: id_key(id), begins };
        match content_type(&response).as_str() {
            "application/json" => self.take_body(response, awaited).await,
            "text/event-stream" => self.follow(response, awaited, &session).await,
            "" => Err(Error::Protocol(format!("a request got no answer ({})", response.status()))),
            other => Err(Error::Protocol(format!("the answer is of the type \"{other}\", neither JSON nor a stream"))),
        }
    }

    /// The error for a response whose status is not a success.
    async fn failure(&self, response: Response, session: &HeaderMap) -> Error {
        // Only a session that was named can be gone; else it is the path that does not exist.
        if response.status() == StatusCode::NOT_FOUND && session.contains_key(SESSION_ID) {
            return Error::SessionGone;
        }
        self.remote.refusal(response).await
    }

    /// Passes on the messages in a JSON body, one of which must be the awaited answer.
    async fn take_body(&self, response: Response, awaited: Awaited) -> Result<(), Error> {
        let body = read_body(response, MAX_MESSAGE).await?;
        let mut answered = false;
        for message in Message::parse_all(&body) {
            answered |= self.deliver(message.map_err(not_mcp)?, Some(&awaited)).await?;
        }
        if answered { Ok(()) } else { Err(Error::Protocol("the answer has another id than the request".to_owned())) }
    }

    /// Passes on the messages of a request's stream. Resumes a stream that ends without the answer, if its events have
    /// ids and the request is not `initialize`, up to 5 times in a row without a new event (2025-11-25,
    /// basic/transports, "Sending Messages to the Server").
    async fn follow(&self, response: Response, awaited: Awaited, session: &HeaderMap) -> Result<(), Error> {
        let mut events = EventStream::new(response);
        let (mut last_id, mut attempts) = (None, 0);
        loop {
            let end = match self.drain(&mut events, Some(&awaited)).await {
                Ok(true) => return Ok(()),
                Ok(false) => Error::Lost("the gateway closed the stream".to_owned()),
                Err(error @ Error::Lost(_)) => error,
                Err(error) => return Err(error),
            };
            attempts += 1;
            if let Some(id) = events.parser().last_id().filter(|id| last_id.as_deref() != Some(*id)) {
                (last_id, attempts) = (Some(id.to_owned()), 0);
            }
            // Without an id there is nothing to go on from, and initialize has no session to do it in.
            let id = last_id.as_ref().filter(|_| session.contains_key(SESSION_ID) && attempts < RESUMPTIONS);
            let Some(id) = id else { return Err(end) };
            tokio::time::sleep(events.parser().retry().unwrap_or(PAUSE.0).min(PAUSE.1)).await;
            let response = self.remote.send(self.stream_request(session, Some(id))).await?;
            if !response.status().is_success() || content_type(&response) != "text/event-stream" {
                return Err(end);
            }
            events = EventStream::new(response);
        }
    }

    /// Passes on the messages of a stream until the stream ends. Returns whether the awaited answer came.
    async fn drain(&self, events: &mut EventStream, awaited: Option<&Awaited>) -> Result<bool, Error> {
        let mut answered = None;
        loop {
            let messages = match answered {
                None => events.messages().await?,
                // The answer is delivered already: however the stream ends now, nothing is missing.
                Some(end) => {
                    tokio::time::timeout_at(end, events.messages()).await.unwrap_or(Ok(None)).unwrap_or_default()
                }
            };
            let Some(messages) = messages else { return Ok(answered.is_some()) };
            for message in messages {
                if self.deliver(message?, awaited).await? {
                    answered = Some(Instant::now() + REST);
                }
            }
        }
    }

    /// Puts a message into the channel. Returns whether the message is the awaited answer.
    async fn deliver(&self, message: Message, awaited: Option<&Awaited>) -> Result<bool, Error> {
        let awaited = awaited.filter(|awaited| message.answers(&awaited.key));
        // Before the answer is seen: what follows it belongs to the new session.
        if let Some(mut session) = awaited.and_then(|awaited| awaited.begins.clone())
            && let Some(version) = protocol_version(&message.text)
            && let Ok(version) = HeaderValue::from_str(&version)
        {
            session.insert("mcp-protocol-version", version);
            *self.session.lock() = session;
        }
        let is_answer = awaited.is_some();
        self.sink.send(Incoming::Message(message)).await.map_err(|_| Error::Interrupted)?;
        Ok(is_answer)
    }

    /// A GET request for a stream, after the event `last_id` if there is one.
    fn stream_request(&self, session: &HeaderMap, last_id: Option<&String>) -> reqwest::RequestBuilder {
        let request = self.remote.request(Method::GET, &self.remote.url).headers(session.clone());
        let request = request.header(ACCEPT, "text/event-stream");
        match last_id {
            Some(id) => request.header("last-event-id", id),
            None => request,
        }
    }

    /// Receives messages outside of requests on a GET stream, which is opened again after each end. The pause grows up
    /// to 30 s while streams are short. Returns if the gateway offers no such stream, or with the error of a refusal.
    pub(super) async fn listen(&self) -> Result<(), Error> {
        let session = self.session.lock().clone();
        let (mut last_id, mut pause) = (None, PAUSE.0);
        loop {
            match self.remote.send(self.stream_request(&session, last_id.as_ref())).await {
                Ok(response) if response.status() == StatusCode::METHOD_NOT_ALLOWED => return Ok(()),
                Ok(response) if response.status().is_success() => {
                    if content_type(&response) != "text/event-stream" {
                        return Ok(());
                    }
                    let (mut events, opened) = (EventStream::new(response), Instant::now());
                    match self.drain(&mut events, None).await {
                        Ok(_) | Err(Error::Lost(_)) => {}
                        Err(error) => return Err(error),
                    }
                    last_id = events.parser().last_id().map(str::to_owned).or(last_id);
                    // A stream that ends as soon as it is open is no reason for another at once.
                    let lived = if opened.elapsed() > pause { PAUSE.0 } else { pause };
                    pause = events.parser().retry().unwrap_or(lived);
                }
                // Another stream of the session may not have ended yet, or the gateway is away for a while.
                Ok(response) if response.status() == StatusCode::CONFLICT || response.status().is_server_error() => {}
                Ok(response) => return Err(self.failure(response, &session).await),
                Err(_) => {}
            }
            tokio::time::sleep(pause.clamp(PAUSE.0, PAUSE.1)).await;
            pause = pause.saturating_mul(2).clamp(PAUSE.0, PAUSE.1);
        }
    }

    /// Ends the session with a DELETE request. A failure of that request is ignored.
    pub(super) async fn close(&self) {
        let session = std::mem::take(&mut *self.session.lock());
        if session.contains_key(SESSION_ID) {
            let request = self.remote.request(Method::DELETE, &self.remote.url).headers(session);
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.remote.send(request)).await;
        }
    }
}
