//! Reads and drops the rest of a request's body after an early response. Many clients write the whole body before they read,
//! and lose the response of a refused request if the connection is closed first (RFC 9112 section 9.6). The rest is read
//! within a bound of bytes and of time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::headers::is_event_stream;
use super::problem::Reply;
use super::router::Router;

/// The largest number of bytes of a body that are read and dropped.
const MOST: u64 = 64 << 20;
/// The largest rest, in bytes, after which the connection stays open. After a larger rest, or one of unknown size, the
/// connection is closed behind the response.
const SMALL: u64 = 64 << 10;

/// Answers a request with `router`. The unread rest of the request's body is read and dropped behind the response, for at
/// most `time`.
pub async fn answer(router: &Router, request: Request<Incoming>, time: Duration) -> Reply {
    let version = request.version();
    let (parts, body) = request.into_parts();
    let mut body = Unread(Some(body).filter(|body| !body.is_end_stream()));
    let reply = router.respond(&parts, &mut body).await;
    match body.0 {
        // A stream goes on for long, and is no refusal.
        Some(rest) if !is_event_stream(&reply) => linger(reply, rest, version, time),
        _ => reply,
    }
}

fn linger(mut reply: Reply, rest: Incoming, version: Version, time: Duration) -> Reply {
    let is_small = rest.size_hint().upper().is_some_and(|bytes| bytes <= SMALL);
    if version <= Version::HTTP_11 && !is_small {
        reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    reply.map(|body| body.hold(Rest(Some((rest, time)))))
}

/// The part of a request's body that has not been read; `None` behind its end.
struct Unread(Option<Incoming>);

impl HttpBody for Unread {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.0 else { return Poll::Ready(None) };
        let frame = std::task::ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.0 = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

/// The rest of a request's body, which is read after the body of the response has been handed over. Reading earlier would
/// send "100 Continue" to a client that waits for permission to send.
struct Rest(Option<(Incoming, Duration)>);

impl Drop for Rest {
    fn drop(&mut self) {
        // It ends with the connection, as the rest does.
        if let (Some((rest, time)), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { tokio::time::timeout(time, read_and_drop(rest)).await });
        }
    }
}

async fn read_and_drop(mut rest: Incoming) {
    let mut left = MOST;
    while let Some(Ok(frame)) = rest.frame().await {
        let read = frame.data_ref().map_or(0, Bytes::len) as u64;
        match left.checked_sub(read) {
            Some(less) => left = less,
            None => return,
        }
    }
}
