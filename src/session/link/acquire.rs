//! A session's way to a child: the first one with `initialize`, and each that takes the place of one that is gone, which
//! hears what the first has heard. A live child never sees a second `initialize`.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use super::draining::MOST;
use super::handshake::{Done, Handshake};
use super::queue::Turn;
use super::restart::in_vain;
use crate::jsonrpc::{RawId, under_id};
use crate::pool::{Applicant, Granted};
use crate::session::session::{Session, State};
use crate::stream::Item;
use crate::telemetry::Cause;
use crate::worker::{DropGuard, Failure, InFlight, Lease, Peer, Refused, Route, Terms, Unsolicited, protocol_version};

type Outcome = Result<(Arc<Lease>, Bytes), Failure>;
/// A start that is under way: how it went, once that is known.
pub(in crate::session) type Starting = watch::Receiver<Option<Outcome>>;

/// The session's child, or the way to one.
#[derive(Default)]
pub(in crate::session) enum Slot {
    #[default]
    Empty,
    Starting(Starting),
    Live(Arc<Lease>),
}

impl Slot {
    /// The hold on a live child.
    pub(in crate::session) fn live(&self) -> Option<Arc<Lease>> {
        match self {
            Self::Live(lease) if lease.is_alive() => Some(Arc::clone(lease)),
            _ => None,
        }
    }

    /// Whether something is in flight, as `is_idle` says it, or a child is on its way.
    pub(in crate::session) fn is_busy(&self, is_idle: fn(&Lease) -> bool) -> bool {
        match self {
            Self::Live(lease) => lease.is_alive() && !is_idle(lease),
            Self::Starting(_) => true,
            Self::Empty => false,
        }
    }
}

impl Session {
    /// The client's `initialize` is on its way to the child that is `starting`: its answer, or the error in its place. What
    /// has come behind it and waits is then to be sent, or else has failed with it.
    pub(in crate::session) async fn initialize(
        &self,
        message: &Bytes,
        id: &RawId,
        starting: Starting,
        mut turn: Option<Turn>,
    ) -> (Bytes, Option<Turn>) {
        let outcome = self.started(starting).await;
        // Read before the lock is taken: that takes as long as the answer is large.
        let outcome = outcome.map(|(_, answer)| {
            let done = protocol_version(&answer).map(|version| Done::new(message.clone(), version, &answer));
            (done, answer)
        });
        let (response, failure) = match &outcome {
            Ok((Some(_), answer)) => (under_id(answer, id), None),
            Ok((None, answer)) => (under_id(answer, id), Some(Failure::refused_by_server(&self.server.name, answer))),
            Err(failure) => (failure.response(id), Some(failure.clone())),
        };
        let mut state = self.state.lock();
        state.handshake = match outcome {
            Ok((Some(done), _)) => Handshake::Done(Box::new(done)),
            // The server refused: the client may try again, with another child.
            Ok((None, _)) => {
                state.slot = Slot::Empty;
                Handshake::None
            }
            Err(_) => Handshake::None,
        };
        if let Some(failure) = failure {
            state.waiting.end(turn.take()).iter().for_each(|parked| self.fail(parked, failure.clone()));
        }
        (response, turn)
    }

