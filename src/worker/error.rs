//! What goes wrong with a worker, as the JSON-RPC errors that clients get for it.
#![expect(clippy::disallowed_types, reason = "what the gateway itself says")]

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::SandboxHint;
use super::calls::Refused;
use crate::config::{Server, ServerName};
use crate::jsonrpc::{Code, RawId, error_response_with_data, member, parse, text};
use crate::memory::Exhausted;
use crate::permits::{By, Ceiling, Full};
use crate::process::{Excess, Exit, SpawnError};
use crate::telemetry::ExitReason;

/// The `data.type` of an error for a child that is busy, or takes no more calls.
const BUSY: &str = "overloaded";
/// The `data.type` of an error for a share of the gateway's memory that is used up.
const MEMORY: &str = "memory_full";
/// The `data.type` of each failure that the gateway ends a child for.
const WEDGED: &str = "server_wedged";
const HARAKIRI: &str = "harakiri";
const OVER_LIMIT: &str = "server_over_limit";

/// Why a call fails, as a JSON-RPC error for the client.
#[derive(Debug, Clone)]
pub struct Failure {
    code: Code,
    kind: &'static str,
    message: String,
    retryable: bool,
    retry_after: Option<Duration>,
    exit: Option<Exit>,
    stderr: Vec<String>,
}

impl Failure {
    /// The child could not be spawned.
    pub fn spawn(server: &ServerName, error: &SpawnError) -> Self {
        Self::unavailable("server_start_failed", format!("the server \"{server}\" did not start: {error}"))
    }

    /// The child exited: after the answer to `initialize` if `started`, or before. `stderr` holds its last lines;
    /// `noise` is the number of lines on stdout that were no messages.
    pub fn exited(server: &Server, exit: Exit, started: bool, stderr: Vec<String>, noise: u64) -> Self {
        let hint = SandboxHint::of(server, Some(exit), &stderr).filter(|hint| !started || hint.is_likely);
        let server = &server.name;
        let mut failure = if started {
            let text = format!(
                "the server \"{server}\" ended with {exit} while the call was in flight; it is started again with the next call"
            );
            Self::unavailable("server_exited", text).retryable()
        } else {
            let text =
                format!("the server \"{server}\" did not start: it ended with {exit} before it answered initialize");
            Self::unavailable("server_start_failed", text)
        };
        failure.exit = Some(exit);
        failure.with_hint(hint.as_ref()).with_output(stderr, noise)
    }

    /// The child did not answer `initialize` within `after`.
    pub fn start_timeout(server: &Server, after: Duration, stderr: Vec<String>, noise: u64) -> Self {
        let hint = SandboxHint::of(server, None, &stderr);
        let text = format!(
            "the server \"{}\" did not start: no answer to initialize within {after:?} (limits.start_timeout); \
             check that its command is an MCP server that speaks stdio",
            server.name
        );
        Self::new(Code::Timeout, "server_start_timeout", text).with_hint(hint.as_ref()).with_output(stderr, noise)
    }

    /// A child in the place of one that has ended answered the session's `initialize` with an error.
    pub fn refused_again(server: &ServerName) -> Self {
        let text = format!("the server \"{server}\" did not start again: it refused the initialize of this session");
        Self::unavailable("server_start_failed", text)
    }

    /// A child in the place of one that has ended speaks another protocol version than the session has negotiated.
    pub fn other_version(server: &ServerName, negotiated: &str, now: &str) -> Self {
        let (negotiated, now): (String, String) =
            (negotiated.chars().take(64).collect(), now.chars().take(64).collect());
        let text = format!(
            "the server \"{server}\" was started again and speaks protocol version {now:?} now, but this session has negotiated \
             {negotiated:?} with it; open another session"
        );
        Self::unavailable("server_version_changed", text)
    }

    /// The child did not answer a call within `after`. `key` is the configuration key of that time-out.
    pub fn call_timeout(server: &ServerName, after: Duration, key: &str) -> Self {
        let text = format!("the server \"{server}\" did not answer within {after:?} ({key}); the call was cancelled");
        Self::new(Code::Timeout, "call_timeout", text)
    }

    /// A message of the child was longer than `limits.max_line`, and was left out.
    pub fn oversized(server: &Server, bytes: usize) -> Self {
        let (name, limit) = (&server.name, server.limits.max_line);
        let text = format!(
            "the message of the server \"{name}\" is {bytes} bytes long, and was left out: limits.max_line is {limit} bytes; \
             ask for less at once, or raise the limit"
        );
        Self::unavailable("message_too_large", text)
    }

