//! What waits for a child that is starting: in order, and counted, so that a client cannot fill the memory meanwhile.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::config::ChildLimits;
use crate::jsonrpc::{Envelope, Kind, RawId, parse};
use crate::stream::Exchange;
use crate::worker::{Failure, Orphan};

/// A message that waits.
#[derive(Debug, Clone)]
pub(super) struct Parked {
    /// Which one it is.
    pub(super) number: u64,
    pub(super) message: Bytes,
    pub(super) exchange: Arc<Exchange>,
    /// Since when children that take no more calls have refused it.
    pub(super) refused_since: Option<Instant>,
    /// How long it may wait, where it is a call.
    pub(super) timeout: Option<Duration>,
    since: Instant,
    /// Whether a child has ended just when it was about to take it.
    pub(super) was_tried: bool,
    /// The call that another child has crashed over: the tool, and what the call fails with if it is not sent again.
    pub(super) again: Option<(Arc<str>, Failure)>,
}

/// The messages that wait. The limits are those of the child: calls in flight, and bytes for its stdin.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    queue: VecDeque<Parked>,
    bytes: usize,
    next: u64,
    /// Whether somebody is sending what waits. Until they are done, nothing overtakes it.
    is_being_sent: bool,
}

/// The turn to send what waits. There is one at a time, and whoever has been told that nothing waits has it no more: from
/// then on another may send.
#[derive(Debug)]
pub(super) struct Turn(());

impl Parked {
    /// A child that takes no more calls has refused it: for how long that has been so.
    pub(super) fn refused_for(&mut self) -> Duration {
        self.refused_since.get_or_insert_with(Instant::now).elapsed()
    }

    fn id(&self) -> Option<RawId> {
        parse(&self.message).ok().filter(|envelope| envelope.kind == Kind::Request)?.raw_id()
    }

    /// What it fails with, where `failure` is why nothing became of it.
    pub(super) fn failure(&self, failure: Failure) -> Failure {
        self.again.as_ref().map_or(failure, |(_, own)| own.clone())
    }
}

impl Waiting {
    /// Whether what comes now has to wait its turn.
    pub(super) fn is_being_sent(&self) -> bool {
        self.is_being_sent
    }

    /// The turn to send, though nothing waits yet: what comes now waits until it is used.
    pub(super) fn hold(&mut self) -> Option<Turn> {
        let holds = !self.is_being_sent;
        self.is_being_sent = true;
        holds.then_some(Turn(()))
    }

    /// The turn to send, if somebody has to begin.
    pub(super) fn begin(&mut self) -> Option<Turn> {
        let begins = !self.is_being_sent && !self.queue.is_empty();
        self.is_being_sent |= begins;
        begins.then_some(Turn(()))
    }

    /// Takes one more message, if there is room (one may be larger when nothing else waits).
    pub(super) fn push(
        &mut self,
        message: Bytes,
        exchange: &Arc<Exchange>,
        timeout: Option<Duration>,
        limits: &ChildLimits,
    ) -> bool {
        if !self.has_room(message.len(), limits) {
            return false;
        }
        // A copy: the message may be a small part of a large body.
        let parked = self.park(Bytes::copy_from_slice(&message), Arc::clone(exchange), timeout, None);
        self.queue.push_back(parked);
        true
    }

    /// Takes calls that a child has crashed over, before all others; returns those that there is no room for. Each may wait
    /// as long as its tool may take.
    pub(super) fn push_again(
        &mut self,
        calls: Vec<Orphan>,
        timeout: impl Fn(&str) -> Duration,
        limits: &ChildLimits,
    ) -> Vec<Orphan> {
        let (mut refused, mut place) = (Vec::new(), 0);
        for call in calls {
            if !self.has_room(call.kept.message.len(), limits) {
                refused.push(call);
                continue;
            }
            let Orphan { kept, exchange, failure, .. } = call;
            let timeout = Some(timeout(&kept.tool));
            let parked = self.park(kept.message, exchange, timeout, Some((kept.tool, failure)));
            self.queue.insert(place, parked);
            place += 1;
        }
        refused
    }

    fn has_room(&self, len: usize, limits: &ChildLimits) -> bool {
        self.queue.is_empty() || (self.queue.len() < limits.max_in_flight && self.bytes + len <= limits.stdin_queue)
    }

