//! What waits for a child that is starting: in order, and counted, so that a client cannot fill the memory meanwhile.
//!
//! Invariant: what waits was read when it came, and never again under a lock. To find or to take one message costs nothing
//! that grows with the bytes that wait.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::config::ChildLimits;
use crate::jsonrpc::{Envelope, Kind, RawId};
use crate::stream::Exchange;
use crate::worker::{Failure, Orphan};

/// The longest id of a request that waits, in bytes. A child would not get it either.
pub(in crate::session) const ID: usize = 1024;

/// Where a message waits: those that a child has crashed over come first, and else the order is that of their coming.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::session) struct Place {
    is_first_time: bool,
    number: u64,
}

/// A message that waits.
#[derive(Debug, Clone)]
pub(in crate::session) struct Parked {
    /// Which one it is.
    pub(in crate::session) place: Place,
    pub(in crate::session) message: Bytes,
    /// The id of a request.
    id: Option<RawId>,
    pub(in crate::session) exchange: Arc<Exchange>,
    /// Since when children that take no more calls have refused it.
    pub(in crate::session) refused_since: Option<Instant>,
    /// How long it may wait, where it is a call.
    pub(in crate::session) timeout: Option<Duration>,
    since: Instant,
    /// Whether a child has ended just when it was about to take it.
    pub(in crate::session) was_tried: bool,
    /// The call that another child has crashed over: the tool, and what the call fails with if it is not sent again.
    pub(in crate::session) again: Option<(Arc<str>, Failure)>,
}

/// The messages that wait. The limits are those of the child: calls in flight, and bytes for its stdin.
#[derive(Debug, Default)]
pub(in crate::session) struct Waiting {
    queue: BTreeMap<Place, Parked>,
    /// Where the requests with an id wait.
    by_id: HashMap<RawId, BTreeSet<Place>>,
    bytes: usize,
    next: u64,
    /// Whether somebody is sending what waits. Until they are done, nothing overtakes it.
    is_being_sent: bool,
}

/// The turn to send what waits. There is one at a time, and whoever has been told that nothing waits has it no more: from
/// then on another may send.
#[derive(Debug)]
pub(in crate::session) struct Turn(());

impl Parked {
    /// A child that takes no more calls has refused it: for how long that has been so.
    pub(in crate::session) fn refused_for(&mut self) -> Duration {
        self.refused_since.get_or_insert_with(Instant::now).elapsed()
    }

    /// The error response for it, if it is a request.
    pub(in crate::session) fn response(&self, failure: Failure) -> Option<Bytes> {
        Some(self.failure(failure).response(self.id.as_ref()?))
    }

    /// What it fails with, where `failure` is why nothing became of it.
    fn failure(&self, failure: Failure) -> Failure {
        self.again.as_ref().map_or(failure, |(_, own)| own.clone())
    }
}

impl Waiting {
    /// Whether what comes now has to wait its turn.
    pub(in crate::session) fn is_being_sent(&self) -> bool {
        self.is_being_sent
    }

    /// The turn to send, though nothing waits yet: what comes now waits until it is used.
    pub(in crate::session) fn hold(&mut self) -> Option<Turn> {
        let holds = !self.is_being_sent;
        self.is_being_sent = true;
        holds.then_some(Turn(()))
    }

    /// The turn to send, if somebody has to begin.
    pub(in crate::session) fn begin(&mut self) -> Option<Turn> {
        let begins = !self.is_being_sent && !self.queue.is_empty();
        self.is_being_sent |= begins;
        begins.then_some(Turn(()))
    }

    /// Takes one more message, with the `id` of a request, if there is room (one may be larger when nothing else waits).
    pub(in crate::session) fn push(
        &mut self,
        message: Bytes,
        id: Option<RawId>,
        exchange: &Arc<Exchange>,
        timeout: Option<Duration>,
        limits: &ChildLimits,
    ) -> bool {
        if !self.has_room(message.len(), limits) {
            return false;
        }
        self.park(message, id, Arc::clone(exchange), timeout, None);
        true
    }

    /// Takes calls that a child has crashed over, before all that no child has had; returns those that there is no room for.
    /// Each may wait as long as its tool may take.
    pub(in crate::session) fn push_again(
        &mut self,
        calls: Vec<Orphan>,
        timeout: impl Fn(&str) -> Duration,
        limits: &ChildLimits,
    ) -> Vec<Orphan> {
        let mut refused = Vec::new();
        for call in calls {
            if !self.has_room(call.kept.message.len(), limits) {
                refused.push(call);
                continue;
            }
            let Orphan { kept, id, exchange, failure } = call;
            let timeout = Some(timeout(&kept.tool));
            self.park(kept.message, Some(id), exchange, timeout, Some((kept.tool, failure)));
        }
        refused
    }

    fn has_room(&self, len: usize, limits: &ChildLimits) -> bool {
        self.queue.is_empty() || (self.queue.len() < limits.max_in_flight && self.bytes + len <= limits.stdin_queue)
    }

