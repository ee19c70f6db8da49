//! The Streamable HTTP transport (MCP 2025-03-26 to 2025-11-25): POST, GET and DELETE on one path.

use std::sync::Arc;

use http::{HeaderValue, Method, StatusCode};

use super::answer::{open_stream, respond};
use super::app::App;
use super::caller::Caller;
use super::headers::{
    SESSION_ID, check_accepts_both, check_accepts_events, check_is_json, check_version, session_id, version,
};
use super::message::{Messages, check_batch, give, read as read_messages};
use super::problem::{Refusal, Reply, RequestError, method_not_allowed, plain};
use super::request_body::RequestBody;
use super::request_head::RequestHead;
use super::snapshot::Snapshot;
use super::{headers, request_body};
use crate::config::ServerName;
use crate::jsonrpc::RawId;
use crate::mcp::method;
use crate::session::{Conversation, Conversations, Transport};
use crate::stream::{Cursor, Exchange, KEEP_ALIVE, Outbox};
use crate::telemetry::Cause;

/// Answers all requests to the path of the transport.
pub async fn handle<B: RequestBody>(app: &App, snapshot: &Snapshot, parts: &RequestHead<'_>, body: &mut B) -> Reply {
    let done = match parts.method {
        Method::POST => post(app, snapshot, parts, body).await,
        Method::GET => get(app, snapshot, parts).await,
        Method::DELETE => delete(app, snapshot, parts).await,
        _ => Ok(method_not_allowed("GET, POST, DELETE")),
    };
    done.unwrap_or_else(Refusal::reply)
}

async fn post<B: RequestBody>(
    app: &App,
    snapshot: &Snapshot,
    parts: &RequestHead<'_>,
    body: &mut B,
) -> Result<Reply, Refusal> {
    let caller = Caller::of(parts, snapshot, &app.metrics).await?;
    check_is_json(&parts.headers)?;
    check_accepts_both(&parts.headers)?;
    // The body is dropped before the answers are awaited.
    match take(app, parts, &caller, body).await? {
        Taken::Answered(reply) => Ok(reply),
        Taken::Initialize(conversation, cursor) => Ok(opened(app, caller, conversation, cursor).await),
        Taken::Messages(_, _, (0, _)) => Ok(plain(StatusCode::ACCEPTED, "")),
        Taken::Messages(conversation, cursor, counts) => {
            Ok(respond(cursor, counts, &snapshot.http, (conversation, caller.charge)).await)
        }
    }
}

/// What has become of the messages of a body.
enum Taken {
    /// They are answered already.
    Answered(Reply),
    /// The `initialize` of a new session; its answer will come.
    Initialize(Arc<dyn Conversation>, Cursor),
    /// Messages of a session: the number of requests, whose answers will come, and whether they were a batch.
    Messages(Arc<dyn Conversation>, Cursor, (usize, bool)),
}

/// Reads the messages of a body and gives them to their session, or opens one.
async fn take<B: RequestBody>(
    app: &App,
    parts: &RequestHead<'_>,
    caller: &Caller<'_>,
    body: &mut B,
) -> Result<Taken, Refusal> {
    let body = request_body::read(body, caller, &app.metrics).await?;
    let mut messages = read_messages(&body, caller, &app.metrics).await?;
    let version = messages.check_version(version(&parts.headers, || negotiated(app, parts, caller)))?;
    if let Some(error) = messages.only().and_then(|only| only.error.take()) {
        return Ok(Taken::Answered(error.reply()));
    }
    let initialize = messages.only().filter(|only| only.is_request(method::INITIALIZE));
    if let Some(id) = initialize.and_then(|only| only.request_id()) {
        return open_session(app, parts, caller, messages, &id);
    }
    let conversation = find(app, parts, caller, || messages.only()?.request_id())?;
    if messages.is_batch {
        check_batch(conversation.version().as_deref().or(version))?;
    }
    converse(caller.snapshot, conversation, messages)
}

/// Finds the session that the header names, or refuses the request: status 400 without a session id, 404 if this caller
/// has no such session. `id` returns the id of the only request in the body, for the error response.
fn find(
    app: &App,
    parts: &RequestHead<'_>,
    caller: &Caller<'_>,
    mut id: impl FnMut() -> Option<RawId>,
) -> Result<Arc<dyn Conversation>, Refusal> {
    let Some(name) = session_id(&parts.headers)? else {
        let text = "send the header Mcp-Session-Id: the one that came with the answer to initialize";
        return Err(Refusal::invalid(id().as_ref(), text));
    };
    caller.find(app, name, Transport::Streamable).ok_or_else(|| Refusal::no_session(id().as_ref()))
}

/// The protocol version that the session in the header has negotiated. `None` without such a session, or before its
/// `initialize` has been answered.
fn negotiated(app: &App, parts: &RequestHead<'_>, caller: &Caller<'_>) -> Option<String> {
    let id = session_id(&parts.headers).ok()??;
    app.conversations.find(id, &caller.principal, caller.server(), Transport::Streamable)?.version()
}

