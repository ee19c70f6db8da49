//! Brings a child to what a session has agreed on with the child before it.
//!
//! Invariant: no call waits for a replayed request. The requests are queued before the session's next call, as far as
//! there is room. The rest follows when there is room, unless the client has set the same anew by then.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use super::calls::{Expired, Multiplexer, Refused, Standing};
use super::{Failure, Lease, Negotiated};
use crate::config::Resend;
use crate::jsonrpc::{member, parse, quoted, text};
use crate::mcp::INITIALIZED;
use crate::stream::Cursor;
use crate::telemetry::Cause;

/// The time-out of one replayed request. A request without an answer by then counts as refused.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a child that is replaced may take to answer its last standing requests.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause before a child that was too busy is asked once more.
const PAUSE: Duration = Duration::from_millis(20);
/// The most replayed requests that are in flight together.
const AT_ONCE: usize = 64;
/// The most pages of `tools/list` that a child is asked for.
const PAGES: usize = 16;
/// A child that does not list its tools in this time gets no call again.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);

impl Lease {
    /// Whether a call of a tool may be sent to this child, though another may have run the call. The hints must come
    /// from this child: a child that has not listed its tools is asked for the list.
    pub async fn takes_again(&self, resend: Resend, tool: &str) -> bool {
        let known = || self.worker().shared().hints.lock().allow(resend, tool);
        let mut cursor = None;
        for _ in 0..PAGES {
            if let Some(allowed) = known() {
                return allowed;
            }
            let params =
                cursor.map_or("{}".to_owned(), |cursor: String| format!(r#"{{"cursor":{}}}"#, quoted(&cursor)));
            let request = format!(r#"{{"jsonrpc":"2.0","id":"tools","method":"tools/list","params":{params}}}"#);
            // The reader notes the hints before the answer comes here.
            let Ok(Ok(answer)) = timeout(LIST_TIMEOUT, self.ask(request.as_bytes(), LIST_TIMEOUT)).await else { break };
            let result = parse(&answer).ok().and_then(|envelope| envelope.result);
            cursor = result.and_then(|result| Some(text(member(result, "nextCursor")?)?.into_owned()));
            if cursor.is_none() {
                break;
            }
        }
        known() == Some(true)
    }

    /// What the session and the child have agreed on so far, with what the child is still asked for.
    pub fn negotiated(&self) -> Negotiated {
        self.read_negotiated(&self.worker().shared().multiplexer.lock())
    }

    /// Whether the session is subscribed to a resource, or the child is still asked to subscribe it.
    pub fn has_subscriptions(&self) -> bool {
        self.negotiated().has_subscriptions()
    }

    fn read_negotiated(&self, multiplexer: &Multiplexer) -> Negotiated {
        let mut negotiated = Negotiated::of(multiplexer, self.peer(), self.worker().is_initialized());
        let has_level = negotiated.granted.iter().any(Standing::is_level);
        let owed = self.owed().lock();
        negotiated.granted.extend(owed.iter().filter(|owed| !(has_level && owed.is_level())).cloned());
        negotiated
    }

    /// Takes what the session and the child have agreed on, for another child. From then on this child grants nothing
    /// more, so that nothing is lost between the two. Waits before, for 10 s at most, for standing requests of the
    /// client in flight. `None` if that was done before.
    pub async fn hand_over(&self) -> Option<Negotiated> {
        let end = Instant::now() + HANDOVER_TIMEOUT;
        let has_standing_request =
            || self.worker().shared().multiplexer.lock().sharing.has_standing_request(self.peer(), true);
        while self.is_alive() && Instant::now() < end && has_standing_request() {
            sleep(PAUSE).await;
        }
        self.hand_over_now()
    }

    /// Does the same as [`Self::hand_over`] without waiting: standing requests in flight fail.
    pub fn hand_over_now(&self) -> Option<Negotiated> {
        let shared = self.worker().shared();
        let mut negotiated = None;
        // Under one lock: a request is granted before and counts, or fails.
        let gone = shared.expire(|multiplexer| {
            if !multiplexer.grants(self.peer()) {
                return Expired::default();
            }
            negotiated = Some(self.read_negotiated(multiplexer));
            multiplexer.hand_over(self.peer(), Instant::now())
        });
        shared.give_up(gone, |_| Failure::refused(Refused::Ended));
        negotiated
    }

    /// Begins to bring the child to what the session has agreed on with the child before. On return, as many requests
    /// as there is room for are queued: what the session sends next comes behind them. [`Replay::finish`] sends the
    /// rest.
    ///
    /// # Errors
    /// The child ends, or has no room for `notifications/initialized` until `end`.
    pub async fn replay(self: &Arc<Self>, negotiated: &Negotiated, end: Instant) -> Result<Replay, Failure> {
        loop {
            if !negotiated.initialized {
                break;
            }
            match self.worker().shared().say_initialized(Bytes::from_static(INITIALIZED)) {
                Ok(()) => break,
                Err(Refused::Busy) if Instant::now() < end => sleep(PAUSE).await,
                Err(refused) => return Err(self.failed(refused).await),
            }
        }
        *self.owed().lock() = negotiated.granted.clone();
        let (requests, asked) = (negotiated.granted.iter().cloned().collect(), VecDeque::new());
        let mut replay = Replay { lease: Arc::clone(self), requests, asked, end };
        match replay.ask_more() {
            Ok(()) => Ok(replay),
            Err(refused) => Err(self.failed(refused).await),
        }
    }
}

/// The replay of a session's state to a child.
pub struct Replay {
    lease: Arc<Lease>,
    /// The requests that are not sent yet.
    requests: VecDeque<Standing>,
    /// The requests in flight, and where the answer to each comes.
    asked: VecDeque<(Standing, Cursor)>,
    /// When the replay is given up.
    end: Instant,
}

impl Replay {
    /// Sends the rest, and waits for the answers. A request that the child refuses, or does not answer in time, is
    /// counted and logged; the session goes on without that state. If the child ends, or the session is handed over,
    /// the rest is left to the next child.
    pub async fn finish(mut self) {
        loop {
            if let Some((standing, answers)) = self.asked.pop_front() {
                let Ok(answer) = self.lease.answer_to(answers).await else { return };
                let envelope = parse(&answer).ok();
                if envelope.as_ref().is_some_and(|envelope| !envelope.is_error) {
                    self.lease.owed().lock().remove(&standing);
                } else if self.lease.worker().shared().multiplexer.lock().grants(self.lease.peer()) {
                    self.refused(&standing, envelope.and_then(|envelope| envelope.error_code()));
                } else {
                    return;
                }
            } else if self.requests.is_empty() {
                return;
            } else if Instant::now() >= self.end {
                return self.requests.iter().for_each(|standing| self.refused(standing, None));
            } else {
                sleep(PAUSE).await;
            }
            if self.ask_more().is_err() {
                return;
            }
        }
    }

    /// Counts and logs a refusal, unless the client has set the same anew meanwhile.
    fn refused(&self, standing: &Standing, code: Option<i64>) {
        if !self.lease.owed().lock().remove(standing) {
            return;
        }
        let shared = self.lease.worker().shared();
        shared.metrics.replay_refusals.inc();
        let (server, tenant, method) = (&shared.origin.server, shared.origin.names().0, standing.method());
        if Cause::new("another child refuses what a session was granted", server.to_string()).is_news(20) {
            tracing::warn!(%tenant, %server, method, code, "another child refuses what the one before it has granted a session");
        }
    }

    /// Sends as many requests as there is room for.
    fn ask_more(&mut self) -> Result<(), Refused> {
        let timeout = REPLAY_TIMEOUT.min(self.lease.worker().shared().server.limits.call_timeout);
        while self.asked.len() < AT_ONCE
            && let Some(standing) = self.requests.front()
        {
            let left = self.end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let is_owed = || self.lease.owed().lock().contains(standing);
            let answers = match self.lease.put_own(&standing.request(), timeout.min(left), is_owed) {
                Ok(answers) => answers,
                Err(refused) if refused.is_busy() => return Ok(()),
                Err(refused) => return Err(refused),
            };
            let standing = self.requests.pop_front();
            self.asked.extend(standing.zip(answers));
        }
        Ok(())
    }
}
