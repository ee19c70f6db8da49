//! What the HTTP side needs of conversations. A conversation takes messages of the client, and fills streams to the
//! client; where the conversation lives is not the HTTP side's business. In this process each is a session of the
//! registry.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::id::SessionId;
use super::streams::Transport;
use crate::auth::Principal;
use crate::config::{ServerName, Sessions};
use crate::jsonrpc::Envelope;
use crate::memory::{Account, Exhausted};
use crate::permits::Full;
use crate::pool::Deployment;
use crate::stream::{Budget, Cursor, Exchange, Expiry};
use crate::worker::Refused;

/// One conversation of a client with a server.
pub trait Conversation: Send + Sync {
    /// The id that the client sends with every message.
    fn id(&self) -> &SessionId;

    /// The protocol version that client and server have agreed on; `None` until the server has answered `initialize`.
    fn version(&self) -> Option<String>;

    /// When the streams of the conversation end: with the newest credential that its client has shown.
    fn expiry(&self) -> &Expiry;

    /// Takes one message of the client. The answer to a request goes to `exchange`, an error included. The message is
    /// only lent: the conversation copies what it keeps.
    ///
    /// # Errors
    /// The server takes no more for now. A request has its error on `exchange` all the same; any other message is
    /// dropped and counted.
    fn give(&self, message: &[u8], envelope: &Envelope<'_>, exchange: &Arc<Exchange>) -> Result<(), Refused>;

    /// The account of the client's tenant, for what waits for the client.
    fn account(&self) -> &Account;

    /// Puts a response that the HTTP side has made itself on `exchange`.
    fn answer(&self, exchange: &Exchange, response: Bytes);

    /// Opens the stream for messages that belong to no exchange. An earlier such stream ends.
    fn open_stream(&self) -> Cursor;

    /// The open stream, as an exchange that takes the answers to all requests (HTTP+SSE); `None` if no stream is open.
    fn stream(&self) -> Option<Arc<Exchange>>;
}

/// All conversations that this gateway serves.
pub trait Conversations: Send + Sync {
    /// Begins a conversation.
    ///
    /// # Errors
    /// A limit is reached, or the gateway drains.
    fn open(&self, new: &NewSession<'_>) -> Result<Arc<dyn Conversation>, Rejected>;

    /// The conversation with this id, if it is of this principal, server and transport. Anybody else's does not exist
    /// for the caller.
    fn find(
        &self,
        id: &str,
        principal: &Principal,
        server: &ServerName,
        transport: Transport,
    ) -> Option<Arc<dyn Conversation>>;

    /// Ends a conversation; `why` is for the log. Without effect on one that has ended.
    fn end(&self, id: &SessionId, why: &'static str);

    /// Whether another conversation would be opened where `max` are allowed in all; `false` while the gateway drains.
    fn has_room(&self, max: usize) -> bool;
}

/// Why a session was not opened.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The gateway is at its limit of sessions (`sessions.max`), and the tenant has no unused one. The first unused
    /// session of anybody ends after the given time; zero if all are in use.
    #[error("the gateway has reached its limit of {0} sessions (sessions.max); try again later")]
    Full(usize, Duration),
    /// The principal is at its limit of sessions (`sessions.max_per_principal`), and all are in use.
    #[error(
        "you have reached your limit of {0} sessions (sessions.max_per_principal), and all are in use; close one, or try again later"
    )]
    Principal(usize),
    /// The tenant is at its limit of sessions (`max_sessions`), and all are in use.
    #[error("the tenant has reached its limit of {0} sessions (max_sessions), and all are in use; try again later")]
    Tenant(usize),
    /// The principal, or its tenant, holds as many sessions as are left for the others, and all are in use.
    #[error("no session was opened: {0}; close one, or try again later")]
    Share(Full),
    /// The tenant's account has no room for the gateway's record of the session.
    #[error("no session was opened: {0}; try again later")]
    Memory(Exhausted),
    /// The gateway is shutting down, and its drain ends after the given time at the latest.
    #[error("the gateway is stopping; try again in a moment")]
    Draining(Duration),
    /// The operating system supplies no random numbers for a session id.
    #[error("no session id could be made: the system has no random numbers")]
    NoRandomness,
}

impl Rejected {
    /// The `type` member of the error that the caller receives.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Full(..) | Self::Principal(_) | Self::Tenant(_) | Self::Share(_) => "sessions_full",
            Self::Memory(_) => "memory_full",
            Self::Draining(_) => "draining",
            Self::NoRandomness => "no_randomness",
        }
    }

    /// The time after which the caller may try again, in seconds, at least 1: until the first unused session ends, or the
    /// gateway that stops is gone. A session that is in use makes room as soon as its call is answered, which may be at
    /// any moment.
    pub fn retry_after(&self) -> u64 {
        let wait = match self {
            Self::Full(_, wait) | Self::Draining(wait) => *wait,
            Self::Principal(_) | Self::Tenant(_) | Self::Share(_) | Self::Memory(_) | Self::NoRandomness => {
                Duration::ZERO
            }
        };
        (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
    }
}

/// A session to be opened, with the limits that hold at the moment.
pub struct NewSession<'a> {
    /// The owner of the session.
    pub principal: &'a Principal,
    /// The server of the session, with its pool. The session keeps both until it ends.
    pub deployment: &'a Arc<Deployment>,
    /// How the client is connected.
    pub transport: Transport,
    /// The address of the client.
    pub client: IpAddr,
    /// Limits on all sessions, and on those of one principal.
    pub sessions: &'a Sessions,
    /// The most sessions of the principal's tenant; `None` for no limit of its own.
    pub tenant_sessions: Option<usize>,
    /// Bounds of each stream of the session.
    pub stream: Budget,
    /// The account of the principal's tenant, to which is charged what the session holds.
    pub account: &'a Account,
}