    /// The hold on a child that takes calls; gets another if there is none. Whoever asks at the same time waits for the
    /// same child.
    pub(in crate::session) async fn lease(&self) -> Result<Arc<Lease>, Failure> {
        let starting = {
            let mut state = self.state.lock();
            let state = &mut *state;
            if self.ended.is_cancelled() {
                return Err(Failure::stopped(&self.server.name));
            }
            match (&state.slot, &mut state.handshake) {
                (Slot::Live(lease), _) if lease.worker().takes_calls() => return Ok(Arc::clone(lease)),
                (Slot::Starting(starting), _) => starting.clone(),
                (slot, Handshake::Done(done)) => {
                    state.in_vain = in_vain(slot, state.in_vain);
                    // What was agreed on goes with the child, as far as it goes already.
                    if let Slot::Live(lease) = slot {
                        done.terms = lease.terms();
                    }
                    let initialize = done.initialize.clone();
                    if let Slot::Live(lease) = std::mem::take(&mut state.slot) {
                        state.before.push(lease);
                    }
                    let starting = self.start(initialize, state.before.leaving());
                    state.slot = Slot::Starting(starting.clone());
                    // One that is still on its way out stays: let go of it before that, and its calls would fail as those
                    // of a session that is gone.
                    state.take_over();
                    starting
                }
                // The start that this waited for has failed, and the client has to begin anew.
                (_, Handshake::None | Handshake::Initializing) => return Err(Failure::refused(Refused::Ended)),
            }
        };
        self.started(starting).await.map(|(lease, _)| lease)
    }

    async fn started(&self, mut starting: Starting) -> Outcome {
        let outcome = tokio::select! {
            outcome = starting.wait_for(Option::is_some) => outcome.ok().and_then(|outcome| outcome.clone()),
            () = self.ended.cancelled() => None,
        };
        outcome.unwrap_or_else(|| Err(Failure::stopped(&self.server.name)))
    }

    /// Gets a child, which may inherit the capacity of those that it `replaces`.
    pub(in crate::session) fn start(&self, initialize: Bytes, replaces: Vec<Arc<Lease>>) -> Starting {
        let (outcome, starting) = watch::channel(None);
        if let Some(this) = self.this.upgrade() {
            self.surroundings.tasks.spawn(async move {
                let guard = DropGuard::new(|| {
                    let failed = Err(Failure::internal(&this.server.name));
                    this.settle(&failed);
                    outcome.send_replace(Some(failed));
                });
                // A session that ends meanwhile does not wait for a child that hangs.
                let started = tokio::select! {
                    started = this.acquire(initialize, replaces) => started,
                    () = this.ended.cancelled() => Err(Failure::stopped(&this.server.name)),
                };
                guard.disarm();
                this.settle(&started);
                outcome.send_replace(Some(started));
                // It may have ended before it was this session's, or not have come at all.
                this.see_to_child();
            });
        }
        starting
    }

    /// The way to a child is over.
    fn settle(&self, started: &Outcome) {
        let before: Vec<_> = {
            let mut state = self.state.lock();
            if started.is_err() && matches!(state.handshake, Handshake::Done(_)) {
                state.in_vain = state.in_vain.saturating_add(1);
            }
            // Looked at under the lock: a session that has ended takes no child any more, nor one that has given up on its
            // `initialize`.
            let takes_it = !self.ended.is_cancelled() && !matches!(state.handshake, Handshake::None);
            state.slot = match started {
                Ok((lease, _)) if takes_it => Slot::Live(Arc::clone(lease)),
                Ok(_) | Err(_) => Slot::Empty,
            };
            state.before.latest_first().filter(|_| started.is_ok()).cloned().collect()
        };
        before.iter().for_each(|lease| lease.leave_when_idle());
    }

    /// Waits until calls are in flight on few enough children that have been replaced.
    async fn until_few_before(&self) -> Result<(), Failure> {
        let few = async {
            while self.state.lock().before.busy(Lease::is_idle) > MOST {
                self.let_go.notified().await;
            }
        };
        let patience = self.server.pool.queue_timeout;
        tokio::time::timeout(patience, few).await.map_err(|_| Failure::refused(Refused::Busy))
    }

