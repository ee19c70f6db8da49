//! Streamable HTTP, 2025-03-26 to 2025-11-25: POST, GET and DELETE on one path.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};

use super::answer::respond;
use super::app::App;
use super::caller::{Caller, caller};
use super::headers::{
    SESSION_ID, check_accepts_both, check_accepts_events, check_is_json, check_version, event_stream, session_id,
};
use super::message::{Messages, check_batch, envelope, give, read as read_messages};
use super::problem::{Reply, limit_reached, method_not_allowed, no_session, rejected, rpc_error};
use super::{body, headers};
use crate::jsonrpc::{Code, Envelope, Kind, RawId};
use crate::session::{Registry, Session, Transport};
use crate::stream::{EventStream, Exchange, Inbox, Limits, Outbox};

/// How long a client whose stream is ended by a drain should wait before it comes back.
pub(super) const COME_BACK: std::time::Duration = std::time::Duration::from_secs(3);

/// What comes to an end is known this much later at most.
const A_MOMENT: std::time::Duration = std::time::Duration::from_secs(1);

/// The one path of the transport.
pub async fn handle(State(app): State<Arc<App>>, request: Request<Body>) -> Reply {
    let (parts, body) = request.into_parts();
    let done = match parts.method {
        Method::POST => post(&app, &parts, body).await,
        Method::GET => get(&app, &parts).await,
        Method::DELETE => delete(&app, &parts).await,
        _ => Ok(method_not_allowed("GET, POST, DELETE")),
    };
    done.unwrap_or_else(|error| error)
}

async fn post(app: &Arc<App>, parts: &Parts, body: Body) -> Result<Reply, Reply> {
    let caller = caller(app, parts).await?;
    check_is_json(&parts.headers)?;
    check_accepts_both(&parts.headers)?;
    let body = body::read(body, &app.http).await?;
    let messages = read_messages(&body, &app.http)?;
    let is_batch = messages.is_batch;
    let envelopes = messages.messages.iter().map(envelope).collect::<Result<Vec<_>, _>>()?;
    let version = check_version(&parts.headers)?;
    match envelopes.as_slice() {
        [only] if !is_batch && only.method.as_deref() == Some("initialize") && only.kind == Kind::Request => {
            initialize(app, parts, &caller, &body, only).await
        }
        envelopes => {
            let id = envelopes.first().and_then(Envelope::raw_id);
            let session = find(app, parts, &caller, id.as_ref())?;
            if is_batch {
                check_batch(session.version().as_deref().or(version), envelopes)?;
            }
            converse(app, &session, &messages, envelopes).await
        }
    }
}

/// The session that the request names: 400 without a name, 404 if there is none for this caller.
fn find(app: &App, parts: &Parts, caller: &Caller, id: Option<&RawId>) -> Result<Arc<Session>, Reply> {
    let Some(name) = session_id(&parts.headers) else {
        let text = "send the header Mcp-Session-Id: the one that came with the answer to initialize";
        return Err(rpc_error(StatusCode::BAD_REQUEST, id, Code::InvalidRequest, text));
    };
    app.sessions
        .find(name, &caller.principal, &caller.admission.server.name, Transport::Streamable)
        .ok_or_else(|| no_session(id))
}

fn exchange(app: &App, requests: usize) -> (Arc<Exchange>, Inbox) {
    let limits = Limits { messages: app.http.stream_messages, bytes: app.http.stream_bytes };
    let (outbox, inbox) = Outbox::new(limits);
    (Arc::new(Exchange::of_request(outbox, requests)), inbox)
}

async fn initialize(
    app: &App,
    parts: &Parts,
    caller: &Caller,
    body: &Bytes,
    envelope: &Envelope<'_>,
) -> Result<Reply, Reply> {
    let id = envelope.raw_id();
    if session_id(&parts.headers).is_some() {
        find(app, parts, caller, id.as_ref())?;
        let text = "the session is initialized already: send initialize without Mcp-Session-Id to start another";
        return Err(rpc_error(StatusCode::BAD_REQUEST, id.as_ref(), Code::InvalidRequest, text));
    }
    let admission = &caller.admission;
    let session = app
        .sessions
        .open(&caller.principal, admission.max_sessions, &admission.server, Transport::Streamable)
        .map_err(|error| rejected(id.as_ref(), &error))?;
    let opening = Opening { sessions: Arc::clone(&app.sessions), session: Arc::clone(&session) };
    let (exchange, inbox) = exchange(app, 1);
    session.receive(body.clone(), envelope, &exchange);
    // While the session waits its turn for a child, the response may still come to a 503.
    let patience = app.http.keep_alive.max(session.server().pool.queue_timeout + A_MOMENT);
    let mut reply = respond(inbox, (1, false), patience, &app.http, Box::new(opening)).await;
    if let Some(after) = session.retry_after() {
        limit_reached(&mut reply, after);
    }
    // A stream tells the id before it is known whether the server starts: the session ends if it does not.
    if (headers::is_event_stream(&reply) || session.version().is_some())
        && let Ok(value) = HeaderValue::from_str(session.id().as_str())
    {
        reply.headers_mut().insert(SESSION_ID, value);
    }
    Ok(reply)
}

/// Dropped with the answer to `initialize`: whoever hangs up before it leaves no session behind; nor does a failed
/// start, whether the answer is JSON or a stream.
struct Opening {
    sessions: Arc<Registry>,
    session: Arc<Session>,
}

impl Drop for Opening {
    fn drop(&mut self) {
        if self.session.version().is_none() {
            self.sessions.end(&self.session, "initialize failed");
        }
    }
}

async fn converse(
    app: &App,
    session: &Arc<Session>,
    messages: &Messages,
    envelopes: &[Envelope<'_>],
) -> Result<Reply, Reply> {
    let requests = envelopes.iter().filter(|envelope| envelope.kind == Kind::Request).count();
    let (exchange, inbox) = exchange(app, requests);
    give(session, messages, envelopes, &exchange)?;
    if requests == 0 {
        let mut reply = Response::new(Body::empty());
        *reply.status_mut() = StatusCode::ACCEPTED;
        return Ok(reply);
    }
    Ok(respond(inbox, (requests, messages.is_batch), app.http.keep_alive, &app.http, Box::new(Arc::clone(session)))
        .await)
}

/// The stream for what belongs to no request. A newer one takes over: the client knows best which is alive.
async fn get(app: &App, parts: &Parts) -> Result<Reply, Reply> {
    let caller = caller(app, parts).await?;
    check_accepts_events(&parts.headers)?;
    check_version(&parts.headers)?;
    let session = find(app, parts, &caller, None)?;
    let inbox = session.open_stream();
    let body = EventStream::new(Some(crate::stream::KEEP_ALIVE), inbox, app.http.keep_alive, Box::new(session))
        .retry_at_end(COME_BACK);
    let mut reply = Response::new(Body::new(body));
    event_stream(reply.headers_mut());
    Ok(reply)
}

async fn delete(app: &App, parts: &Parts) -> Result<Reply, Reply> {
    let caller = caller(app, parts).await?;
    check_version(&parts.headers)?;
    let session = find(app, parts, &caller, None)?;
    app.sessions.end(&session, "deleted by the client");
    Ok(Response::new(Body::empty()))
}