    fn park(
        &mut self,
        message: Bytes,
        exchange: Arc<Exchange>,
        timeout: Option<Duration>,
        again: Option<(Arc<str>, Failure)>,
    ) -> Parked {
        self.bytes += message.len();
        self.next += 1;
        let since = Instant::now();
        Parked { number: self.next, message, exchange, timeout, since, refused_since: None, was_tried: false, again }
    }

    /// The first one, which stays. When there is none, the turn is over.
    pub(super) fn first(&mut self, turn: Turn) -> Option<(Turn, Parked)> {
        let first = self.queue.front().cloned();
        self.is_being_sent = first.is_some();
        first.map(|first| (turn, first))
    }

    /// Takes one out, unless it has been cancelled.
    pub(super) fn take(&mut self, number: u64) -> Option<Parked> {
        let place = self.queue.iter().position(|parked| parked.number == number)?;
        let parked = self.queue.remove(place)?;
        self.bytes -= parked.message.len();
        Some(parked)
    }

    /// Takes back one that no child took after all. What a child has crashed over meanwhile came before it.
    pub(super) fn put_back(&mut self, parked: Parked) {
        self.bytes += parked.message.len();
        let is_before = |other: &Parked| parked.again.is_none() && other.again.is_some();
        let place = self.queue.iter().take_while(|other| is_before(other)).count();
        self.queue.insert(place, parked);
    }

    /// Takes out the call that the client cancels: the latest, for clients that use one id for everything.
    pub(super) fn cancel(&mut self, cancelled: &Envelope<'_>) -> Option<Parked> {
        let id = cancelled_id(cancelled)?;
        let number = self.queue.iter().rev().find(|parked| parked.id().as_ref() == Some(&id))?.number;
        self.take(number)
    }

    /// Takes out the calls that have waited as long as they may.
    pub(super) fn take_overdue(&mut self) -> VecDeque<Parked> {
        let is_overdue = |parked: &Parked| parked.timeout.is_some_and(|timeout| parked.since.elapsed() >= timeout);
        let (overdue, queue): (VecDeque<_>, VecDeque<_>) = self.queue.drain(..).partition(is_overdue);
        self.queue = queue;
        self.bytes -= overdue.iter().map(|parked| parked.message.len()).sum::<usize>();
        overdue
    }

    /// The turn is over, and with it everything that waits.
    pub(super) fn end(&mut self, turn: Option<Turn>) -> Vec<Parked> {
        self.is_being_sent &= turn.is_none();
        self.take_all()
    }

    /// Takes all out.
    pub(super) fn take_all(&mut self) -> Vec<Parked> {
        self.bytes = 0;
        self.queue.drain(..).collect()
    }
}

impl Parked {
    /// The error response for it, if it is a request.
    pub(super) fn response(&self, failure: Failure) -> Option<Bytes> {
        Some(self.failure(failure).response(&self.id()?))
    }
}

