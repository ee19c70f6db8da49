//! What a session and its child have agreed on, so that a child that takes its place can be brought to the same.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::error::{Failure, Refused};
use super::handle::INITIALIZED;
use super::lease::Lease;
use super::lists::Lists;
use super::multiplexer::{Expired, Multiplexer, PeerId};
use crate::jsonrpc::parse;

/// How long a child may take over one thing that it is asked again. One that has not agreed by then is taken to refuse.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a child that is being replaced may take over what it has been asked for last.
const MOMENT: Duration = Duration::from_secs(10);
/// The pause before a child that was too busy is asked once more.
const PAUSE: Duration = Duration::from_millis(20);

/// What a session and its child have agreed on. A child that has refused something has not agreed.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// Whether the child has heard `notifications/initialized`.
    initialized: bool,
    /// The log level.
    level: Option<&'static str>,
    /// The URIs that are subscribed to.
    subscriptions: BTreeSet<String>,
    /// What its lists were like, as far as they were asked for.
    pub(super) lists: Lists,
}

impl Terms {
    /// What a session has of a child so far.
    pub(super) fn of(multiplexer: &Multiplexer, peer: PeerId, initialized: bool) -> Self {
        let (level, subscriptions) = multiplexer.granted(peer);
        Self { initialized, level, subscriptions, lists: multiplexer.lists() }
    }

    /// Whether the client waits to hear of resources.
    pub fn has_subscriptions(&self) -> bool {
        !self.subscriptions.is_empty()
    }

    /// Takes over those of a later child. What that one has not told of its lists is still known from those before.
    pub fn update(&mut self, later: Self) {
        let mut lists = std::mem::take(&mut self.lists);
        lists.update(&later.lists);
        *self = Self { lists, ..later };
    }

    /// What another child has to be asked, in this order: its method, and the request.
    pub(super) fn requests(&self) -> impl Iterator<Item = (&'static str, Bytes)> {
        let request = |method: &'static str, params: Value| {
            let text = json!({ "jsonrpc": "2.0", "id": method, "method": method, "params": params }).to_string();
            (method, Bytes::from(text))
        };
        let level = self.level.iter().map(move |level| request("logging/setLevel", json!({ "level": level })));
        let uris = self.subscriptions.iter();
        level.chain(uris.map(move |uri| request("resources/subscribe", json!({ "uri": uri }))))
    }
}

impl Lease {
    /// What the session has of the child so far.
    pub fn terms(&self) -> Terms {
        self.read_terms(&self.worker().shared().multiplexer.lock())
    }

    fn read_terms(&self, multiplexer: &Multiplexer) -> Terms {
        Terms::of(multiplexer, self.peer(), self.worker().is_initialized())
    }

    /// What the session has of the child, for another child: this one grants nothing more from now on, so that nothing is
    /// lost between the two. What it is being asked for has a moment to be answered. `None` if it has been handed over.
    pub async fn hand_over(&self) -> Option<Terms> {
        let end = Instant::now() + MOMENT;
        let is_wishing = || self.worker().shared().multiplexer.lock().is_wishing(self.peer());
        while self.is_alive() && Instant::now() < end && is_wishing() {
            sleep(PAUSE).await;
        }
        self.hand_over_now()
    }

    /// The same, at once.
    pub fn hand_over_now(&self) -> Option<Terms> {
        let shared = self.worker().shared();
        let mut terms = None;
        // In one go: what is granted is among the terms, or is not granted.
        let gone = shared.expire(|multiplexer| {
            if !multiplexer.grants(self.peer()) {
                return Expired::default();
            }
            terms = Some(self.read_terms(multiplexer));
            multiplexer.hand_over_wishes(self.peer(), Instant::now())
        });
        shared.give_up(gone, |_| Failure::refused(Refused::Ended));
        terms
    }

    /// Brings the child to what the session has agreed on with the one before it, until the `end`. Something that it refuses,
    /// or does not get to, is left, counted and logged: then the session is not quite what its client thinks.
    ///
    /// # Errors
    /// The child ends, or takes nothing in that time.
    pub async fn replay(&self, terms: &Terms, end: Instant) -> Result<(), Failure> {
        let patience = PATIENCE.min(self.worker().shared().server.limits.call_timeout);
        if terms.initialized {
            self.say_initialized(end).await?;
        }
        for (method, request) in terms.requests() {
            let is_late = Instant::now() >= end;
            let answer = match is_late {
                true => None,
                false => Some(self.insist(&request, patience, end).await?),
            };
            let is_granted = answer.as_ref().is_some_and(|answer| parse(answer).is_ok_and(|answer| !answer.is_error));
            if !is_granted {
                self.note_refusal(method, answer.as_deref());
            }
        }
        Ok(())
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

    /// Puts a request of the gateway's own, again and again for as long as the child is too busy for it.
    ///
    /// # Errors
    /// The child ends, or is too busy until the `end`.
    pub(super) async fn insist(&self, request: &[u8], patience: Duration, end: Instant) -> Result<Bytes, Failure> {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failure::refused(Refused::Busy));
            }
            match self.ask(request, patience.min(left)).await {
                Err(failure) if failure.is_busy() => sleep(PAUSE).await,
                outcome => return outcome,
            }
        }
    }

    fn note_refusal(&self, method: &'static str, answer: Option<&[u8]>) {
        let shared = self.worker().shared();
        shared.metrics.replay_refusals.inc();
        let answer: Option<Value> = answer.and_then(|answer| serde_json::from_slice(answer).ok());
        let code = answer.and_then(|answer| answer.pointer("/error/code")?.as_i64());
        let (server, tenant) = (&shared.origin.server, shared.origin.names().0);
        tracing::warn!(%tenant, %server, method, code, "another child refuses what the one before it has granted a session");
    }
}
