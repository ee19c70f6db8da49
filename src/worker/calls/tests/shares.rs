//! What one session, and one tenant, may take of a child that others use as well.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::{Ask, Incoming, LeaseId, Multiplexer, Outgoing, Party};
use super::story::{A, B, SUBSCRIBE, TIMEOUT, answer, ask, cancel, exchange, forwarded, request, say, shared};
use crate::jsonrpc::parse;
use crate::worker::Refused;

const C: LeaseId = LeaseId(3);

/// Calls until one is refused: the numbers of those that were taken, and why no more.
fn take_all(multiplexer: &mut Multiplexer, peer: LeaseId) -> (Vec<u64>, Refused) {
    let mut taken = Vec::new();
    loop {
        match ask(multiplexer, peer, &request("tools/call", "{}")) {
            Err(refused) => return (taken, refused),
            taken_too => taken.push(forwarded(taken_too).0),
        }
    }
}

#[test]
fn a_session_may_have_as_many_calls_in_flight_as_are_left_for_others() {
    let mut multiplexer = shared(12);
    multiplexer.attach(C);
    let (of_a, refused) = take_all(&mut multiplexer, A);
    assert_eq!((of_a.len(), refused), (6, Refused::Share), "half, where it is alone");
    let (of_b, refused) = take_all(&mut multiplexer, B);
    assert_eq!((of_b.len(), refused), (3, Refused::Share));
    // It has more than its share now, and no more until others have less.
    assert_eq!(take_all(&mut multiplexer, A), (vec![], Refused::Share));
    for number in &of_a[..4] {
        say(&mut multiplexer, &answer(*number));
    }
    let (more, _) = take_all(&mut multiplexer, B);
    assert_eq!(more.len(), 2, "5 of 12, as 5 are left beside those 2 of the other");
    assert_eq!(take_all(&mut multiplexer, C).0.len(), 3);
    assert!(multiplexer.is_counted());
}

#[test]
fn there_is_room_for_one_of_everybody_until_there_is_none_at_all() {
    let mut multiplexer = shared(4);
    take_all(&mut multiplexer, A);
    for number in 3..5 {
        let peer = LeaseId(number);
        multiplexer.attach(peer);
        let (taken, refused) = take_all(&mut multiplexer, peer);
        assert_eq!(taken.len(), 1);
        assert_eq!(refused, if number == 4 { Refused::Busy } else { Refused::Share });
    }
    assert_eq!(take_all(&mut multiplexer, B), (vec![], Refused::Busy));
    let mut narrow = shared(1);
    let (taken, refused) = take_all(&mut narrow, A);
    assert_eq!((taken.len(), refused), (1, Refused::Busy));
}

#[test]
fn a_child_of_its_own_and_the_gateways_own_calls_are_bound_by_the_whole_alone() {
    let mut multiplexer = Multiplexer::new(4, false);
    multiplexer.attach(A);
    let (taken, refused) = take_all(&mut multiplexer, A);
    assert_eq!((taken.len(), refused), (4, Refused::Busy));
    let mut multiplexer = shared(4);
    take_all(&mut multiplexer, A);
    let message = request("tools/list", "{}");
    let envelope = parse(message.as_bytes()).unwrap();
    for is_taken in [true, true, false] {
        let exchange = exchange();
        let ask = Ask { envelope: &envelope, exchange: &exchange, timeout: TIMEOUT, is_own: true };
        let outgoing = multiplexer.ask(A, &ask, Instant::now());
        assert_eq!(matches!(outgoing, Ok(Outgoing::Forward(..))), is_taken, "{outgoing:?}");
    }
}

#[test]
fn what_is_over_however_it_ends_is_room_again() {
    let mut multiplexer = shared(4);
    type End = fn(&mut Multiplexer, u64);
    let ends: [End; 4] = [
        |multiplexer, number| drop(say(multiplexer, &answer(number))),
        |multiplexer, _| assert!(cancel(multiplexer, A, Instant::now())),
        |multiplexer, number| multiplexer.forget(number),
        |multiplexer, _| assert!(!multiplexer.expire(Instant::now() + TIMEOUT).calls.is_empty()),
    ];
    for end in ends {
        let (taken, _) = take_all(&mut multiplexer, A);
        assert!(!taken.is_empty());
        for number in taken.into_iter().rev() {
            end(&mut multiplexer, number);
            assert!(multiplexer.is_counted());
            if multiplexer.load() == 0 {
                break;
            }
        }
        assert_eq!(multiplexer.load(), 0);
    }
}

