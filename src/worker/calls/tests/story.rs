//! What the stories of the rules are told with: two sessions on a child.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::super::{Ask, Expired, Incoming, LeaseId, Multiplexer, Outgoing, Reported};
use crate::jsonrpc::parse;
use crate::memory::Account;
use crate::stream::{Budget, Exchange, Outbox};
use crate::worker::Refused;

pub(super) const A: LeaseId = LeaseId(1);
pub(super) const B: LeaseId = LeaseId(2);
pub(super) const TIMEOUT: Duration = Duration::from_secs(1);

pub(super) fn shared(max_in_flight: usize) -> Multiplexer {
    let mut multiplexer = Multiplexer::new(max_in_flight, true);
    multiplexer.attach(A);
    multiplexer.attach(B);
    multiplexer
}

pub(super) fn exchange() -> Arc<Exchange> {
    let (outbox, _) = Outbox::new(Budget { messages: 1, bytes: 1 });
    Arc::new(Exchange::of_request(outbox, 1, &Account::unlimited()))
}

pub(super) fn ask(multiplexer: &mut Multiplexer, peer: LeaseId, message: &str) -> Result<Outgoing, Refused> {
    let exchange = exchange();
    let envelope = parse(message.as_bytes()).unwrap();
    let ask = Ask { envelope: &envelope, exchange: &exchange, timeout: TIMEOUT, is_own: false };
    multiplexer.ask(peer, &ask, Instant::now())
}

pub(super) fn request(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":"é","method":"{method}","params":{params}}}"#)
}

/// What the child reads; the number that it reads it under.
pub(super) fn forwarded(outgoing: Result<Outgoing, Refused>) -> (u64, String) {
    let Ok(Outgoing::Forward(wire, frame)) = outgoing else { panic!("{outgoing:?}") };
    let number = parse(&frame).unwrap().raw_id().unwrap().as_u64().unwrap();
    assert_eq!(wire, number);
    (number, String::from_utf8(frame.to_vec()).unwrap())
}

pub(super) fn say(multiplexer: &mut Multiplexer, message: &str) -> Incoming {
    let bytes = Bytes::copy_from_slice(message.as_bytes());
    multiplexer.hear(&bytes, &parse(&bytes).unwrap(), Instant::now(), TIMEOUT)
}

pub(super) fn answer(number: u64) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{number},"result":{{}}}}"#)
}

pub(super) const SUBSCRIBE: &str = r#"{"uri":"file:///a"}"#;

/// What the child is told of something that is over.
pub(super) fn frames(expired: &Expired) -> Vec<String> {
    expired.frames.iter().map(|frame| String::from_utf8(frame.to_vec()).unwrap()).collect()
}

/// Who gets what the child says unasked; nobody, if it is refused or dropped.
pub(super) fn heard_by(incoming: Incoming) -> Vec<LeaseId> {
    match incoming {
        Incoming::Unsolicited(_, _, _, peers) => peers,
        Incoming::Drop(_) | Incoming::Reply(_) => Vec::new(),
        other => panic!("{other:?}"),
    }
}

/// A client cancels its latest call. Whether there was one.
pub(super) fn cancel(multiplexer: &mut Multiplexer, peer: LeaseId, now: Instant) -> bool {
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"é"}}"#;
    let envelope = parse(cancel.as_bytes()).unwrap();
    let cancellation = multiplexer.cancellation(peer, &envelope);
    cancellation.is_some_and(|(number, _)| multiplexer.cancel(number, now).is_some())
}

/// A answers a request of the child.
pub(super) fn answer_as_client(multiplexer: &mut Multiplexer, message: &str) {
    let envelope = parse(message.as_bytes()).unwrap();
    let (number, _) = multiplexer.answer_to_child(A, &envelope).unwrap();
    multiplexer.server_requests.answered(number, &Reported::by(&envelope));
}