    fn park(
        &mut self,
        message: Bytes,
        id: Option<RawId>,
        exchange: Arc<Exchange>,
        timeout: Option<Duration>,
        again: Option<(Arc<str>, Failure)>,
    ) {
        self.next += 1;
        let place = Place { is_first_time: again.is_none(), number: self.next };
        let since = Instant::now();
        self.put_back(Parked {
            place,
            message,
            id,
            exchange,
            timeout,
            since,
            refused_since: None,
            was_tried: false,
            again,
        });
    }

    /// The first one, which stays; and its tool, where a child has crashed over it. When there is none, the turn is over.
    pub(in crate::session) fn first(&mut self, turn: Turn) -> Option<(Turn, Place, Option<Arc<str>>)> {
        let first = self.queue.first_key_value();
        self.is_being_sent = first.is_some();
        first.map(|(place, parked)| (turn, *place, parked.again.as_ref().map(|(tool, _)| Arc::clone(tool))))
    }

    /// Takes one out, unless it has been cancelled.
    pub(in crate::session) fn take(&mut self, place: Place) -> Option<Parked> {
        let parked = self.queue.remove(&place)?;
        self.bytes -= parked.message.len();
        if let Some(id) = &parked.id
            && let Some(places) = self.by_id.get_mut(id)
        {
            places.remove(&place);
            if places.is_empty() {
                self.by_id.remove(id);
            }
        }
        Some(parked)
    }

    /// Takes back one that no child took after all: into its place.
    pub(in crate::session) fn put_back(&mut self, parked: Parked) {
        self.bytes += parked.message.len();
        if let Some(id) = &parked.id {
            self.by_id.entry(id.clone()).or_default().insert(parked.place);
        }
        self.queue.insert(parked.place, parked);
    }

    /// Takes out the call that the client cancels: the latest, for clients that use one id for everything.
    pub(in crate::session) fn cancel(&mut self, id: &RawId) -> Option<Parked> {
        let place = *self.by_id.get(id)?.last()?;
        self.take(place)
    }

    /// Takes out the calls that have waited as long as they may.
    pub(in crate::session) fn take_overdue(&mut self) -> Vec<Parked> {
        let is_overdue = |parked: &Parked| parked.timeout.is_some_and(|timeout| parked.since.elapsed() >= timeout);
        let overdue: Vec<Place> =
            self.queue.values().filter(|parked| is_overdue(parked)).map(|parked| parked.place).collect();
        overdue.into_iter().filter_map(|place| self.take(place)).collect()
    }

    /// Whoever had the turn is gone without a word: the turn is over, and everything that waits.
    pub(in crate::session) fn abandon(&mut self) -> Vec<Parked> {
        self.is_being_sent = false;
        self.take_all()
    }

    /// The turn is over, and with it everything that waits.
    pub(in crate::session) fn end(&mut self, turn: Option<Turn>) -> Vec<Parked> {
        self.is_being_sent &= turn.is_none();
        self.take_all()
    }

    /// Takes all out.
    pub(in crate::session) fn take_all(&mut self) -> Vec<Parked> {
        self.bytes = 0;
        self.by_id.clear();
        std::mem::take(&mut self.queue).into_values().collect()
    }
}

/// What a message of the client cancels.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::session) enum Cancels {
    /// It is no `notifications/cancelled`.
    No,
    /// A request with this id.
    Request(RawId),
    /// No request can have such an id.
    Nothing,
}