#[test]
fn who_waits_for_the_subscription_of_another_counts() {
    let mut multiplexer = shared(8);
    multiplexer.attach(C);
    let (number, _) = forwarded(ask(&mut multiplexer, A, &request("resources/subscribe", SUBSCRIBE)));
    for _ in 0..2 {
        assert!(matches!(ask(&mut multiplexer, B, &request("resources/subscribe", SUBSCRIBE)), Ok(Outgoing::Wait)));
    }
    let refused = ask(&mut multiplexer, B, &request("tools/list", "{}"));
    assert!(matches!(refused, Ok(Outgoing::Forward(..))), "{refused:?}");
    let refused = ask(&mut multiplexer, B, &request("resources/subscribe", SUBSCRIBE));
    assert!(matches!(refused, Ok(Outgoing::Wait)), "{refused:?}");
    assert!(matches!(ask(&mut multiplexer, B, &request("resources/subscribe", SUBSCRIBE)), Err(Refused::Share)));
    // A's goes on as one of B's.
    multiplexer.detach(A, Instant::now());
    assert!(multiplexer.is_counted());
    say(&mut multiplexer, &answer(number));
    assert!(multiplexer.is_counted());
    assert_eq!(multiplexer.load(), 1);
    assert_eq!(take_all(&mut multiplexer, B).0.len(), 3);
    let calls = multiplexer.drain().calls;
    assert!(calls.iter().all(|call| Arc::strong_count(&call.exchange) == 1) && multiplexer.is_counted());
}

#[test]
fn a_client_that_does_not_answer_leaves_room_for_the_requests_to_others() {
    let asked = |multiplexer: &mut Multiplexer, peer: LeaseId| {
        let (call, _) = forwarded(ask(multiplexer, peer, &request("tools/call", "{}")));
        let question = r#"{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{}}"#;
        let count = (0..100).take_while(|_| matches!(say(multiplexer, question), Incoming::Unsolicited(..))).count();
        say(multiplexer, &answer(call));
        count
    };
    let mut multiplexer = shared(12);
    assert_eq!(asked(&mut multiplexer, A), 6, "half, where it is alone");
    assert_eq!(asked(&mut multiplexer, B), 3);
    assert_eq!(asked(&mut multiplexer, A), 0);
    let mut own = Multiplexer::new(12, false);
    own.attach(A);
    assert_eq!(asked(&mut own, A), 12, "nobody else needs room");
    // However many sessions one tenant opens.
    let mut multiplexer = Multiplexer::new(16, true);
    let of_a: Vec<_> = (10..30).map(|number| attach(&mut multiplexer, number, &["a", "a.x"])).collect();
    let b = attach(&mut multiplexer, 1, &["b", "b.x"]);
    assert_eq!(of_a.iter().map(|peer| asked(&mut multiplexer, *peer)).sum::<usize>(), 4, "half of its tenant's half");
    let other = attach(&mut multiplexer, 30, &["a", "a.y"]);
    assert!(asked(&mut multiplexer, other) > 0, "another principal of the tenant is asked as well");
    assert!(asked(&mut multiplexer, b) > 0);
}

/// Puts a session of these parties on the child, each of which has rivals.
fn attach(multiplexer: &mut Multiplexer, number: u64, parties: &[&str]) -> LeaseId {
    let rival = |name: &&str| Party { name: (*name).to_owned(), has_rivals: true };
    multiplexer.attach_of(LeaseId(number), &parties.iter().map(rival).collect::<Vec<_>>());
    LeaseId(number)
}

#[test]
fn sessions_without_end_leave_room_for_other_tenants_and_principals() {
    let mut multiplexer = Multiplexer::new(64, true);
    let of_a: Vec<_> = (100..200).map(|number| attach(&mut multiplexer, number, &["a", "a.x"])).collect();
    let mut taken = Vec::new();
    for peer in &of_a {
        let (numbers, refused) = take_all(&mut multiplexer, *peer);
        assert_eq!(refused, Refused::Share, "the child is never full");
        taken.extend(numbers);
    }
    assert_eq!(taken.len(), 16, "a principal: half of the half of its tenant");
    let other = attach(&mut multiplexer, 1, &["a", "a.y"]);
    assert!(!take_all(&mut multiplexer, other).0.is_empty(), "another principal of the tenant has room");
    let (b, c) = (attach(&mut multiplexer, 2, &["b", "b.x"]), attach(&mut multiplexer, 3, &["c", "c.x"]));
    assert!(!take_all(&mut multiplexer, b).0.is_empty() && !take_all(&mut multiplexer, c).0.is_empty());
    assert!(multiplexer.is_counted());
    // Who leaves holds nothing any more, and a name that comes again begins with nothing.
    of_a.iter().chain([&other]).for_each(|peer| drop(multiplexer.detach(*peer, Instant::now())));
    assert!(multiplexer.is_counted());
    let again = attach(&mut multiplexer, 4, &["a", "a.x"]);
    assert!(take_all(&mut multiplexer, again).0.len() > 1);
    assert!(multiplexer.is_counted());
}

#[test]
fn who_has_no_rivals_shares_with_its_own_sessions_alone() {
    let mut multiplexer = Multiplexer::new(12, true);
    let alone = |name: &str| Party { name: name.to_owned(), has_rivals: false };
    multiplexer.attach_of(A, &[alone("a"), alone("a.x")]);
    multiplexer.attach_of(B, &[alone("a"), alone("a.x")]);
    assert_eq!(take_all(&mut multiplexer, A).0.len(), 6, "half");
    assert_eq!(take_all(&mut multiplexer, B).0.len(), 3);
    // From now on others may come.
    attach(&mut multiplexer, 3, &["a", "a.x"]);
    assert_eq!(take_all(&mut multiplexer, C), (vec![], Refused::Share));
    let b = attach(&mut multiplexer, 4, &["b", "b.x"]);
    assert!(!take_all(&mut multiplexer, b).0.is_empty());
}
