//! Subscriptions that several sessions have a part in.

use tokio::time::Instant;

use super::super::{Incoming, Outgoing};
use super::story::{A, B, SUBSCRIBE, TIMEOUT, answer, ask, forwarded, frames, heard_by, request, say, shared};
use crate::worker::Refused;

const UPDATED: &str = r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"file:///a"}}"#;

#[test]
fn who_waits_for_anothers_subscription_keeps_it_when_the_other_leaves() {
    let mut multiplexer = shared(10);
    let (number, _) = forwarded(ask(&mut multiplexer, A, &request("resources/subscribe", SUBSCRIBE)));
    assert!(matches!(ask(&mut multiplexer, B, &request("resources/subscribe", SUBSCRIBE)), Ok(Outgoing::Wait)));
    let gone = multiplexer.detach(A, Instant::now());
    assert!(gone.frames.is_empty(), "it is not cancelled: {:?}", gone.frames);
    assert_eq!(gone.calls.iter().map(|call| call.peer).collect::<Vec<_>>(), [A]);
    assert!(gone.waiting.is_empty());
    let Incoming::Answer(answer, message) = say(&mut multiplexer, &answer(number)) else { panic!("lost") };
    assert_eq!((answer.call.peer, &message[..]), (B, r#"{"jsonrpc":"2.0","id":"é","result":{}}"#.as_bytes()));
    let updated = r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"file:///a"}}"#;
    assert!(matches!(say(&mut multiplexer, updated), Incoming::Unsolicited(_, _, None, peers) if peers == [B]));
}

#[test]
fn whoever_waits_for_a_subscription_and_leaves_is_told_so() {
    let mut multiplexer = shared(10);
    forwarded(ask(&mut multiplexer, A, &request("resources/subscribe", SUBSCRIBE)));
    assert!(matches!(ask(&mut multiplexer, B, &request("resources/subscribe", SUBSCRIBE)), Ok(Outgoing::Wait)));
    let gone = multiplexer.detach(B, Instant::now());
    assert_eq!(gone.waiting.iter().map(|waiting| waiting.peer).collect::<Vec<_>>(), [B]);
    assert!(gone.calls.is_empty() && gone.frames.is_empty());
}

#[test]
fn who_unsubscribes_while_its_subscribe_is_in_flight_ends_unsubscribed_and_so_does_the_child() {
    let mut multiplexer = shared(10);
    let (number, _) = forwarded(ask(&mut multiplexer, A, &request("resources/subscribe", SUBSCRIBE)));
    let unsubscribe = request("resources/unsubscribe", SUBSCRIBE);
    assert!(matches!(ask(&mut multiplexer, A, &unsubscribe), Ok(Outgoing::Local(_))));
    let Incoming::Answer(answered, _) = say(&mut multiplexer, &answer(number)) else { panic!("lost") };
    let frame = String::from_utf8(answered.frame.unwrap().to_vec()).unwrap();
    assert!(frame.contains("resources/unsubscribe") && frame.contains("file:///a"), "{frame}");
    assert_eq!(heard_by(say(&mut multiplexer, UPDATED)), []);
    forwarded(ask(&mut multiplexer, B, &request("resources/subscribe", SUBSCRIBE)));
}

#[test]
fn who_unsubscribes_before_the_answer_takes_it_from_nobody_else() {
    let mut multiplexer = shared(10);
    let (number, _) = forwarded(ask(&mut multiplexer, A, &request("resources/subscribe", SUBSCRIBE)));
    assert!(matches!(ask(&mut multiplexer, B, &request("resources/subscribe", SUBSCRIBE)), Ok(Outgoing::Wait)));
    let unsubscribe = request("resources/unsubscribe", SUBSCRIBE);
    assert!(matches!(ask(&mut multiplexer, A, &unsubscribe), Ok(Outgoing::Local(_))));
    let Incoming::Answer(answered, _) = say(&mut multiplexer, &answer(number)) else { panic!("lost") };
    assert_eq!((answered.frame, answered.waiting.len()), (None, 1));
    assert_eq!(heard_by(say(&mut multiplexer, UPDATED)), [B]);
}

