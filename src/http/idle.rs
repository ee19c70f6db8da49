//! Detects idle HTTP/2 connections. hyper closes an HTTP/1 connection that sends no request in time, but keeps an HTTP/2
//! connection for as long as the peer answers pings.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::Version;

use super::problem::Reply;

/// Counts the requests of one connection. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Requests(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// The number of HTTP/2 requests whose response has not ended.
    open: AtomicUsize,
    /// The number of HTTP/2 requests that have begun.
    begun: AtomicU64,
    /// Whether the connection speaks HTTP/1.
    is_http1: AtomicBool,
}

impl Requests {
    /// Counts a request, which is open until the returned value is dropped. `None` on an HTTP/1 connection.
    pub fn begin(&self, version: Version) -> Option<Open> {
        if version <= Version::HTTP_11 {
            self.0.is_http1.store(true, Ordering::Relaxed);
            return None;
        }
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        self.0.open.fetch_add(1, Ordering::Relaxed);
        Some(Open(self.clone()))
    }

    /// Whether no request is open.
    pub fn are_over(&self) -> bool {
        self.0.open.load(Ordering::Relaxed) == 0
    }

    /// Waits until the connection has had no request for `time`. The wait may take up to twice that time.
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

/// A request whose response has not ended.
#[derive(Debug)]
pub struct Open(Requests);

impl Open {
    /// Keeps the request open until the body of `reply` is dropped.
    pub fn until_the_end_of(self, reply: Reply) -> Reply {
        reply.map(|body| body.hold(self))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
