//! Builds the response to a POST that contains requests: a JSON body if only answers are sent, otherwise an event
//! stream.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use tokio::time::{Instant, timeout_at};

use super::body::{Body, Pieces};
use super::problem::{Reply, json};
use crate::config::Http;
use crate::session::Conversation;
use crate::stream::{Cursor, Entry, EventStream};

/// The time that a client should wait before it reconnects, when its stream has ended.
const COME_BACK: Duration = Duration::from_secs(3);

/// Waits for the answers to `requests` requests and returns them as JSON: an array for a batch, otherwise the only
/// answer. The response is an event stream of what has come and what will come, if another message comes before the
/// last answer, if the answers are not complete within `http.keep_alive`, or if a request was cancelled. `guard` is
/// dropped with the event stream, or when the JSON is complete.
pub async fn respond(
    mut cursor: Cursor,
    (requests, is_batch): (usize, bool),
    http: &Http,
    guard: impl Send + 'static,
) -> Reply {
    let patience = Instant::now() + http.keep_alive;
    let mut answers: Vec<Entry> = Vec::with_capacity(requests);
    while answers.len() < requests {
        let entry = timeout_at(patience, cursor.next()).await.ok().flatten();
        let is_answer = entry.as_ref().is_some_and(|entry| entry.answer);
        answers.extend(entry);
        if !is_answer {
            return stream(answers, cursor, http, guard);
        }
    }
    match answers.pop_if(|_| !is_batch) {
        Some(only) => Response::new(Body::from(only.message).of_type("application/json")),
        None => array(answers),
    }
}

/// The JSON array of the answers. They are not copied, so that their memory stays charged until they are sent.
fn array(answers: Vec<Entry>) -> Reply {
    let mut pieces = VecDeque::with_capacity(2 * answers.len() + 1);
    for answer in answers {
        pieces.push_back(Bytes::from_static(if pieces.is_empty() { b"[" } else { b"," }));
        pieces.push_back(answer.message);
    }
    pieces.push_back(Bytes::from_static(b"]"));
    json(StatusCode::OK, Pieces(pieces))
}

fn stream(so_far: Vec<Entry>, cursor: Cursor, http: &Http, guard: impl Send + 'static) -> Reply {
    event_stream(EventStream::new(VecDeque::new(), cursor, http.keep_alive).after(so_far), guard)
}

/// Opens the stream of a conversation and responds with the stream. The stream begins with `first`, an event or a
/// comment, ends at the latest when the credential of the conversation's caller expires, and at its end tells the
/// client to reconnect after 3 s. `guard` is dropped with the response.
pub fn open_stream(conversation: &dyn Conversation, first: Bytes, http: &Http, guard: impl Send + 'static) -> Reply {
    let body = EventStream::new(VecDeque::from([first]), conversation.open_stream(), http.keep_alive);
    event_stream(body.retry_at_end(COME_BACK).ends_with(conversation.expiry()), guard)
}

/// A response with an event stream as its body. Its headers keep intermediaries from caching or buffering the stream.
fn event_stream(body: EventStream, guard: impl Send + 'static) -> Reply {
    let mut reply = Response::new(Body::from(body).hold(guard));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    reply
}
