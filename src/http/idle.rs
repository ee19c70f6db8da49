//! Whether a connection of HTTP/2 has a request. hyper closes a connection of HTTP/1 that sends no request for too long; one of
//! HTTP/2 it keeps for as long as the peer answers pings.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use http::{Response, Version};

use super::held::Held;

/// The requests of one connection. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Requests(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Those whose answer is not over, with HTTP/2.
    open: AtomicUsize,
    /// All that have begun, with HTTP/2.
    begun: AtomicU64,
    /// Whether the connection is one of HTTP/1.
    is_http1: AtomicBool,
}

impl Requests {
    /// A request has come; it is open until what is returned is dropped.
    pub fn begin(&self, version: Version) -> Option<Open> {
        if version <= Version::HTTP_11 {
            self.0.is_http1.store(true, Ordering::Relaxed);
            return None;
        }
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        self.0.open.fetch_add(1, Ordering::Relaxed);
        Some(Open(self.clone()))
    }

    /// Whether each that has come is answered.
    pub fn are_over(&self) -> bool {
        self.0.open.load(Ordering::Relaxed) == 0
    }

    /// Ends when the connection has had no request for `time`, and for twice as long at most.
    pub async fn are_missing_for(&self, time: Duration) {
        let mut seen = None;
        loop {
            tokio::time::sleep(time).await;
            let begun = self.0.begun.load(Ordering::Relaxed);
            let is_idle = self.are_over() && !self.0.is_http1.load(Ordering::Relaxed);
            // A connection without any request has been idle from its beginning.
            if is_idle && (begun == 0 || seen == Some(begun)) {
                return;
            }
            seen = is_idle.then_some(begun);
        }
    }
}

/// A request whose answer is not over.
#[derive(Debug)]
pub struct Open(Requests);

impl Open {
    /// The request is open until the body of its answer is dropped.
    pub fn until_the_end_of(self, reply: Response<Body>) -> Response<Body> {
        reply.map(|body| Body::new(Held { body, _held: self }))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
