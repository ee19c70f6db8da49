//! The HTTP+SSE transport (MCP 2024-11-05): a GET opens a session and its stream, whose first event names the URI for
//! POST requests. The stream carries all answers, and the session ends with the stream.

use std::sync::Arc;

use http::{Method, StatusCode};

use super::app::App;
use super::caller::Caller;
use super::headers::{check_accepts_events, check_is_json, version};
use super::message::{check_batch, give, read as read_messages};
use super::problem::{Refusal, Reply, method_not_allowed, plain};
use super::request_body::RequestBody;
use super::request_head::RequestHead;
use super::snapshot::Snapshot;
use super::{answer, request_body};
use crate::session::{Conversation, Conversations, Transport};
use crate::stream::endpoint_event;

/// Answers requests to `…/sse`: a GET opens a session and its stream; other methods get status 405.
pub async fn open(app: &App, snapshot: &Snapshot, parts: &RequestHead<'_>) -> Reply {
    if parts.method != Method::GET {
        // The status tells clients that try Streamable HTTP first to fall back to HTTP+SSE.
        return method_not_allowed("GET");
    }
    open_stream(app, snapshot, parts).await.unwrap_or_else(Refusal::reply)
}

async fn open_stream(app: &App, snapshot: &Snapshot, parts: &RequestHead<'_>) -> Result<Reply, Refusal> {
    let caller = Caller::of(parts, snapshot, &app.metrics).await?;
    check_accepts_events(&parts.headers)?;
    let new = caller.new_session(Transport::Sse);
    let conversation = app.conversations.open(&new).map_err(|rejected| Refusal::no_room(&rejected))?;
    // Relative to the URL that the client requested: a proxy may have cut off a prefix of the path, and the host may be
    // another one than that of the public URL.
    let up = if parts.uri.path().ends_with('/') { "../" } else { "" };
    let uri = format!("{up}messages?sessionId={}", conversation.id().as_str());
    conversation.expiry().extend(caller.until);
    let (conversations, of_stream) = (Arc::clone(&app.conversations), Arc::clone(&conversation));
    let guard = StreamGuard { conversations, conversation: of_stream };
    Ok(answer::open_stream(&*conversation, endpoint_event(&uri), &snapshot.http, (guard, caller.charge)))
}

/// Ends the session when its stream is dropped: the client closed the stream, the connection broke, the credential
/// expired, or the gateway cut the stream.
struct StreamGuard {
    conversations: Arc<dyn Conversations>,
    conversation: Arc<dyn Conversation>,
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let has_expired = self.conversation.expiry().is_over();
        let why = if has_expired { "the credential has expired" } else { "stream closed" };
        self.conversations.end(self.conversation.id(), why);
    }
}

/// Answers requests to `…/messages?sessionId=…`: a POST gives messages to the session, whose stream carries the
/// answers; other methods get status 405.
pub async fn post<B: RequestBody>(app: &App, snapshot: &Snapshot, parts: &RequestHead<'_>, body: &mut B) -> Reply {
    if parts.method != Method::POST {
        return method_not_allowed("POST");
    }
    take(app, snapshot, parts, body).await.unwrap_or_else(Refusal::reply)
}

async fn take<B: RequestBody>(
    app: &App,
    snapshot: &Snapshot,
    parts: &RequestHead<'_>,
    body: &mut B,
) -> Result<Reply, Refusal> {
    let caller = Caller::of(parts, snapshot, &app.metrics).await?;
    check_is_json(&parts.headers)?;
    let Some(name) = session_in(parts.uri.query().unwrap_or_default()) else {
        let text = "the query parameter sessionId is missing: POST to the URI of the stream's endpoint event";
        return Err(Refusal::problem(StatusCode::BAD_REQUEST, text));
    };
    let conversation = caller.find(app, name, Transport::Sse).ok_or_else(|| Refusal::no_session(None))?;
    let body = request_body::read(body, &caller, &app.metrics).await?;
    let mut messages = read_messages(&body, &caller, &app.metrics).await?;
    let version = messages.check_version(version(&parts.headers, || conversation.version()))?;
    if messages.is_batch {
        check_batch(conversation.version().as_deref().or(version))?;
    }
    let stream = conversation.stream().ok_or_else(|| Refusal::no_session(None))?;
    // A refused message gets no status: most clients would end the whole session.
    let _ = give(&*conversation, messages, &stream);
    Ok(plain(StatusCode::ACCEPTED, "Accepted"))
}

/// The session id in the query, from `sessionId` or `session_id`: some clients rebuild the URI with the other spelling.
fn session_in(query: &str) -> Option<&str> {
    query.split('&').find_map(|pair| pair.strip_prefix("sessionId=").or_else(|| pair.strip_prefix("session_id=")))
}
