//! Reads and drops the rest of a request's body after an early response. Many clients write the whole body before they
//! read, and lose the response of a refused request if the connection is closed first (RFC 9112 section 9.6). The rest
//! is read within a bound of bytes and of time.

use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Request, Version};
use http_body::Body as _;
use http_body_util::combinators::Fuse;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

use super::connection_memory::Unauthenticated;
use super::headers::is_event_stream;
use super::peer::Peer;
use super::problem::Reply;
use super::router::Router;
use super::wakes::QuietBody;

/// The largest number of bytes of a body that are read and dropped.
const MOST: usize = 64 << 20;
/// The largest rest, in bytes, after which an HTTP/1 connection stays open. With a larger rest, or one of unknown size,
/// the response closes the connection.
const SMALL: u64 = 64 << 10;

/// Answers a request of `peer` with `router`. After the response, the unread rest of the request's body is read and
/// dropped, for at most `time`. The rest is left alone if the response is an event stream. `charge` is what the request
/// is charged for until it is authenticated; without that, until the response is dropped.
pub async fn answer(
    router: &Router,
    peer: &Peer,
    request: Request<Incoming>,
    charge: Unauthenticated,
    time: Duration,
) -> Reply {
    let (mut parts, body) = request.into_parts();
    let mut body = Fuse::new(QuietBody::new(body, parts.version));
    let mut reply = router.respond(peer, &mut parts, &charge, &mut body).await;
    if let Some(charge) = charge.take() {
        reply = reply.map(|body| body.hold(charge));
    }
    if body.is_end_stream() || is_event_stream(&reply) {
        return reply;
    }
    let is_small = body.size_hint().upper().is_some_and(|bytes| bytes <= SMALL);
    if parts.version <= Version::HTTP_11 && !is_small {
        reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let rest = Rest(Some((body, time)));
    match parts.version <= Version::HTTP_11 {
        true => reply.map(|body| body.hold(rest)),
        // The rest of the body must not wait in memory for a response that the client does not read.
        false => reply,
    }
}

/// The rest of a request's body, and the longest time for reading the rest. Reading begins when this value is dropped:
/// at once over HTTP/2, and with the body of the response over HTTP/1, where reading earlier would send "100 Continue"
/// to a client that waits for permission to send.
struct Rest(Option<(Fuse<QuietBody<Incoming>>, Duration)>);

impl Drop for Rest {
    fn drop(&mut self) {
        // The task ends with the connection, because the rest ends with the connection.
        if let (Some((rest, time)), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            let mut rest = Limited::new(rest, MOST);
            let read = async move { while let Some(Ok(_)) = rest.frame().await {} };
            runtime.spawn(async move { tokio::time::timeout(time, read).await });
        }
    }
}
