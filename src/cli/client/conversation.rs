//! The session of `tools` and `call` with a gateway: one request at a time. At the end, also after an error, the
//! request in flight is cancelled and the session is closed, within a bounded time.

use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::access::Access;
use super::error::Error;
use super::message::{Incoming, Message, id_key};
use super::remote::CLOSE_TIMEOUT;
use super::transport::Transport;
use crate::cli::terminal::ProgressLine;
use crate::jsonrpc::{Code, Kind, RawId, empty_response, error_response};
use crate::mcp::revision::{LATEST, SPOKEN};
use crate::mcp::{method, protocol_version};

/// The largest number of answers to requests of the server that are being sent. Further requests get no answer.
const REPLIES: usize = 16;

/// A session that has begun.
#[derive(Debug)]
pub struct Conversation {
    transport: Transport,
    incoming: mpsc::Receiver<Incoming>,
    next_id: u64,
    /// The id of the request in flight, unless the request is `initialize`, which must not be cancelled.
    in_flight: Option<RawId>,
    /// The tasks that send answers to requests of the server.
    replies: TaskTracker,
    /// The line on the terminal for progress. `None` if stderr is not a terminal.
    progress: Option<ProgressLine>,
}

/// Begins a session at `url`, runs `work` in it, and ends the session. Beginning and work may take `limit`, and Ctrl-C
/// ends them.
///
/// # Errors
/// The error of the gateway or of `work`, [`Error::TimedOut`], or [`Error::Interrupted`].
pub async fn converse<T>(
    url: Url,
    access: &Access,
    limit: Duration,
    work: impl AsyncFnOnce(&mut Conversation) -> Result<T, Error>,
) -> Result<T, Error> {
    let (transport, incoming) = Transport::new(url, access.headers().map_err(Error::Arguments)?)?;
    let (replies, progress) = (TaskTracker::new(), ProgressLine::on_terminal());
    let mut conversation = Conversation { transport, incoming, next_id: 1, in_flight: None, replies, progress };
    let session = async {
        conversation.begin().await?;
        work(&mut conversation).await
    };
    let outcome = tokio::select! {
        outcome = session => outcome,
        () = tokio::time::sleep(limit) => Err(Error::TimedOut(limit)),
        _ = tokio::signal::ctrl_c() => Err(Error::Interrupted),
    };
    let reason = outcome.as_ref().err().map(ToString::to_string);
    // A gateway that does not answer any more is not waited for.
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, conversation.end(reason.as_deref())).await;
    outcome
}

impl Conversation {
    /// Does the handshake. An error if the server speaks an unknown revision.
    async fn begin(&mut self) -> Result<(), Error> {
        self.transport.open().await?;
        let client = json!({ "name": "sluice", "version": env!("CARGO_PKG_VERSION") });
        let params = json!({ "protocolVersion": LATEST, "capabilities": {}, "clientInfo": client });
        let answer = self.exchange(method::INITIALIZE, &params.to_string()).await?;
        answer.result()?;
        match protocol_version(&answer.text) {
            Some(version) if SPOKEN.contains(&version.as_str()) => {}
            Some(version) => {
                let version: String = version.chars().take(40).collect();
                return Err(Error::Protocol(format!("the server speaks version {version}, not one of {SPOKEN:?}")));
            }
            None => return Err(Error::Protocol("the answer to `initialize` names no protocolVersion".to_owned())),
        }
        self.transport.post(&Message::notification(method::INITIALIZED, "{}"), None).await
    }

    /// Sends a request with `params` in JSON, and returns the raw result.
    ///
    /// # Errors
    /// [`Error::Rpc`] for an error of the server. Other errors mean that no answer came.
    pub async fn request(&mut self, method: &str, params: &str) -> Result<Box<RawValue>, Error> {
        self.exchange(method, params).await?.result()
    }

    /// Whether progress would be shown, so that a request should ask for it.
    pub fn wants_progress(&self) -> bool {
        self.progress.is_some()
    }

    /// Sends a request and waits for its answer. Handles other messages of the server meanwhile.
    async fn exchange(&mut self, method: &str, params: &str) -> Result<Message, Error> {
        let id = RawId::from(self.next_id);
        self.next_id += 1;
        let request = Message::request(id.clone(), method, params);
        // `initialize` must not be cancelled (2025-11-25, basic/utilities/cancellation).
        self.in_flight = (!request.is_initialize()).then(|| id.clone());
        let (transport, key) = (self.transport.clone(), id_key(&id));
        let post = transport.post(&request, None);
        tokio::pin!(post);
        let mut accepted = false;
        let answer = loop {
            tokio::select! {
                biased;
                incoming = self.incoming.recv() => match incoming {
                    Some(Incoming::Message(message)) if message.answers(&key) => break Ok(message),
                    Some(Incoming::Message(message)) => self.take(&message),
                    Some(Incoming::Lost { error, .. }) => break Err(error),
                    None => break Err(Error::Lost("the stream is over".to_owned())),
                },
                outcome = &mut post, if !accepted => match outcome {
                    Ok(()) => accepted = true,
                    Err(error) => break Err(error),
                },
            }
        };
        self.in_flight = None;
        self.progress.iter_mut().for_each(ProgressLine::clear);
        answer
    }

    /// Handles a message that is not the awaited answer: answers a request (only `ping` succeeds), or shows progress.
    fn take(&mut self, message: &Message) {
        match (message.kind, &message.id) {
            (Kind::Request, Some(id)) if self.replies.len() < REPLIES => {
                let text = match message.method.as_deref() {
                    Some(method::PING) => empty_response(id),
                    _ => error_response(Some(id), Code::MethodNotFound, "this client takes no requests but ping"),
                };
                let (transport, reply) = (self.transport.clone(), Message::response(text, id.clone()));
                // A reply that does not arrive is the server's to notice: it waits for it, nobody here does.
                self.replies.spawn(async move { transport.post(&reply, None).await });
            }
            (Kind::Notification, _) if message.method.as_deref() == Some(method::PROGRESS) => {
                self.show_progress(message);
            }
            _ => {}
        }
    }

    fn show_progress(&mut self, message: &Message) {
        #[derive(Deserialize)]
        struct Progress {
            progress: f64,
            total: Option<f64>,
            message: Option<String>,
        }
        let Some(line) = &mut self.progress else { return };
        // It is only for the eye: what cannot be read is not shown.
        if let Ok(Progress { progress, total, message }) = serde_json::from_str(&message.params()) {
            let total = total.map(|total| format!("/{total}")).unwrap_or_default();
            line.show(&format!("{progress}{total} {}", message.unwrap_or_default()));
        }
    }

    /// Cancels the request in flight, if there is a reason, and closes the session.
    async fn end(&mut self, reason: Option<&str>) {
        if let (Some(id), Some(reason)) = (self.in_flight.take(), reason) {
            // The command fails for a reason it reports; that this could not be told to the server adds nothing.
            let _ = self.transport.post(&Message::cancelled(&id, reason), None).await;
        }
        self.replies.close();
        self.replies.wait().await;
        self.transport.close().await;
    }
}
