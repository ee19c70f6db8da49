//! The rules for sharing a child, one by one, where a story says more than the property test.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::super::{Ask, Incoming, Multiplexer, Outgoing, PeerId};
use crate::jsonrpc::parse;
use crate::stream::{Exchange, Limits, Outbox};
use crate::telemetry::DropReason;
use crate::worker::Refused;

const A: PeerId = PeerId(1);
const B: PeerId = PeerId(2);
const TIMEOUT: Duration = Duration::from_secs(1);

fn shared(max_in_flight: usize) -> Multiplexer {
    let mut multiplexer = Multiplexer::new(max_in_flight, true);
    multiplexer.attach(A);
    multiplexer.attach(B);
    multiplexer
}

fn ask(multiplexer: &mut Multiplexer, peer: PeerId, message: &str) -> Result<Outgoing, Refused> {
    let (outbox, _) = Outbox::new(Limits { messages: 1, bytes: 1 });
    let exchange = Arc::new(Exchange::of_request(outbox, 1));
    let envelope = parse(message.as_bytes()).unwrap();
    let ask = Ask { message: message.as_bytes(), envelope: &envelope, exchange: &exchange, timeout: TIMEOUT };
    multiplexer.ask(peer, &ask, Instant::now())
}

fn request(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":"é","method":"{method}","params":{params}}}"#)
}

/// What the child reads; the number that it reads it under.
fn forwarded(outgoing: Result<Outgoing, Refused>) -> (u64, String) {
    let Ok(Outgoing::Forward(frame)) = outgoing else { panic!("{outgoing:?}") };
    let number = parse(&frame).unwrap().raw_id().unwrap().as_u64().unwrap();
    (number, String::from_utf8(frame.to_vec()).unwrap())
}

fn say(multiplexer: &mut Multiplexer, message: &str) -> Incoming {
    let bytes = Bytes::copy_from_slice(message.as_bytes());
    multiplexer.receive(bytes.clone(), &parse(&bytes).unwrap(), Instant::now(), TIMEOUT)
}

fn answer(number: u64) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{number},"result":{{}}}}"#)
}

const SUBSCRIBE: &str = r#"{"uri":"file:///a"}"#;

#[test]
fn who_waits_for_anothers_subscription_keeps_it_when_the_other_leaves() {
    let mut multiplexer = shared(10);
    let (number, _) = forwarded(ask(&mut multiplexer, A, &request("resources/subscribe", SUBSCRIBE)));
    assert!(matches!(ask(&mut multiplexer, B, &request("resources/subscribe", SUBSCRIBE)), Ok(Outgoing::Wait)));
    let gone = multiplexer.detach(A);
    assert!(gone.frames.is_empty(), "it is not cancelled: {:?}", gone.frames);
    assert_eq!(gone.calls.iter().map(|call| call.peer).collect::<Vec<_>>(), [A]);
    assert!(gone.waiting.is_empty());
    let Incoming::Answer(call, message, _) = say(&mut multiplexer, &answer(number)) else { panic!("lost") };
    assert_eq!((call.peer, &message[..]), (B, r#"{"jsonrpc":"2.0","id":"é","result":{}}"#.as_bytes()));
    let updated = r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"file:///a"}}"#;
    assert!(matches!(say(&mut multiplexer, updated), Incoming::Unsolicited(_, _, None, peers) if peers == [B]));
}

#[test]
fn whoever_waits_for_a_subscription_and_leaves_is_told_so() {
    let mut multiplexer = shared(10);
    forwarded(ask(&mut multiplexer, A, &request("resources/subscribe", SUBSCRIBE)));
    assert!(matches!(ask(&mut multiplexer, B, &request("resources/subscribe", SUBSCRIBE)), Ok(Outgoing::Wait)));
    let gone = multiplexer.detach(B);
    assert_eq!(gone.waiting.iter().map(|waiting| waiting.peer).collect::<Vec<_>>(), [B]);
    assert!(gone.calls.is_empty() && gone.frames.is_empty());
}

