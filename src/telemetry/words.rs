//! The closed sets of words for metric labels, so that others cannot add label values.

/// The direction of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// The reason why a child process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExitReason {
    /// The gateway stopped the child, with its session or at shutdown.
    Stopped,
    /// The child exited by itself with code 0.
    Finished,
    /// The child exited by itself with another code, or was ended by a signal.
    Crashed,
    /// The child did not answer `initialize` in time, or exited before.
    StartFailed,
    /// The gateway ended the child, which was idle and did not answer a `ping`.
    Wedged,
    /// The gateway ended the child because a call exceeded `limits.harakiri`.
    Harakiri,
    /// The child was ended because it exceeded a limit on its use of the machine.
    OverLimit,
}

/// The reason why a message was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// A line on a child's stdout that is not a JSON-RPC message.
    NotJson,
    /// A line on a child's stdout above the length limit.
    Oversized,
    /// An answer without a waiting call: late, cancelled, or with an id that was never used.
    UnknownId,
    /// Progress for a call that has ended.
    LateProgress,
    /// The client's stream had ended.
    StreamClosed,
    /// The client did not read its stream in time.
    SlowClient,
    /// The client had no open stream, and the backlog was full.
    NoStream,
    /// The owner of the message on a shared child is unknown, or a client named a task of another session.
    Unattributable,
    /// The client answered a request that was never sent.
    UnknownResponse,
    /// The server's queue was full: a notification or response of the client, in a batch whose other messages were
    /// accepted.
    Refused,
    /// A notification or response of a client that some servers take for another message.
    Ambiguous,
    /// A line on a child's stderr above the rate that is logged.
    StderrFlood,
    /// There was no room for the message in the share of `limits.memory_budget` of its sender or receiver.
    Memory,
}

/// What was refused, waits or was cut because the memory budget has no room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemoryUse {
    /// A connection of a client.
    Connection,
    /// A request of a client, with its headers.
    Request,
    /// The body of a request.
    Body,
    /// A line that a child writes to stdout.
    Line,
    /// A message for the stdin of a child, or one that waits for a child.
    Stdin,
    /// A message for a stream to a client.
    Stream,
    /// What is kept of a session, such as its handshake and its subscriptions.
    Session,
}

/// The reason why a connection, or a request through a proxy, got no place or lost it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// All places are held by connections on which a request was authenticated.
    Full,
    /// The client's address holds its share.
    AddressShare,
    /// The connection was closed in favour of a new one: no request had been authenticated on it.
    MadeWay,
    /// A connection of a trusted proxy began without a valid header of the PROXY protocol.
    ProxyHeader,
    /// A request of a trusted proxy had a header about the client that cannot be read.
    ForwardedHeader,
    /// The client of a trusted proxy has its share of requests in flight.
    RequestShare,
}

impl Rejection {
    /// The word for the reason in metrics and in log lines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::AddressShare => "address_share",
            Self::MadeWay => "made_way",
            Self::ProxyHeader => "proxy_header",
            Self::ForwardedHeader => "forwarded_header",
            Self::RequestShare => "request_share",
        }
    }
}

impl ExitReason {
    /// Whether the exit counts as a crash for restart pauses and the circuit breaker. An exit of a server by itself
    /// counts, whatever its exit code. An exceeded limit counts, because the server would otherwise be restarted
    /// forever. An end because of a call does not count: the call is the cause, and each such end takes at least
    /// `limits.harakiri`.
    pub fn is_crash(self) -> bool {
        match self {
            Self::Crashed | Self::StartFailed | Self::Finished | Self::Wedged | Self::OverLimit => true,
            Self::Stopped | Self::Harakiri => false,
        }
    }

    /// The word for the reason in metrics and in the admin API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Finished => "finished",
            Self::Crashed => "crashed",
            Self::StartFailed => "start_failed",
            Self::Wedged => "wedged",
            Self::Harakiri => "harakiri",
            Self::OverLimit => "over_limit",
        }
    }
}

impl MemoryUse {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Request => "request",
            Self::Body => "body",
            Self::Line => "line",
            Self::Stdin => "stdin",
            Self::Stream => "stream",
            Self::Session => "session",
        }
    }
}

impl DropReason {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::Oversized => "oversized",
            Self::UnknownId => "unknown_id",
            Self::LateProgress => "late_progress",
            Self::StreamClosed => "stream_closed",
            Self::SlowClient => "slow_client",
            Self::NoStream => "no_stream",
            Self::Unattributable => "unattributable",
            Self::UnknownResponse => "unknown_response",
            Self::Refused => "refused",
            Self::Ambiguous => "ambiguous",
            Self::StderrFlood => "stderr_flood",
            Self::Memory => "memory",
        }
    }
}