fn exchange(snapshot: &Snapshot, conversation: &dyn Conversation, requests: usize) -> (Arc<Exchange>, Cursor) {
    let (outbox, cursor) = Outbox::new(snapshot.stream());
    (Arc::new(Exchange::of_request(outbox, requests, conversation.account())), cursor)
}

/// Opens a session for the request `initialize`, which is the only one of `messages` and has this `id`.
fn open_session(
    app: &App,
    parts: &RequestHead<'_>,
    caller: &Caller<'_>,
    messages: Messages<'_>,
    id: &RawId,
) -> Result<Taken, Refusal> {
    if session_id(&parts.headers)?.is_some() {
        find(app, parts, caller, || Some(id.clone()))?;
        let text = "the session is initialized already: send initialize without Mcp-Session-Id to start another";
        return Err(Refusal::invalid(Some(id), text));
    }
    let conversation = match app.conversations.open(&caller.new_session(Transport::Streamable)) {
        Ok(conversation) => conversation,
        Err(rejected) => return Ok(Taken::Answered(RequestError::no_room(id, &rejected).reply())),
    };
    let (exchange, cursor) = exchange(caller.snapshot, &*conversation, 1);
    // The error of a refused request comes on the exchange.
    let _ = give(&*conversation, messages, &exchange);
    Ok(Taken::Initialize(conversation, cursor))
}

/// Responds to the `initialize` of a new session.
async fn opened(app: &App, caller: Caller<'_>, conversation: Arc<dyn Conversation>, cursor: Cursor) -> Reply {
    let opening = Opening { conversations: Arc::clone(&app.conversations), conversation: Arc::clone(&conversation) };
    let mut reply = respond(cursor, (1, false), &caller.snapshot.http, (opening, caller.charge)).await;
    // A stream names the session before the server has started. If the server does not start, the session ends.
    if (headers::is_event_stream(&reply) || conversation.version().is_some())
        && let Ok(value) = HeaderValue::from_str(conversation.id().as_str())
    {
        reply.headers_mut().insert(SESSION_ID, value);
    }
    reply
}

/// Ends a session when the response to its `initialize` is dropped, if no version has been negotiated: the client has
/// hung up, or the server did not start.
struct Opening {
    conversations: Arc<dyn Conversations>,
    conversation: Arc<dyn Conversation>,
}

impl Drop for Opening {
    fn drop(&mut self) {
        if self.conversation.version().is_none() {
            self.conversations.end(self.conversation.id(), "initialize failed");
        }
    }
}

/// Gives messages to their session.
fn converse(
    snapshot: &Snapshot,
    conversation: Arc<dyn Conversation>,
    messages: Messages<'_>,
) -> Result<Taken, Refusal> {
    let (requests, is_batch) = (messages.requests(), messages.is_batch);
    let (exchange, cursor) = exchange(snapshot, &*conversation, requests);
    if let Some(refusal) = give(&*conversation, messages, &exchange) {
        return Err(refusal);
    }
    Ok(Taken::Messages(conversation, cursor, (requests, is_batch)))
}

/// Opens the session's stream for messages that belong to no request of the client. The stream replaces an older one,
/// because only the client knows which connection is alive.
async fn get(app: &App, snapshot: &Snapshot, parts: &RequestHead<'_>) -> Result<Reply, Refusal> {
    let caller = Caller::of(parts, snapshot, &app.metrics).await?;
    check_accepts_events(&parts.headers)?;
    check_version(&parts.headers, || negotiated(app, parts, &caller))?;
    let conversation = find(app, parts, &caller, || None)?;
    let server = caller.server().clone();
    let guard = StreamGuard { conversation: Arc::clone(&conversation), server };
    Ok(open_stream(&*conversation, KEEP_ALIVE, &snapshot.http, (guard, caller.charge)))
}

/// Logs the end of a GET stream, if the credential of the session has expired.
struct StreamGuard {
    conversation: Arc<dyn Conversation>,
    server: ServerName,
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let Self { conversation, server } = self;
        if conversation.expiry().is_over()
            && Cause::info("a stream ended with its credential", server.to_string()).is_news(20)
        {
            tracing::info!(%server, session = %conversation.id().public(), "a stream ended: the credential has expired");
        }
    }
}

async fn delete(app: &App, snapshot: &Snapshot, parts: &RequestHead<'_>) -> Result<Reply, Refusal> {
    let caller = Caller::of(parts, snapshot, &app.metrics).await?;
    check_version(&parts.headers, || negotiated(app, parts, &caller))?;
    let conversation = find(app, parts, &caller, || None)?;
    app.conversations.end(conversation.id(), "deleted by the client");
    Ok(plain(StatusCode::OK, ""))
}
