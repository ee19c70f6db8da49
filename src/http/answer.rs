//! Builds the response to a POST that contains requests: a JSON body if only answers are sent, otherwise an event stream.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use tokio::time::{Instant, timeout_at};

use super::body::Body;
use super::problem::{Reply, json};
use crate::config::Http;
use crate::session::Conversation;
use crate::stream::{Cursor, Entry, EventStream, encode_message};

/// The time after which a client should reconnect when its stream has ended.
const COME_BACK: Duration = Duration::from_secs(3);

/// Waits for the answers to `requests` requests and returns them as JSON. If another message comes first, or no message
/// comes for `patience`, the response is an event stream with the rest. `guard` is dropped with the response.
pub async fn respond(
    mut cursor: Cursor,
    (requests, is_batch): (usize, bool),
    patience: Duration,
    http: &Http,
    guard: impl Send + 'static,
) -> Reply {
    let patience = Instant::now() + patience;
    let mut answers: Vec<Entry> = Vec::with_capacity(requests);
    while answers.len() < requests {
        match timeout_at(patience, cursor.next()).await {
            Ok(Some(entry)) => {
                let interim = !entry.answer;
                answers.push(entry);
                if interim {
                    return stream(answers, cursor, http, guard);
                }
            }
            // Cancelled: the client does not want the answer any more, and gets a stream without it.
            Ok(None) if answers.is_empty() || is_batch => return stream(answers, cursor, http, guard),
            Ok(None) => break,
            Err(_) => return stream(answers, cursor, http, guard),
        }
    }
    match (answers.pop(), is_batch) {
        (Some(only), false) => json(StatusCode::OK, only.message),
        (Some(last), true) => {
            answers.push(last);
            json(StatusCode::OK, array(&answers))
        }
        (None, _) => stream(answers, cursor, http, guard),
    }
}

fn array(answers: &[Entry]) -> Bytes {
    let mut out = BytesMut::new();
    for (index, answer) in answers.iter().enumerate() {
        out.put_u8(if index == 0 { b'[' } else { b',' });
        out.put_slice(&answer.message);
    }
    out.put_u8(b']');
    out.freeze()
}

fn stream(so_far: Vec<Entry>, cursor: Cursor, http: &Http, guard: impl Send + 'static) -> Reply {
    let mut first = BytesMut::new();
    so_far.iter().for_each(|entry| encode_message(&mut first, &entry.message));
    let first = (!first.is_empty()).then(|| first.freeze());
    event_stream(EventStream::new(first, cursor, http.keep_alive), guard)
}

/// Opens the stream of a conversation and responds with it. The stream starts with the event `first`, ends when the
/// credential of its reader expires at the latest, and tells the client to reconnect after 3 s. `guard` is dropped with the
/// response.
pub fn open_stream(conversation: &dyn Conversation, first: Bytes, http: &Http, guard: impl Send + 'static) -> Reply {
    let body = EventStream::new(Some(first), conversation.open_stream(), http.keep_alive);
    event_stream(body.retry_at_end(COME_BACK).ends_with(conversation.expiry()), guard)
}

/// The response with an event stream as its body. Its headers keep intermediaries from caching or buffering the stream.
fn event_stream(body: EventStream, guard: impl Send + 'static) -> Reply {
    let mut reply = Response::new(Body::from(body).hold(guard));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    reply
}
