//! The transport to a gateway: posts messages, and puts all messages of the gateway into one channel.

use std::sync::Arc;

use reqwest::Url;
use reqwest::header::HeaderMap;
use tokio::sync::mpsc;

use super::error::Error;
use super::message::{Incoming, Message};
use super::remote::{Remote, Sent};
use super::sse::Sse;
use super::streamable::Streamable;

/// The capacity of the channel for messages of the gateway. A full channel stops the reading of responses.
const INCOMING: usize = 64;

/// A transport. Clones share one session.
#[derive(Debug, Clone)]
pub(super) enum Transport {
    /// HTTP+SSE (2024-11-05).
    Sse(Arc<Sse>),
    /// Streamable HTTP (2025-03-26 and later).
    Streamable(Arc<Streamable>),
}

impl Transport {
    /// The transport for a URL, HTTP+SSE if the path ends in `/sse`, and the channel with the messages of the gateway.
    /// Sends nothing.
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

    /// Prepares for `initialize`: opens a stream of HTTP+SSE, in place of the one before. Does nothing for Streamable
    /// HTTP.
    pub(super) async fn open(&self) -> Result<(), Error> {
        match self {
            Self::Sse(sse) => sse.open().await,
            Self::Streamable(_) => Ok(()),
        }
    }

    /// The number of the stream on which answers come, as in [`Incoming::Lost`]. Always 0 for Streamable HTTP, where
    /// each answer comes with its request.
    pub(super) fn generation(&self) -> u64 {
        match self {
            Self::Sse(sse) => sse.generation(),
            Self::Streamable(_) => 0,
        }
    }

    /// Posts a message. `sent` is dropped when the message has been written or given up.
    ///
    /// `Ok` for a request means with Streamable HTTP that its answer is in the channel, with HTTP+SSE that the gateway
    /// has accepted the request.
    pub(super) async fn post(&self, message: &Message, sent: Option<Sent>) -> Result<(), Error> {
        match self {
            Self::Sse(sse) => sse.post(message, sent).await,
            Self::Streamable(streamable) => streamable.post(message, sent).await,
        }
    }

    /// Receives messages outside of requests. `Ok` means that the gateway offers none, [`Error::SessionGone`] that the
    /// session is lost.
    pub(super) async fn listen(&self) -> Result<(), Error> {
        match self {
            Self::Sse(sse) => sse.lost().await,
            Self::Streamable(streamable) => streamable.listen().await,
        }
    }

    /// Ends the session, within 2 s.
    pub(super) async fn close(&self) {
        match self {
            Self::Sse(sse) => sse.close(),
            Self::Streamable(streamable) => streamable.close().await,
        }
    }
}