    /// Gets a child from the pool, and brings it to what was agreed on with the one before it.
    async fn acquire(&self, initialize: Bytes, replaces: Vec<Arc<Lease>>) -> Outcome {
        self.until_few_before().await?;
        let is_replay = matches!(self.state.lock().handshake, Handshake::Done(_));
        let peer: std::sync::Weak<dyn Peer> = self.this.clone();
        let applicant = Applicant {
            principal: self.principal.clone(),
            session: self.id.public(),
            initialize,
            is_replay,
            replaces,
            peer,
        };
        let Granted { lease, answer } = self.surroundings.pool.lease(&applicant).await?;
        if is_replay {
            let lists = self.check_again(&lease, &answer)?;
            let terms = self.terms().await;
            self.state.lock().told = Arc::downgrade(&lease);
            // As with any start: a child that answers slowly gets so much time for all of it.
            let end = Instant::now() + self.server.limits.start_timeout;
            let replay = lease.replay(&terms, end).await;
            // Others have had the calls that it takes, and nothing kept it: another child may do.
            let is_retired = lease.worker().is_retired();
            let replay =
                replay.map_err(|failure| if is_retired { Failure::refused(Refused::Ended) } else { failure })?;
            let ended = self.ended.clone();
            self.surroundings.tasks.spawn(async move {
                tokio::select! {
                    biased;
                    () = ended.cancelled() => {}
                    () = replay.finish() => {}
                }
            });
            self.tell_changed(lists);
            if Cause::info("another child, handshake replayed", self.server.name.to_string()).is_news(20) {
                tracing::info!(server = %self.server.name, session = %self.id.public(), "another child, handshake replayed");
            }
        }
        Ok((lease, answer))
    }

    /// Whether a child that takes the place of another may have this session: the client goes on to speak the version that was
    /// negotiated. The lists that the client was told to hear of when they change.
    fn check_again(&self, lease: &Lease, answer: &[u8]) -> Result<Vec<&'static str>, Failure> {
        let Some(version) = protocol_version(answer) else {
            return Err(lease.worker().failure().unwrap_or_else(|| Failure::refused_again(&self.server.name)));
        };
        match &self.state.lock().handshake {
            Handshake::Done(done) if done.version == version => Ok(done.lists.clone()),
            Handshake::Done(done) => Err(Failure::other_version(&self.server.name, &done.version, &version)),
            Handshake::None | Handshake::Initializing => Ok(Vec::new()),
        }
    }

    /// What was agreed on with the child before, for good: it agrees to nothing more, as that would be lost.
    async fn terms(&self) -> Terms {
        let before = self.state.lock().before.latest_first().next().cloned();
        let latest = match before {
            Some(before) => before.hand_over().await,
            None => None,
        };
        match &mut self.state.lock().handshake {
            Handshake::Done(done) => {
                latest.into_iter().for_each(|latest| done.terms = latest);
                done.terms.clone()
            }
            Handshake::None | Handshake::Initializing => Terms::default(),
        }
    }

    /// Tells the client of lists that may differ now. To find out whether they do would take as long as the child takes to
    /// tell them.
    fn tell_changed(&self, lists: Vec<&'static str>) {
        for list in lists {
            let text = format!(r#"{{"jsonrpc":"2.0","method":"notifications/{list}/list_changed"}}"#);
            let item = Item::notification(text.into());
            // Once is enough for a client that does not listen.
            let is_kept = self.state.lock().streams.keeps(&item.message);
            if !is_kept
                && let Route::Stream(outbox) = self.route(&item, Unsolicited::Announcement, &InFlight::default())
            {
                // A client that does not read misses a hint.
                let _ = outbox.push(item);
            }
        }
    }

    /// Lets go of children that nothing can come from any more.
    pub(in crate::session) fn forget_over(&self) {
        let over = self.state.lock().take_over();
        drop(over);
        self.let_go.notify_one();
    }
}

impl State {
    /// Takes out holds on children that nothing can come from any more. What was agreed on with the last of them stays.
    fn take_over(&mut self) -> Vec<Arc<Lease>> {
        let over = self.before.take_over();
        if let Handshake::Done(done) = &mut self.handshake {
            over.iter().filter_map(|lease| lease.hand_over_now()).for_each(|latest| done.terms = latest);
        }
        over
    }
}