/// The request that a `notifications/cancelled` is about.
fn cancelled_id(envelope: &Envelope<'_>) -> Option<RawId> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Cancelled<'a> {
        #[serde(borrow)]
        request_id: &'a serde_json::value::RawValue,
    }
    let cancelled = envelope.method.as_deref() == Some("notifications/cancelled");
    let params: Cancelled<'_> = serde_json::from_str(envelope.params.filter(|_| cancelled)?).ok()?;
    RawId::new(params.request_id.get())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::config::ServerName;
    use crate::stream::{Limits, Outbox};
    use crate::worker::Kept;

    const SECOND: Duration = Duration::from_secs(1);

    fn exchange() -> Arc<Exchange> {
        let (outbox, _) = Outbox::new(Limits { messages: 1, bytes: 1 });
        Arc::new(Exchange::of_request(outbox, 1))
    }

    fn message(id: u64) -> Bytes {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"x"}}"#).into()
    }

    fn orphan(id: u64) -> Orphan {
        let name: ServerName = "s".parse().unwrap();
        Orphan {
            kept: Kept { message: message(id), tool: "t".into() },
            id: RawId::new(&id.to_string()).unwrap(),
            exchange: exchange(),
            failure: Failure::stopped(&name),
        }
    }

    fn order(waiting: &mut Waiting) -> Vec<String> {
        waiting.take_all().iter().map(|parked| parked.id().unwrap().as_str().to_owned()).collect()
    }

    #[test]
    fn what_came_first_goes_first_and_what_a_child_crashed_over_before_it() {
        let (mut waiting, limits) = (Waiting::default(), ChildLimits::default());
        for id in [3, 4] {
            assert!(waiting.push(message(id), &exchange(), None, &limits));
        }
        let turn = waiting.begin().unwrap();
        assert!(waiting.begin().is_none(), "one sends, not two");
        assert!(waiting.push_again(vec![orphan(1), orphan(2)], |_| SECOND, &limits).is_empty());
        let (turn, first) = waiting.first(turn).unwrap();
        assert!(waiting.take(first.number).is_some() && waiting.take(first.number).is_none());
        assert!(waiting.is_being_sent(), "though it is out, nothing overtakes it");
        waiting.put_back(first);
        let cancelled: Bytes =
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":3}}"#.into();
        assert!(waiting.cancel(&parse(&cancelled).unwrap()).is_some());
        assert!(waiting.cancel(&parse(&cancelled).unwrap()).is_none());
        assert_eq!(order(&mut waiting), ["1", "2", "4"]);
        assert!(waiting.first(turn).is_none() && !waiting.is_being_sent());
        assert!(waiting.push(message(5), &exchange(), None, &limits));
        let turn = waiting.begin();
        assert!(turn.is_some(), "another sends: the first has no turn to look again with");
        assert!(waiting.hold().is_none(), "it has not sent yet");
        assert_eq!(waiting.end(turn).len(), 1);
        let turn = waiting.hold();
        assert!(turn.is_some() && waiting.is_being_sent() && waiting.begin().is_none(), "what comes now waits");
    }

    #[test]
    fn what_no_child_took_stays_behind_what_a_child_crashed_over_meanwhile() {
        let (mut waiting, limits) = (Waiting::default(), ChildLimits::default());
        for id in [3, 4] {
            waiting.push(message(id), &exchange(), None, &limits);
        }
        let turn = waiting.begin().unwrap();
        let (turn, first) = waiting.first(turn).unwrap();
        let first = waiting.take(first.number).unwrap();
        // The child that was to take it had two others in flight.
        assert!(waiting.push_again(vec![orphan(1), orphan(2)], |_| Duration::MAX, &limits).is_empty());
        waiting.put_back(first);
        let (_, again) = waiting.first(turn).unwrap();
        let again = waiting.take(again.number).unwrap();
        waiting.put_back(again);
        assert_eq!(order(&mut waiting), ["1", "2", "3", "4"]);
    }

    #[test]
    fn a_small_message_keeps_no_large_body() {
        let body = Bytes::from(vec![b' '; 1000]);
        let mut waiting = Waiting::default();
        assert!(waiting.push(body.slice(..10), &exchange(), None, &ChildLimits::default()));
        assert!(body.is_unique());
    }

    #[test]
    fn as_much_waits_as_would_fit_into_a_child() {
        let limits = ChildLimits { max_in_flight: 2, stdin_queue: 100, ..ChildLimits::default() };
        let mut waiting = Waiting::default();
        assert!(waiting.push(Bytes::from(vec![b'x'; 200]), &exchange(), None, &limits), "one may be larger");
        assert!(!waiting.push(message(1), &exchange(), None, &limits));
        assert_eq!(waiting.push_again(vec![orphan(1)], |_| SECOND, &limits).len(), 1);
        waiting.take_all();
        assert_eq!(waiting.push_again(vec![orphan(1), orphan(2), orphan(3)], |_| SECOND, &limits).len(), 1);
        assert_eq!(order(&mut waiting), ["1", "2"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_as_long_as_it_may_and_what_is_no_call_as_long_as_it_takes() {
        let (mut waiting, limits) = (Waiting::default(), ChildLimits::default());
        for (id, timeout) in [(1, Some(2 * SECOND)), (2, None), (3, Some(SECOND))] {
            assert!(waiting.push(message(id), &exchange(), timeout, &limits));
        }
        tokio::time::advance(SECOND / 2).await;
        assert!(waiting.take_overdue().is_empty());
        for expected in ["3", "1"] {
            tokio::time::advance(SECOND).await;
            let overdue = waiting.take_overdue();
            assert_eq!(overdue.front().unwrap().id().unwrap().as_str(), expected);
        }
        assert_eq!((waiting.bytes, order(&mut waiting)), (message(2).len(), vec!["2".to_owned()]));
    }
}
