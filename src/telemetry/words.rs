//! The words that labels of metrics may have: closed sets, so that nobody outside makes a new one.

/// Where a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Client to server.
    ToServer,
    /// Server to client.
    ToClient,
}

/// Why a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExitReason {
    /// The gateway stopped it, with its session or at shutdown.
    Stopped,
    /// It ended by itself with exit code 0.
    Finished,
    /// It ended by itself with another code, or by a signal.
    Crashed,
    /// It did not answer `initialize` in time, or ended before.
    StartFailed,
    /// The gateway ended it: it had nothing to do, and did not answer a `ping`.
    Wedged,
    /// The gateway ended it: a call overran `limits.harakiri`.
    Harakiri,
    /// It was ended because it used more of the machine than it may.
    OverLimit,
}

/// Why a message was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// A line on stdout that is no JSON-RPC message.
    NotJson,
    /// A line on stdout over the limit.
    Oversized,
    /// An answer that nobody waits for (late, cancelled, or with an id that was never asked).
    UnknownId,
    /// Progress for a call that is over.
    LateProgress,
    /// The client's stream was closed.
    StreamClosed,
    /// The client did not read in time.
    SlowClient,
    /// No stream was open, and the backlog for one was full.
    NoStream,
    /// Nobody can be told whose it is, on a shared child; or a client named a task that is not its own.
    Unattributable,
    /// The client answered a request that nobody asked it.
    UnknownResponse,
    /// The server took no more: a message of the client that is no request, in a batch whose others were taken.
    Refused,
    /// A message of a client that some servers take for another one, and that has no answer.
    Ambiguous,
    /// A line of stderr beyond what is logged a second.
    StderrFlood,
}

impl ExitReason {
    /// Whether the exit counts for the restart pauses and the circuit breaker. A server that ends by itself does, whatever its
    /// exit code. One that exceeds a limit does, or it would be started for ever. One that was ended for a call does not: the
    /// call is the cause, and each such end takes at least `limits.harakiri`.
    pub fn is_crash(self) -> bool {
        match self {
            Self::Crashed | Self::StartFailed | Self::Finished | Self::Wedged | Self::OverLimit => true,
            Self::Stopped | Self::Harakiri => false,
        }
    }

    /// The word for it, in metrics and in the admin API.
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
        }
    }
}

/// The label for a method: its name if the specification knows it, else `other`.
pub fn method_label(method: &str) -> &'static str {
    const KNOWN: [&str; 19] = [
        "tools/call",
        "tools/list",
        "initialize",
        "ping",
        "resources/read",
        "resources/list",
        "resources/templates/list",
        "resources/subscribe",
        "resources/unsubscribe",
        "prompts/get",
        "prompts/list",
        "completion/complete",
        "logging/setLevel",
        "server/discover",
        "subscriptions/listen",
        "tasks/get",
        "tasks/result",
        "tasks/list",
        "tasks/cancel",
    ];
    KNOWN.into_iter().find(|known| *known == method).unwrap_or("other")
}