    /// There was no room for a message of the child of `bytes` bytes, and it was left out.
    pub fn no_memory(server: &ServerName, bytes: usize) -> Self {
        let text = format!(
            "the gateway has no room for the message of the server \"{server}\", which is {bytes} bytes long, and left it out: \
             the share of the gateway's memory that it counts for is used up (limits.memory_budget, \
             tenants.NAME.limits.memory_budget); the call has run"
        );
        Self::new(Code::Overloaded, MEMORY, text)
    }

    /// The child was not started: there is no room for the gateway's record of it.
    pub fn no_room_for_child(server: &ServerName, why: Exhausted) -> Self {
        let text = format!("the server \"{server}\" was not started: {why}; try again in a moment");
        Self::overloaded(MEMORY, text, Duration::ZERO)
    }

    /// The answer to `initialize` was longer than `limit` bytes.
    pub fn large_opening(server: &ServerName, bytes: usize, limit: usize) -> Self {
        let text = format!(
            "the answer of the server \"{server}\" to initialize is {bytes} bytes long: at most {limit} bytes are taken; \
             make what it says of itself shorter, such as its instructions"
        );
        Self::unavailable("message_too_large", text)
    }

    /// A call waited for a child for its whole time-out `after`, and no child has received the call. `key` is the
    /// configuration key of that time-out.
    pub fn waited(server: &ServerName, after: Duration, key: &str) -> Self {
        let text = format!(
            "the call waited {after:?} ({key}) for the server \"{server}\" to start, and was given up; it has not run"
        );
        Self::new(Code::Timeout, "call_timeout", text).retryable()
    }

    /// The gateway ended the child, because the child did not answer a `ping` within `after`.
    pub fn wedged(server: &ServerName, after: Duration, stderr: Vec<String>) -> Self {
        let text = format!(
            "the server \"{server}\" was ended: it answered no call, and no ping within {after:?} (limits.ping_timeout); it is started again"
        );
        Self::unavailable(WEDGED, text).retryable().with_output(stderr, 0)
    }

    /// The gateway or the system ended the child, because the child used more of the machine than allowed.
    pub fn over_limit(server: &ServerName, excess: &Excess) -> Self {
        let text = format!("the server \"{server}\" was ended: it used {excess}");
        Self::unavailable(OVER_LIMIT, text)
    }

    /// The server answered `initialize` with an error.
    pub fn refused_by_server(server: &ServerName, answer: &[u8]) -> Self {
        let error = parse(answer).ok().and_then(|envelope| envelope.error);
        let why = error.and_then(|error| member(error, "message")).and_then(text);
        let why = why.as_deref().unwrap_or("no protocolVersion in its answer");
        let why: String = why.chars().take(500).collect();
        Self::unavailable("server_refused", format!("the server \"{server}\" refused initialize: {why}"))
    }

    /// The gateway ended the child, because a call took longer than `limits.harakiri`.
    pub fn harakiri(server: &ServerName, after: Duration) -> Self {
        let text =
            format!("a call to the server \"{server}\" overran {after:?} (limits.harakiri), and the server was ended");
        Self::new(Code::Timeout, HARAKIRI, text).retryable()
    }

    /// The circuit breaker is open after several crashes. The next start is allowed after `retry`.
    pub fn crash_loop(server: &ServerName, retry: Duration) -> Self {
        let text = format!(
            "the server \"{server}\" keeps crashing, and is left alone; the next attempt is in {:.1} s",
            retry.as_secs_f64()
        );
        Self { retryable: true, retry_after: Some(retry), ..Self::new(Code::Overloaded, "crash_loop", text) }
    }

    /// No child could be had within `waited`, because a limit is reached, or the caller's share of it.
    pub fn full(server: &ServerName, full: &Full, waited: Duration) -> Self {
        let (most, key) = (full.most, full.ceiling.key());
        let (kind, all) = match full.ceiling {
            Ceiling::Tenant(_) => (
                "tenant_full",
                format!("was not started: the tenant has all its {most} children in use ({key}); end a session, or"),
            ),
            Ceiling::Starts | Ceiling::SpareStarts => (
                "spawn_full",
                format!(
                    "was not started: others are being started ({key}), and its turn did not come within {waited:.1?};"
                ),
            ),
            _ => (
                "pool_full",
                format!("has all its {most} children in use ({key}), and none became free within {waited:.1?};"),
            ),
        };
        let reason = match full.by {
            By::All => all,
            _ => format!("was not started: {full}; waited {waited:.1?};"),
        };
        Self::overloaded(kind, format!("the server \"{server}\" {reason} try again in a moment"), waited)
    }

