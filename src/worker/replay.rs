//! What a session and its child have agreed on, so that a child that takes its place can be brought to the same.
//!
//! Invariant: nobody waits for what a child is asked again. It stands before the session's next call on stdin, as far as there
//! is room; the rest follows as soon as there is, unless the client has said something else of it by then.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::calls::{Expired, Multiplexer, Refused, Standing};
use super::error::Failure;
use super::lease::{Answering, Lease};
use super::negotiated::Negotiated;
use crate::jsonrpc::parse;
use crate::mcp::INITIALIZED;
use crate::telemetry::Cause;

/// How long a child may take over one thing that it is asked again. One that has not agreed by then is taken to refuse.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a child that is being replaced may take over what it has been asked for last.
const MOMENT: Duration = Duration::from_secs(10);
/// The pause before a child that was too busy is asked once more.
const PAUSE: Duration = Duration::from_millis(20);
/// Things that a child is asked again at the same time.
const AT_ONCE: usize = 64;

impl Lease {
    /// What the session has of the child so far.
    pub fn negotiated(&self) -> Negotiated {
        self.read_negotiated(&self.worker().shared().multiplexer.lock())
    }

    /// Whether the client waits to hear of resources.
    pub fn has_subscriptions(&self) -> bool {
        self.owed().lock().iter().any(Standing::is_subscription)
            || self.worker().shared().multiplexer.lock().sharing.is_subscribed(self.peer())
    }

    fn read_negotiated(&self, multiplexer: &Multiplexer) -> Negotiated {
        let mut negotiated = Negotiated::of(multiplexer, self.peer(), self.worker().is_initialized());
        let owed = self.owed().lock();
        let has_level = negotiated.granted.iter().any(Standing::is_level);
        negotiated.granted.extend(owed.iter().filter(|owed| !(has_level && owed.is_level())).cloned());
        negotiated
    }

    /// What the session has of the child, for another child: this one grants nothing more from now on, so that nothing is
    /// lost between the two. What it is being asked for has a moment to be answered. `None` if it has been handed over.
    pub async fn hand_over(&self) -> Option<Negotiated> {
        let end = Instant::now() + MOMENT;
        let has_standing_request =
            || self.worker().shared().multiplexer.lock().sharing.has_standing_request(self.peer(), true);
        while self.is_alive() && Instant::now() < end && has_standing_request() {
            sleep(PAUSE).await;
        }
        self.hand_over_now()
    }

    /// The same, at once.
    pub fn hand_over_now(&self) -> Option<Negotiated> {
        let shared = self.worker().shared();
        let mut negotiated = None;
        // In one go: what is granted is part of the negotiated state, or is not granted.
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

    /// Begins to bring the child to what the session has agreed on with the one before it. When this returns, as much of it
    /// stands in the queue for the child as there is room for: what the session says next comes behind it.
    ///
    /// # Errors
    /// The child ends, or does not even take `notifications/initialized` until the `end`.
    pub async fn replay(self: &Arc<Self>, negotiated: &Negotiated, end: Instant) -> Result<Replay, Failure> {
        if negotiated.initialized {
            self.say_initialized(end).await?;
        }
        *self.owed().lock() = negotiated.granted.clone();
        let (requests, asked) = (negotiated.granted.iter().cloned().collect(), VecDeque::new());
        let mut replay = Replay { lease: Arc::clone(self), requests, asked, end };
        match replay.ask_more() {
            Ok(()) => Ok(replay),
            Err(refused) => Err(self.failed(refused).await),
        }
    }

    async fn say_initialized(&self, end: Instant) -> Result<(), Failure> {
        loop {
            match self.worker().shared().say_initialized(Bytes::from_static(INITIALIZED)) {
                Ok(()) => return Ok(()),
                Err(Refused::Busy) if Instant::now() < end => sleep(PAUSE).await,
                Err(refused) => return Err(self.failed(refused).await),
            }
        }
    }

    fn note_refusal(&self, method: &'static str, answer: Option<&[u8]>) {
        let shared = self.worker().shared();
        shared.metrics.replay_refusals.inc();
        let code =
            answer.and_then(|answer| serde_json::from_slice::<Refusal>(answer).ok()).map(|refusal| refusal.error.code);
        let (server, tenant) = (&shared.origin.server, shared.origin.names().0);
        if Cause::new("another child refuses what a session was granted", server.to_string()).is_news(20) {
            tracing::warn!(%tenant, %server, method, code, "another child refuses what the one before it has granted a session");
        }
    }
}

#[derive(Deserialize)]
struct Refusal {
    error: ErrorCode,
}

#[derive(Deserialize)]
struct ErrorCode {
    code: i64,
}

/// What a child is being asked again for a session.
pub struct Replay {
    lease: Arc<Lease>,
    /// What it has not been asked yet.
    requests: VecDeque<Standing>,
    /// What it has been asked, and not answered as far as is known.
    asked: VecDeque<(Standing, Answering)>,
    end: Instant,
}

impl Replay {
    /// Asks for the rest, and waits for the answers. What the child refuses, or does not get to until the end, is left,
    /// counted and logged: then the session is not quite what its client thinks. A child that ends leaves it to the next.
    pub async fn finish(mut self) {
        while !self.asked.is_empty() || !self.requests.is_empty() {
            let Some((standing, answering)) = self.asked.pop_front() else {
                if Instant::now() >= self.end {
                    return std::mem::take(&mut self.requests).iter().for_each(|standing| self.refused(standing, None));
                }
                sleep(PAUSE).await;
                if self.ask_more().is_err() {
                    return;
                }
                continue;
            };
            let Ok(answer) = self.lease.answer_to(answering).await else { return };
            if parse(&answer).is_ok_and(|answer| !answer.is_error) {
                self.lease.owed().lock().remove(&standing);
            } else if self.lease.worker().shared().multiplexer.lock().grants(self.lease.peer()) {
                self.refused(&standing, Some(&answer));
            } else {
                // The next child is asked for it.
                return;
            }
            if self.ask_more().is_err() {
                return;
            }
        }
    }

    fn refused(&self, standing: &Standing, answer: Option<&[u8]>) {
        if self.lease.owed().lock().remove(standing) {
            self.lease.note_refusal(standing.method(), answer);
        }
    }

    /// Asks for as much as there is room for.
    fn ask_more(&mut self) -> Result<(), Refused> {
        let patience = PATIENCE.min(self.lease.worker().shared().server.limits.call_timeout);
        while self.asked.len() < AT_ONCE
            && let Some(standing) = self.requests.front()
        {
            let left = self.end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let is_owed = || self.lease.owed().lock().contains(standing);
            let answering = match self.lease.put_own(standing.request(), patience.min(left), is_owed) {
                Ok(answering) => answering,
                Err(refused) if refused.is_busy() => return Ok(()),
                Err(refused) => return Err(refused),
            };
            let standing = self.requests.pop_front();
            self.asked.extend(standing.zip(answering));
        }
        Ok(())
    }
}
