//! What both transports do: take a message towards the gateway, and hand every message that comes back to one channel.

use std::sync::Arc;

use reqwest::Url;
use reqwest::header::HeaderMap;
use tokio::sync::mpsc;

use super::error::Error;
use super::message::{Incoming, Message};
use super::remote::{Remote, Sent};
use super::sse::Sse;
use super::streamable::Streamable;

/// How many messages wait between a transport and its reader. When it is full the transport stops reading, and TCP
/// passes that on.
pub(super) const INCOMING: usize = 64;

/// The transport that the URL names.
#[derive(Debug, Clone)]
pub(super) enum Transport {
    /// HTTP+SSE, 2024-11-05.
    Sse(Arc<Sse>),
    /// Streamable HTTP.
    Streamable(Arc<Streamable>),
}

impl Transport {
    /// A path that ends in `/sse` means HTTP+SSE; any other, Streamable HTTP. Nothing is sent yet.
    pub(super) fn new(url: Url, headers: HeaderMap) -> Result<(Self, mpsc::Receiver<Incoming>), Error> {
        let (sink, incoming) = mpsc::channel(INCOMING);
        let is_sse = url.path().trim_end_matches('/').ends_with("/sse");
        let remote = Remote::new(url, headers)?;
        let transport = if is_sse {
            Self::Sse(Arc::new(Sse::new(remote, sink)))
        } else {
            Self::Streamable(Arc::new(Streamable::new(remote, sink)))
        };
        Ok((transport, incoming))
    }

    /// Opens what has to be open before `initialize`: the stream of HTTP+SSE, anew if there was one.
    pub(super) async fn open(&self) -> Result<(), Error> {
        match self {
            Self::Sse(sse) => sse.open().await,
            Self::Streamable(_) => Ok(()),
        }
    }

    /// Counts the streams that answers come on: [`Incoming::Lost`] names one. Always 0 for Streamable HTTP, where
    /// each answer comes with its own request.
    pub(super) fn generation(&self) -> u64 {
        match self {
            Self::Sse(sse) => sse.generation(),
            Self::Streamable(_) => 0,
        }
    }

    /// Sends a message. `sent` resolves when its bytes have been written, or never will be.
    ///
    /// With Streamable HTTP, `Ok` for a request means that its answer is in the channel; with HTTP+SSE, that the
    /// message was accepted.
    pub(super) async fn post(&self, message: &Message, sent: Option<Sent>) -> Result<(), Error> {
        match self {
            Self::Sse(sse) => sse.post(message, sent).await,
            Self::Streamable(streamable) => streamable.post(message, sent).await,
        }
    }

    /// Waits for messages that belong to no request, until that is over. `Ok` means that the gateway offers none;
    /// [`Error::SessionGone`] that a new session is needed.
    pub(super) async fn listen(&self) -> Result<(), Error> {
        match self {
            Self::Sse(sse) => sse.lost().await,
            Self::Streamable(streamable) => streamable.listen().await,
        }
    }

    /// Ends the session, within [`CLOSE_TIMEOUT`]. A gateway that does not take part is left to its idle time-out.
    pub(super) async fn close(&self) {
        match self {
            Self::Sse(sse) => sse.close(),
            Self::Streamable(streamable) => streamable.close().await,
        }
    }
}
