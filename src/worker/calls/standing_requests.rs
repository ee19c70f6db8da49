//! Session state that outlives a call: log level and subscriptions. Only what the child has accepted counts, and only that is
//! replayed to its successor.

use std::collections::BTreeSet;

use bytes::Bytes;
use tokio::time::Instant;

use super::call::Call;
use super::cancel::Expired;
use super::lease_id::LeaseId;
use super::numbers::Number;
use super::standing::{Standing, Told};
use super::subscriptions::Waiting;
use super::table::Multiplexer;
use crate::jsonrpc::quoted;
use crate::mcp::{Level, method};

impl Multiplexer {
    /// The child has answered a wish, which had this number: who else gets the same answer, and what the child has to hear
    /// because of it.
    pub(super) fn settle(
        &mut self,
        peer: LeaseId,
        wish: &Standing,
        number: Number,
        accepted: bool,
    ) -> (Vec<Waiting>, Option<Bytes>) {
        match wish {
            Standing::Level(level) => {
                if accepted {
                    self.grant_level(peer, *level, number.order);
                }
                self.level_over(number.wire, accepted);
            }
            Standing::Subscribe(uri) if self.is_shared => {
                let (waiting, is_unwanted) = self.subscribed(uri, accepted);
                return (waiting, is_unwanted.then(|| self.unsubscription(uri)));
            }
            Standing::Subscribe(uri) if accepted => self.subscriptions.remember(uri, peer),
            // On a shared child it was taken from the session at once, so that the next who subscribes is heard.
            Standing::Unsubscribe(uri) if self.is_shared && !accepted => self.subscriptions.hold(uri, peer),
            Standing::Unsubscribe(uri) if !self.is_shared && accepted => {
                self.subscriptions.unsubscribe(uri, peer);
            }
            Standing::Subscribe(_) | Standing::Unsubscribe(_) => {}
        }
        (Vec::new(), None)
    }

    /// The call with this number is not answered any more: whether the child does what it asks for, nobody knows.
    pub(super) fn unsettle(&mut self, number: u64, call: &Call, expired: &mut Expired) {
        self.level_over(number, false);
        if let Some(Standing::Subscribe(uri)) = call.wish.as_ref().filter(|_| self.is_shared) {
            expired.waiting.extend(self.subscribed(uri, false).0);
            if !self.subscriptions.is_held(uri) {
                // The child may have subscribed before it heard of the end.
                let frame = self.unsubscription(uri);
                expired.frames.push(frame);
            }
        }
    }

    /// The child will never hear, or never do, what the call with this number asks for. Who else waited for that.
    pub(super) fn unsay(&mut self, number: u64, call: &Call) -> Vec<Waiting> {
        self.level_over(number, false);
        match &call.wish {
            Some(Standing::Subscribe(uri)) => return self.subscribed(uri, false).0,
            Some(Standing::Unsubscribe(uri)) if self.is_shared => self.subscriptions.hold(uri, call.peer),
            Some(Standing::Unsubscribe(_) | Standing::Level(_)) | None => {}
        }
        Vec::new()
    }

    /// Whether a session can still be granted anything.
    pub(in crate::worker) fn grants(&self, peer: LeaseId) -> bool {
        self.peers.get(&peer).is_some_and(|state| !state.is_handed_over)
    }

    /// Whether a session has asked for something that lasts, and not been answered.
    #[cfg(test)]
    pub(in crate::worker) fn has_standing_request(&self, peer: LeaseId) -> bool {
        self.calls.values().any(|call| call.peer == peer && call.wish.is_some())
            || self.subscriptions.waiting().any(|waiting| waiting.peer == peer)
    }

    /// Whether the client of a session has asked for something that lasts, and not been answered.
    pub(in crate::worker) fn has_standing_request_of_client(&self, peer: LeaseId) -> bool {
        self.calls.values().any(|call| call.peer == peer && call.wish.is_some() && !call.is_own)
            || self.subscriptions.waiting().any(|waiting| waiting.peer == peer && !waiting.is_own)
    }

