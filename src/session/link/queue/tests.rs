//! The order, the bounds and the costs of the pending queue.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::config::ServerName;
use crate::memory::Account;
use crate::stream::{Budget, Outbox};
use crate::worker::Kept;

const SECOND: Duration = Duration::from_secs(1);

fn exchange() -> Arc<Exchange> {
    let (outbox, _) = Outbox::new(Budget { messages: 1, bytes: 1 });
    Arc::new(Exchange::of_request(outbox, 1, &Account::unlimited()))
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

fn order(pending: &mut PendingQueue) -> Vec<String> {
    pending.take_all().iter().map(|pending| pending.id.as_ref().unwrap().as_str().to_owned()).collect()
}

#[test]
fn what_came_first_goes_first_and_what_a_child_crashed_over_before_it() {
    let (mut pending, limits) = (PendingQueue::default(), ChildLimits::default());
    for number in [3, 4] {
        assert!(pending.push(message(number), id(number), &exchange(), None, &limits));
    }
    let token = pending.claim().unwrap();
    assert!(pending.claim().is_none(), "one sends, not two");
    assert!(pending.push_retries(vec![orphan(1), orphan(2)], |_| SECOND, &limits).is_empty());
    let (token, position, tool, _) = pending.first(token).unwrap();
    assert_eq!(tool.as_deref(), Some("t"));
    let first = pending.take(position).unwrap();
    assert!(pending.take(position).is_none());
    assert!(pending.is_being_drained, "though it is out, nothing overtakes it");
    pending.put_back(first);
    assert!(pending.cancel("3").is_some());
    assert!(pending.cancel("3").is_none());
    assert_eq!(order(&mut pending), ["1", "2", "4"]);
    assert!(pending.first(token).is_none() && !pending.is_being_drained);
    assert!(pending.push(message(5), id(5), &exchange(), None, &limits));
    let token = pending.claim();
    assert!(token.is_some(), "another sends: the first has no token to look again with");
    assert!(pending.reserve().is_none(), "it has not sent yet");
    assert_eq!(pending.abandon().len(), 1);
    let token = pending.reserve();
    assert!(token.is_some() && pending.is_being_drained && pending.claim().is_none(), "what comes now waits");
}

#[test]
fn what_no_child_took_stays_behind_what_a_child_crashed_over_meanwhile() {
    let (mut pending, limits) = (PendingQueue::default(), ChildLimits::default());
    for number in [3, 4] {
        pending.push(message(number), id(number), &exchange(), None, &limits);
    }
    let token = pending.claim().unwrap();
    let (token, position, ..) = pending.first(token).unwrap();
    let first = pending.take(position).unwrap();
    // The child that was to take it had two others in flight.
    assert!(pending.push_retries(vec![orphan(1), orphan(2)], |_| Duration::MAX, &limits).is_empty());
    pending.put_back(first);
    let (_, position, ..) = pending.first(token).unwrap();
    let again = pending.take(position).unwrap();
    pending.put_back(again);
    assert_eq!(order(&mut pending), ["1", "2", "3", "4"]);
}

#[test]
fn to_cancel_costs_nothing_that_grows_with_what_waits() {
    let (mut pending, limits) =
        (PendingQueue::default(), ChildLimits { stdin_queue: 1 << 30, ..ChildLimits::default() });
    let large = Bytes::from(vec![b' '; 16 << 20]);
    for number in 0..limits.max_in_flight as u64 {
        assert!(pending.push(large.slice(..1 << 20), id(number), &exchange(), None, &limits));
    }
    let begin = std::time::Instant::now();
    for number in 0..100_000 {
        assert!(pending.cancel(RawId::from(1_000_000 + number).as_str()).is_none());
    }
    // To look through one GiB for each of them would take hours.
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    for number in (0..limits.max_in_flight as u64).rev() {
        assert!(pending.cancel(RawId::from(number).as_str()).is_some());
    }
    assert!(pending.by_id.is_empty() && pending.usage.bytes() == 0);
}

#[test]
fn of_calls_with_one_id_the_latest_is_cancelled() {
    let (mut pending, limits) = (PendingQueue::default(), ChildLimits::default());
    for bytes in ["a", "b", "c"] {
        pending.push(bytes.into(), id(1), &exchange(), None, &limits);
    }
    for expected in ["c", "b", "a"] {
        assert_eq!(pending.cancel(RawId::from(1).as_str()).unwrap().message, expected);
    }
    assert!(pending.cancel(RawId::from(1).as_str()).is_none());
}

#[test]
fn as_much_waits_as_would_fit_into_a_child() {
    let limits = ChildLimits { max_in_flight: 2, stdin_queue: 100, ..ChildLimits::default() };
    let mut pending = PendingQueue::default();
    assert!(pending.push(Bytes::from(vec![b'x'; 200]), id(9), &exchange(), None, &limits), "one may be larger");
    assert!(!pending.push(message(1), id(1), &exchange(), None, &limits));
    assert_eq!(pending.push_retries(vec![orphan(1)], |_| SECOND, &limits).len(), 1);
    pending.take_all();
    assert_eq!(pending.push_retries(vec![orphan(1), orphan(2), orphan(3)], |_| SECOND, &limits).len(), 1);
    assert_eq!(order(&mut pending), ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_as_long_as_it_may_and_what_is_no_call_as_long_as_it_takes() {
    let (mut pending, limits) = (PendingQueue::default(), ChildLimits::default());
    for (number, timeout) in [(1, Some(2 * SECOND)), (2, None), (3, Some(SECOND))] {
        assert!(pending.push(message(number), id(number), &exchange(), timeout, &limits));
    }
    tokio::time::advance(SECOND / 2).await;
    assert!(pending.take_overdue().is_empty());
    for expected in ["3", "1"] {
        tokio::time::advance(SECOND).await;
        let overdue = pending.take_overdue();
        assert_eq!(overdue.first().unwrap().id.as_ref().unwrap().as_str(), expected);
    }
    assert_eq!((pending.usage.bytes(), order(&mut pending)), (message(2).len(), vec!["2".to_owned()]));
}