impl Cancels {
    pub(in crate::session) fn read(envelope: &Envelope<'_>) -> Self {
        if envelope.kind != Kind::Notification || envelope.method.as_deref() != Some("notifications/cancelled") {
            return Self::No;
        }
        // As for a call that is in flight: one that servers read in two ways cancels nothing.
        let id = envelope.members.request_id.filter(|id| id.len() <= ID && envelope.ambiguity().is_none());
        id.and_then(RawId::new).map_or(Self::Nothing, Self::Request)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::config::ServerName;
    use crate::jsonrpc::parse;
    use crate::stream::{Budget, Outbox};
    use crate::worker::Kept;

    const SECOND: Duration = Duration::from_secs(1);

    fn exchange() -> Arc<Exchange> {
        let (outbox, _) = Outbox::new(Budget { messages: 1, bytes: 1 });
        Arc::new(Exchange::of_request(outbox, 1))
    }

    fn message(id: u64) -> Bytes {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"x"}}"#).into()
    }

    fn id(id: u64) -> Option<RawId> {
        Some(RawId::from(id))
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
        waiting.take_all().iter().map(|parked| parked.id.as_ref().unwrap().as_str().to_owned()).collect()
    }

    #[test]
    fn what_came_first_goes_first_and_what_a_child_crashed_over_before_it() {
        let (mut waiting, limits) = (Waiting::default(), ChildLimits::default());
        for number in [3, 4] {
            assert!(waiting.push(message(number), id(number), &exchange(), None, &limits));
        }
        let turn = waiting.begin().unwrap();
        assert!(waiting.begin().is_none(), "one sends, not two");
        assert!(waiting.push_again(vec![orphan(1), orphan(2)], |_| SECOND, &limits).is_empty());
        let (turn, place, tool) = waiting.first(turn).unwrap();
        assert_eq!(tool.as_deref(), Some("t"));
        let first = waiting.take(place).unwrap();
        assert!(waiting.take(place).is_none());
        assert!(waiting.is_being_sent(), "though it is out, nothing overtakes it");
        waiting.put_back(first);
        let cancelled = br#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":3}}"#;
        let Cancels::Request(cancelled) = Cancels::read(&parse(cancelled).unwrap()) else { unreachable!() };
        assert!(waiting.cancel(&cancelled).is_some());
        assert!(waiting.cancel(&cancelled).is_none());
        assert_eq!(order(&mut waiting), ["1", "2", "4"]);
        assert!(waiting.first(turn).is_none() && !waiting.is_being_sent());
        assert!(waiting.push(message(5), id(5), &exchange(), None, &limits));
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
        for number in [3, 4] {
            waiting.push(message(number), id(number), &exchange(), None, &limits);
        }
        let turn = waiting.begin().unwrap();
        let (turn, place, _) = waiting.first(turn).unwrap();
        let first = waiting.take(place).unwrap();
        // The child that was to take it had two others in flight.
        assert!(waiting.push_again(vec![orphan(1), orphan(2)], |_| Duration::MAX, &limits).is_empty());
        waiting.put_back(first);
        let (_, place, _) = waiting.first(turn).unwrap();
        let again = waiting.take(place).unwrap();
        waiting.put_back(again);
        assert_eq!(order(&mut waiting), ["1", "2", "3", "4"]);
    }

    #[test]
    fn a_cancellation_that_can_be_read_in_two_ways_cancels_nothing() {
        let read = |params: &str| {
            let message = format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{params}}}"#);
            Cancels::read(&parse(message.as_bytes()).unwrap())
        };
        assert_eq!(read(r#"{"reason":"x","request\u0049d":3}"#), Cancels::Request(RawId::from(3)));
        for params in ["[3]", r#"{"requestId":3,"requestId":4}"#, r#"{"requestId":3,"request_id":4}"#, "{}"] {
            assert_eq!(read(params), Cancels::Nothing, "{params}");
        }
    }

    #[test]
    fn to_cancel_costs_nothing_that_grows_with_what_waits() {
        let (mut waiting, limits) =
            (Waiting::default(), ChildLimits { stdin_queue: 1 << 30, ..ChildLimits::default() });
        let large = Bytes::from(vec![b' '; 16 << 20]);
        for number in 0..limits.max_in_flight as u64 {
            assert!(waiting.push(large.slice(..1 << 20), id(number), &exchange(), None, &limits));
        }
        let begin = std::time::Instant::now();
        for number in 0..100_000 {
            assert!(waiting.cancel(&RawId::from(1_000_000 + number)).is_none());
        }
        // To look through one GiB for each of them would take hours.
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
        for number in (0..limits.max_in_flight as u64).rev() {
            assert!(waiting.cancel(&RawId::from(number)).is_some());
        }
        assert!(waiting.by_id.is_empty() && waiting.bytes == 0);
    }

    #[test]
    fn of_calls_with_one_id_the_latest_is_cancelled() {
        let (mut waiting, limits) = (Waiting::default(), ChildLimits::default());
        for bytes in ["a", "b", "c"] {
            waiting.push(bytes.into(), id(1), &exchange(), None, &limits);
        }
        for expected in ["c", "b", "a"] {
            assert_eq!(waiting.cancel(&RawId::from(1)).unwrap().message, expected);
        }
        assert!(waiting.cancel(&RawId::from(1)).is_none());
    }

    #[test]
    fn as_much_waits_as_would_fit_into_a_child() {
        let limits = ChildLimits { max_in_flight: 2, stdin_queue: 100, ..ChildLimits::default() };
        let mut waiting = Waiting::default();
        assert!(waiting.push(Bytes::from(vec![b'x'; 200]), id(9), &exchange(), None, &limits), "one may be larger");
        assert!(!waiting.push(message(1), id(1), &exchange(), None, &limits));
        assert_eq!(waiting.push_again(vec![orphan(1)], |_| SECOND, &limits).len(), 1);
        waiting.take_all();
        assert_eq!(waiting.push_again(vec![orphan(1), orphan(2), orphan(3)], |_| SECOND, &limits).len(), 1);
        assert_eq!(order(&mut waiting), ["1", "2"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_as_long_as_it_may_and_what_is_no_call_as_long_as_it_takes() {
        let (mut waiting, limits) = (Waiting::default(), ChildLimits::default());
        for (number, timeout) in [(1, Some(2 * SECOND)), (2, None), (3, Some(SECOND))] {
            assert!(waiting.push(message(number), id(number), &exchange(), timeout, &limits));
        }
        tokio::time::advance(SECOND / 2).await;
        assert!(waiting.take_overdue().is_empty());
        for expected in ["3", "1"] {
            tokio::time::advance(SECOND).await;
            let overdue = waiting.take_overdue();
            assert_eq!(overdue.first().unwrap().id.as_ref().unwrap().as_str(), expected);
        }
        assert_eq!((waiting.bytes, order(&mut waiting)), (message(2).len(), vec!["2".to_owned()]));
    }
}
