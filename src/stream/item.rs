//! The messages that a stream carries: as the writer appends them, and as a cursor reads them.

use std::sync::Weak;

use bytes::Bytes;

/// A message that a writer appends to a stream.
#[derive(Debug, Clone)]
pub struct Item {
    /// The JSON text, on one line.
    pub message: Bytes,
    /// Whether the message answers a request of the client; `false` for notifications and for requests of the server.
    pub answer: bool,
    /// The number and the sender of the request, where the message is a request of the server.
    pub request: Option<ServerRequest>,
}

impl Item {
    /// A message that is neither an answer nor a request.
    pub fn notification(message: Bytes) -> Self {
        Self { message, answer: false, request: None }
    }
}

/// The number and the sender of a request from a server to a client.
#[derive(Debug, Clone)]
pub struct ServerRequest {
    /// The id of the request towards the client.
    pub number: u64,
    /// The sender, which waits for an answer.
    pub requester: Weak<dyn Requester>,
}

/// A sender of server requests.
pub trait Requester: Send + Sync {
    /// The stream ended or dropped the request with this number before any cursor read the request. The caller may hold
    /// locks: an implementation may only record the number.
    fn undelivered(&self, number: u64);
}

/// A message of a stream, as a cursor reads the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The position in the stream. The first message of a stream has number 1, and each later one the next number.
    pub sequence: u64,
    /// The JSON text, on one line.
    pub message: Bytes,
    /// Whether the message answers a request of the client.
    pub answer: bool,
    /// The id towards the client, where the message is a request of the server.
    pub request: Option<u64>,
}