#[test]
fn a_subscription_that_is_given_up_leaves_the_child_unsubscribed() {
    let mut multiplexer = shared(10);
    forwarded(ask(&mut multiplexer, A, &request("resources/subscribe", SUBSCRIBE)));
    let said = frames(&multiplexer.detach(A, Instant::now()));
    assert!(said[0].contains("notifications/cancelled") && said[1].contains("resources/unsubscribe"), "{said:?}");
}

#[test]
fn who_waits_for_anothers_subscription_counts_and_shares_its_deadline() {
    let mut multiplexer = shared(2);
    let subscribe = request("resources/subscribe", SUBSCRIBE);
    forwarded(ask(&mut multiplexer, A, &subscribe));
    assert!(matches!(ask(&mut multiplexer, B, &subscribe), Ok(Outgoing::Wait)));
    assert!(!multiplexer.is_idle_for(B));
    assert_eq!(ask(&mut multiplexer, B, &subscribe).unwrap_err(), Refused::Busy);
    assert_eq!(ask(&mut multiplexer, A, &request("tools/call", "{}")).unwrap_err(), Refused::Busy);
    let expired = multiplexer.expire(Instant::now() + TIMEOUT);
    assert_eq!(expired.waiting.iter().map(|w| (w.peer, w.timeout)).collect::<Vec<_>>(), [(B, TIMEOUT)]);
    assert_eq!(expired.calls.len(), 1);
    assert!(multiplexer.is_idle_for(B));
}

#[test]
fn who_is_refused_an_unsubscribe_stays_subscribed() {
    let mut multiplexer = shared(1);
    let (number, _) = forwarded(ask(&mut multiplexer, A, &request("resources/subscribe", SUBSCRIBE)));
    say(&mut multiplexer, &answer(number));
    let unsubscribe = request("resources/unsubscribe", SUBSCRIBE);
    let (number, _) = forwarded(ask(&mut multiplexer, A, &unsubscribe));
    multiplexer.forget(number);
    assert_eq!(heard_by(say(&mut multiplexer, UPDATED)), [A], "it could not be queued");
    forwarded(ask(&mut multiplexer, B, &request("tools/call", "{}")));
    assert_eq!(ask(&mut multiplexer, A, &unsubscribe).unwrap_err(), Refused::Busy);
    assert_eq!(heard_by(say(&mut multiplexer, UPDATED)), [A], "the child is busy");
}

#[test]
fn a_session_has_a_bounded_number_of_subscriptions() {
    let mut multiplexer = shared(10);
    let subscribe = |number: usize| request("resources/subscribe", &format!(r#"{{"uri":"file:///{number}"}}"#));
    for number in 0..1024 {
        let (number, _) = forwarded(ask(&mut multiplexer, A, &subscribe(number)));
        say(&mut multiplexer, &answer(number));
    }
    let Ok(Outgoing::Local(refused)) = ask(&mut multiplexer, A, &subscribe(1024)) else { panic!("it is taken") };
    assert!(String::from_utf8_lossy(&refused).contains("too many subscriptions"), "{refused:?}");
    forwarded(ask(&mut multiplexer, B, &subscribe(1024)));
    let unsubscribe = request("resources/unsubscribe", r#"{"uri":"file:///7"}"#);
    forwarded(ask(&mut multiplexer, A, &unsubscribe));
    assert!(matches!(ask(&mut multiplexer, A, &subscribe(1024)), Ok(Outgoing::Wait)));
}

#[test]
fn what_cannot_be_counted_does_not_reach_the_child() {
    let mut multiplexer = shared(10);
    for method in ["resources/subscribe", "resources/unsubscribe"] {
        for params in ["{}", r#"{"uri":7}"#, r#"{"uri":"file:///a","uri":"file:///b"}"#, r#"["file:///a"]"#] {
            let outgoing = ask(&mut multiplexer, A, &request(method, params));
            assert!(matches!(outgoing, Ok(Outgoing::Local(_))), "{method} {params}: {outgoing:?}");
        }
    }
}