    /// Whether a session is subscribed to anything.
    pub(in crate::worker) fn is_subscribed(&self, peer: LeaseId) -> bool {
        self.subscriptions.has_any(peer)
    }

    /// What a session has of the child: its level, and what it is subscribed to. What it has asked to be rid of is among
    /// that until the child has agreed.
    pub(in crate::worker) fn granted(&self, peer: LeaseId) -> (Option<&'static str>, BTreeSet<String>) {
        let level = self.peers.get(&peer).and_then(|state| state.level).map(Level::as_str);
        let mut subscriptions = self.subscriptions.of(peer);
        subscriptions.extend(self.calls.values().filter(|call| call.peer == peer).filter_map(
            |call| match &call.wish {
                Some(Standing::Unsubscribe(uri)) if self.is_shared => Some(uri.clone()),
                _ => None,
            },
        ));
        (level, subscriptions)
    }

    /// Another child is asked for what a session has of this one: it gets no more of it, and what it is asking for now
    /// comes to nothing.
    pub(in crate::worker) fn hand_over(&mut self, peer: LeaseId, now: Instant) -> Expired {
        let mut gone = Expired::default();
        let Some(state) = self.peers.get_mut(&peer) else { return gone };
        state.is_handed_over = true;
        gone.waiting = self.subscriptions.withdraw(peer);
        gone.waiting.iter().for_each(|waiting| self.end(waiting.peer));
        let wishes = self.calls.iter().filter(|(_, call)| call.peer == peer && call.wish.is_some());
        for number in wishes.map(|(number, _)| *number).collect::<Vec<_>>() {
            if !self.bequeath(number, &mut gone) {
                self.give_up(number, "another server has taken over", now, &mut gone);
            }
        }
        gone
    }

    /// The loudest level that a session has or has asked for, but for this one.
    pub(super) fn loudest(&self, but: Option<LeaseId>) -> Option<Level> {
        let have = self.peers.iter().map(|(peer, state)| (*peer, state.level));
        let wanted = self.calls.values().map(|call| match call.wish {
            Some(Standing::Level(level)) => (call.peer, Some(level)),
            _ => (call.peer, None),
        });
        have.chain(wanted).filter(|(peer, _)| Some(*peer) != but).filter_map(|(_, level)| level).min()
    }

    /// The child has taken a level of a session, by the how-manyth request.
    pub(super) fn grant_level(&mut self, peer: LeaseId, level: Level, by: u64) {
        if let Some(state) = self.peers.get_mut(&peer).filter(|state| state.by <= by) {
            (state.level, state.by) = (Some(level), by);
        }
    }

    /// The request with this number is over: the child has done it, or nobody can tell. Then whoever wants the same next
    /// tells it again.
    pub(super) fn level_over(&mut self, number: u64, is_done: bool) {
        if let Some(told) = self.told.filter(|told| told.by == number) {
            self.told = is_done.then_some(Told { is_done, ..told });
        }
    }

    /// The frame that tells the child of another loudest level, if there is one.
    pub(super) fn relevel(&mut self) -> Option<Bytes> {
        let loudest = self.loudest(None)?;
        if self.told.is_some_and(|told| told.level == loudest) {
            return None;
        }
        let (number, frame) = self.own_request(method::LOGGING_SET_LEVEL, &level_params(loudest));
        self.told = Some(Told { level: loudest, by: number.wire, is_done: false });
        Some(frame)
    }

    pub(super) fn unsubscription(&mut self, uri: &str) -> Bytes {
        self.own_request(method::RESOURCES_UNSUBSCRIBE, &format!(r#"{{"uri":{}}}"#, quoted(uri))).1
    }
}

/// The params that tell a child of a level.
pub(super) fn level_params(level: Level) -> String {
    format!(r#"{{"level":"{}"}}"#, level.as_str())
}
