//! The kinds of messages that are counted.

use crate::client::Client;

/// A kind of message, with its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A call and its answer over Streamable HTTP.
    Call,
    /// A call and its answer over HTTP+SSE.
    CallSse,
    /// A call with 64 KiB of arguments, and an answer with as much, over Streamable HTTP.
    Large,
    /// A notification of the client, over Streamable HTTP.
    Notification,
    /// A notification of the server, on the stream of an HTTP+SSE session.
    Told,
    /// A call that the client cancels before it is answered, over HTTP+SSE.
    Cancel,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 6] = [Self::Call, Self::CallSse, Self::Large, Self::Notification, Self::Told, Self::Cancel];

    /// The name that is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Call => "call over /mcp",
            Self::CallSse => "call over /sse",
            Self::Large => "call of 64 KiB over /mcp",
            Self::Notification => "notification to the server over /mcp",
            Self::Told => "notification to the client over /sse",
            Self::Cancel => "call over /sse, cancelled",
        }
    }

    /// Whether the message goes over HTTP+SSE.
    pub fn is_sse(self) -> bool {
        matches!(self, Self::CallSse | Self::Told | Self::Cancel)
    }

    /// Sends one message of the kind, and waits until it has had its effect.
    pub async fn send(self, client: &mut Client) {
        match self {
            Self::Call | Self::CallSse => client.call("").await,
            Self::Large => client.call(&Client::large()).await,
            Self::Notification => client.notify().await,
            Self::Told => client.be_told().await,
            Self::Cancel => client.cancel().await,
        }
    }
}
