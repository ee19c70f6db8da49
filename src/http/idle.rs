//! Detects idle HTTP/2 connections. hyper closes an HTTP/1 connection that sends no request in time, but keeps an
//! HTTP/2 connection for as long as the peer answers pings.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::Version;

/// Counts the requests of one connection.
#[derive(Debug, Default)]
pub struct Requests {
    /// The number of HTTP/2 requests whose response has not ended. Always 1 after the first request of HTTP/1.
    open: AtomicUsize,
    /// The number of HTTP/2 requests that have begun.
    begun: AtomicU64,
}

impl Requests {
    /// Counts an HTTP/2 request, which is open until the returned value is dropped. A request of HTTP/1 returns `None`,
    /// and makes the connection count as in use for good.
    pub fn begin(self: &Arc<Self>, version: Version) -> Option<Open> {
        if version <= Version::HTTP_11 {
            self.open.store(1, Ordering::Relaxed);
            return None;
        }
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Some(Open(Arc::clone(self)))
    }

    /// Whether no request is open. `false` on a connection that has had a request of HTTP/1.
    pub fn are_over(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0
    }

    /// Waits until the connection has had no open request for `time`, which is noticed after up to twice that time.
    /// Never ends on a connection that has had a request of HTTP/1.
    pub async fn are_missing_for(&self, time: Duration) {
        let mut seen = None;
        loop {
            tokio::time::sleep(time).await;
            let begun = self.begun.load(Ordering::Relaxed);
            let is_idle = self.are_over();
            // A connection without any request has been idle from its beginning.
            if is_idle && (begun == 0 || seen == Some(begun)) {
                return;
            }
            seen = is_idle.then_some(begun);
        }
    }
}

/// An HTTP/2 request whose response has not ended. Dropping the value ends the request.
#[derive(Debug)]
pub struct Open(Arc<Requests>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