    /// The time after which the client may try again; `None` if no limit was the reason.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// A task of the gateway has panicked.
    pub fn internal(server: &ServerName) -> Self {
        let text = format!(
            "the gateway failed in its work for the server \"{server}\": that is a fault of the gateway, and its log says more; try again"
        );
        Self::new(Code::Internal, "internal_error", text).retryable()
    }

    /// The gateway stopped the child, or the session has left.
    pub fn stopped(server: &ServerName) -> Self {
        let text = format!("the session with the server \"{server}\" ended while the call was in flight");
        Self::unavailable("session_ended", text).retryable()
    }

    /// The child took no call, for the given reason.
    pub fn refused(refused: Refused) -> Self {
        match refused {
            // Any answer makes room, and the next one may come at any moment.
            Refused::Busy | Refused::Share | Refused::Retired => {
                Self::overloaded(BUSY, refused.to_string(), Duration::ZERO)
            }
            Refused::Memory(_) => Self::overloaded(MEMORY, refused.to_string(), Duration::ZERO),
            Refused::Ended => Self::unavailable("server_exited", refused.to_string()).retryable(),
            Refused::SessionEnded => Self::unavailable("session_ended", refused.to_string()).retryable(),
        }
    }

    /// A limit is reached. Nothing became free within `waited`: as long again is the best guess at when it may pay to
    /// try again, and at least 1 s.
    fn overloaded(kind: &'static str, message: String, waited: Duration) -> Self {
        let retry_after = Some(waited.max(Duration::from_secs(1)));
        Self { retryable: true, retry_after, ..Self::new(Code::Overloaded, kind, message) }
    }

    fn unavailable(kind: &'static str, message: String) -> Self {
        Self::new(Code::ServerUnavailable, kind, message)
    }

    fn retryable(self) -> Self {
        Self { retryable: true, ..self }
    }

    fn new(code: Code, kind: &'static str, message: String) -> Self {
        Self { code, kind, message, retryable: false, retry_after: None, exit: None, stderr: Vec::new() }
    }

    /// Adds a hint about the sandbox. Comes before the output of the child, which may be long.
    fn with_hint(mut self, hint: Option<&SandboxHint>) -> Self {
        self.message.extend(hint.into_iter().flat_map(|hint| ["; ", &hint.text]));
        self
    }

    /// Adds the last lines of stderr to text and data, and to the text the number of lines on stdout that were no
    /// messages.
    fn with_output(mut self, stderr: Vec<String>, noise: u64) -> Self {
        if noise > 0 {
            self.message.push_str(&format!(
                "; it wrote {noise} line(s) to stdout that are no JSON-RPC messages (a server must log to stderr)"
            ));
        }
        if !stderr.is_empty() {
            self.message.push_str("; its last lines on stderr: ");
            self.message.push_str(&stderr.join(" | "));
        }
        self.stderr = stderr;
        self
    }

    /// Whether the child had ended before it took the call. Then the call has not run, and may be sent to another
    /// child.
    pub fn is_ended(&self) -> bool {
        matches!((self.kind, self.exit), ("server_exited", None))
    }

    /// Whether a limit on calls or bytes, or the retirement of the child, was the reason.
    pub fn is_busy(&self) -> bool {
        self.kind == BUSY
    }

    /// The exit reason for a child that was ended for this failure. `None` if no child is ended for such a failure.
    pub fn exit_reason(&self) -> Option<ExitReason> {
        match self.kind {
            WEDGED => Some(ExitReason::Wedged),
            HARAKIRI => Some(ExitReason::Harakiri),
            OVER_LIMIT => Some(ExitReason::OverLimit),
            _ => None,
        }
    }

    /// The JSON-RPC error response to the call with this id. `data` has `type` and `retryable`, and where they are
    /// known `retryAfter` in seconds (rounded up), `exitCode`, `signal` and `stderr`.
    pub fn response(&self, id: &RawId) -> Bytes {
        let mut data = json!({ "type": self.kind, "retryable": self.retryable });
        if let Some(object) = data.as_object_mut() {
            if let Some(after) = self.retry_after {
                object.insert(
                    "retryAfter".to_owned(),
                    Value::from(after.as_secs() + u64::from(after.subsec_nanos() > 0)),
                );
            }
            if let Some(exit) = self.exit {
                object.insert("exitCode".to_owned(), exit.code().map_or(Value::Null, Value::from));
                object.insert("signal".to_owned(), exit.signal().map_or(Value::Null, Value::from));
            }
            if !self.stderr.is_empty() {
                object.insert("stderr".to_owned(), Value::from(self.stderr.clone()));
            }
        }
        error_response_with_data(Some(id), self.code, &self.message, &data)
    }

    /// The text of the error.
    pub fn message(&self) -> &str {
        &self.message
    }
}