#[test]
fn a_level_that_the_child_has_not_heard_is_told_by_the_next_who_wants_it() {
    let mut multiplexer = shared(1);
    let (number, _) = forwarded(ask(&mut multiplexer, A, &request("tools/call", "{}")));
    let level = request("logging/setLevel", r#"{"level":"info"}"#);
    assert_eq!(ask(&mut multiplexer, A, &level).unwrap_err(), Refused::Busy);
    say(&mut multiplexer, &answer(number));
    let (number, _) = forwarded(ask(&mut multiplexer, A, &level));
    say(&mut multiplexer, &format!(r#"{{"jsonrpc":"2.0","id":{number},"error":{{"code":-32601,"message":"no"}}}}"#));
    forwarded(ask(&mut multiplexer, B, &level));
}

#[test]
fn the_child_hears_the_loudest_level_and_each_gets_its_own() {
    let mut multiplexer = shared(10);
    let level = |level: &str| request("logging/setLevel", &format!(r#"{{"level":"{level}"}}"#));
    assert!(forwarded(ask(&mut multiplexer, A, &level("error"))).1.contains(r#""level":"error""#));
    assert!(forwarded(ask(&mut multiplexer, B, &level("debug"))).1.contains(r#""level":"debug""#));
    assert!(matches!(ask(&mut multiplexer, A, &level("warning")), Ok(Outgoing::Local(_))));
    let line = |level: &str| {
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"{level}","data":1}}}}"#)
    };
    let incoming = say(&mut multiplexer, &line("emergency"));
    assert!(matches!(incoming, Incoming::Drop(DropReason::Unattributable)), "two are there: {incoming:?}");
    let gone = multiplexer.detach(B);
    assert!(gone.frames.iter().any(|frame| frame.windows(17).any(|text| text == br#""level":"warning""#)));
    assert!(matches!(say(&mut multiplexer, &line("info")), Incoming::Ignore));
    assert!(
        matches!(say(&mut multiplexer, &line("warning")), Incoming::Unsolicited(_, _, None, peers) if peers == [A])
    );
}

#[test]
fn a_request_of_the_child_goes_to_the_only_one_who_can_have_caused_it() {
    let mut multiplexer = shared(10);
    let sample = r#"{"jsonrpc":"2.0","id":0,"method":"sampling/createMessage","params":{}}"#;
    assert!(matches!(say(&mut multiplexer, sample), Incoming::Reply(_)), "nobody has a call in flight");
    let (of_a, _) = forwarded(ask(&mut multiplexer, A, &request("tools/call", "{}")));
    assert!(matches!(say(&mut multiplexer, sample), Incoming::Unsolicited(_, _, Some(_), peers) if peers == [A]));
    forwarded(ask(&mut multiplexer, B, &request("tools/call", "{}")));
    assert!(matches!(say(&mut multiplexer, sample), Incoming::Reply(_)), "both have");
    say(&mut multiplexer, &answer(of_a));
    assert!(matches!(say(&mut multiplexer, sample), Incoming::Unsolicited(_, _, Some(_), peers) if peers == [B]));
}

#[test]
fn roots_are_not_spoken_of_and_pings_are_answered_at_once() {
    let mut multiplexer = shared(10);
    let roots = br#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#;
    assert_eq!(multiplexer.notified_by_client(roots, "notifications/roots/list_changed"), None);
    assert!(matches!(ask(&mut multiplexer, A, &request("ping", "{}")), Ok(Outgoing::Local(_))));
}

#[test]
fn another_sessions_id_cancels_nothing() {
    let mut multiplexer = shared(10);
    forwarded(ask(&mut multiplexer, A, &request("tools/call", "{}")));
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"é"}}"#;
    let envelope = parse(cancel.as_bytes()).unwrap();
    assert!(multiplexer.cancel(B, cancel.as_bytes(), &envelope).is_none());
    assert!(multiplexer.cancel(A, cancel.as_bytes(), &envelope).is_some());
    assert!(multiplexer.cancel(A, cancel.as_bytes(), &envelope).is_none(), "it is over");
}
