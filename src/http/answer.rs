//! The response to a POST with requests in it: JSON where nothing but the answers is sent, a stream of events else.

use std::time::Duration;

use axum::body::Body;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{Response, StatusCode};
use tokio::time::{Instant, timeout_at};

use super::headers::event_stream;
use super::problem::{Reply, json};
use crate::config::Http;
use crate::stream::{Cursor, Entry, EventStream, encode_message};

/// What an answer holds until it is sent.
pub type Guard = Box<dyn Send + Sync>;

/// Waits for the answers, `requests` of them. As soon as anything else comes, or nothing for as long as `patience`, the
/// response is a stream. `guard` is dropped when all has been sent, or the client has gone.
pub async fn respond(
    mut cursor: Cursor,
    (requests, is_batch): (usize, bool),
    patience: Duration,
    http: &Http,
    guard: Guard,
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

fn stream(so_far: Vec<Entry>, cursor: Cursor, http: &Http, guard: Guard) -> Reply {
    let mut first = BytesMut::new();
    so_far.iter().for_each(|entry| encode_message(&mut first, &entry.message));
    let first = (!first.is_empty()).then(|| first.freeze());
    let body = EventStream::new(first, cursor, http.keep_alive, guard);
    let mut reply = Response::new(Body::new(body));
    event_stream(reply.headers_mut());
    reply
}
