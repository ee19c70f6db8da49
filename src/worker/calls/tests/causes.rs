//! Who can have caused what the child says of its own accord: not only those with calls in flight.

use tokio::time::{Duration, Instant};

use super::super::{Incoming, LeaseId, Multiplexer};
use super::story::{A, B, TIMEOUT, answer, ask, cancel, forwarded, heard_by, request, say, shared};
use crate::jsonrpc::parse;
use crate::telemetry::DropReason;

const SAMPLE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"sampling/createMessage","params":{}}"#;
const LOG: &str = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"error","data":1}}"#;

fn call(multiplexer: &mut Multiplexer, peer: LeaseId) -> u64 {
    forwarded(ask(multiplexer, peer, &request("tools/call", "{}"))).0
}

fn progress(number: u64) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{number}}}}}"#)
}

#[test]
fn a_cancelled_call_may_still_have_caused_it_until_the_child_answers() {
    let mut multiplexer = shared(10);
    let cancelled = call(&mut multiplexer, A);
    call(&mut multiplexer, B);
    assert!(cancel(&mut multiplexer, A, Instant::now()));
    assert_eq!(heard_by(say(&mut multiplexer, SAMPLE)), [], "it may be for A");
    let late = say(&mut multiplexer, &answer(cancelled));
    assert!(matches!(late, Incoming::Drop(DropReason::UnknownId)), "{late:?}");
    assert_eq!(heard_by(say(&mut multiplexer, SAMPLE)), [B]);
    assert_eq!(heard_by(say(&mut multiplexer, LOG)), [], "two are there");
}

#[test]
fn a_call_that_timed_out_may_still_have_caused_it_for_as_long_again() {
    let mut multiplexer = shared(10);
    let of_a = call(&mut multiplexer, A);
    let late = Instant::now() + TIMEOUT;
    assert_eq!(multiplexer.expire(late).calls.len(), 1);
    let later = late + TIMEOUT / 2;
    multiplexer.expire(later);
    let mut of_b = call(&mut multiplexer, B);
    assert_eq!(heard_by(say(&mut multiplexer, SAMPLE)), []);
    // What it says of its progress shows that it goes on.
    let message = bytes::Bytes::from(progress(of_a));
    assert_eq!(heard_by(multiplexer.hear(&message, &parse(&message).unwrap(), later, TIMEOUT)), []);
    for (now, heard) in [(late + TIMEOUT, vec![]), (later + TIMEOUT, vec![B])] {
        // B's own call is over as well by then: it makes another.
        multiplexer.expire(now);
        say(&mut multiplexer, &answer(of_b));
        of_b = call(&mut multiplexer, B);
        assert_eq!(heard_by(say(&mut multiplexer, SAMPLE)), heard);
    }
}

#[test]
fn a_call_that_was_given_up_counts_for_as_long_as_the_grace_says_and_longer_while_it_goes_on() {
    type GiveUp = fn(&mut Multiplexer, Instant);
    let ways: [(&str, GiveUp); 3] = [
        ("cancelled", |multiplexer, now| assert!(cancel(multiplexer, A, now))),
        ("timed out", |multiplexer, now| assert_eq!(multiplexer.expire(now).calls.len(), 1)),
        ("left behind", |multiplexer, now| assert_eq!(multiplexer.detach(A, now).calls.len(), 1)),
    ];
    for grace in [TIMEOUT / 10, TIMEOUT * 10] {
        for (what, give_up) in ways {
            let mut multiplexer = shared(10).with_cancel_grace(Some(grace));
            let of_a = call(&mut multiplexer, A);
            let given_up = Instant::now() + TIMEOUT;
            give_up(&mut multiplexer, given_up);
            call(&mut multiplexer, B);
            let hears = |multiplexer: &mut Multiplexer, message: &str, now| {
                let message = bytes::Bytes::copy_from_slice(message.as_bytes());
                heard_by(multiplexer.hear(&message, &parse(&message).unwrap(), now, TIMEOUT))
            };
            let nearly = given_up + grace - Duration::from_nanos(1);
            assert_eq!(hears(&mut multiplexer, SAMPLE, nearly), [], "{what}");
            assert_eq!(hears(&mut multiplexer, &progress(of_a), nearly), []);
            assert_eq!(hears(&mut multiplexer, SAMPLE, given_up + grace), [], "{what}: it goes on");
            assert_eq!(hears(&mut multiplexer, SAMPLE, nearly + grace), [B], "{what}");
        }
    }
    // A task goes on though its call was answered.
    let mut multiplexer = shared(10).with_cancel_grace(Some(TIMEOUT / 1000));
    let number = call(&mut multiplexer, A);
    let result = r#"{"task":{"taskId":"t","status":"working"}}"#;
    say(&mut multiplexer, &format!(r#"{{"jsonrpc":"2.0","id":{number},"result":{result}}}"#));
    multiplexer.expire(Instant::now() + TIMEOUT / 2);
    call(&mut multiplexer, B);
    assert_eq!(heard_by(say(&mut multiplexer, SAMPLE)), []);
}

#[test]
fn a_session_that_has_left_may_still_have_caused_it() {
    let mut multiplexer = shared(10);
    let of_a = call(&mut multiplexer, A);
    multiplexer.detach(A, Instant::now());
    // B is alone now, and has nothing in flight, or something: it may be for the one who has left.
    assert_eq!((heard_by(say(&mut multiplexer, SAMPLE)), heard_by(say(&mut multiplexer, LOG))), (vec![], vec![]));
    let unknown = r#"{"jsonrpc":"2.0","method":"x/of-its-own"}"#;
    assert_eq!(heard_by(say(&mut multiplexer, unknown)), []);
    call(&mut multiplexer, B);
    assert_eq!((heard_by(say(&mut multiplexer, SAMPLE)), heard_by(say(&mut multiplexer, LOG))), (vec![], vec![]));
    assert!(matches!(say(&mut multiplexer, &answer(of_a)), Incoming::Drop(DropReason::UnknownId)));
    assert_eq!((heard_by(say(&mut multiplexer, SAMPLE)), heard_by(say(&mut multiplexer, LOG))), (vec![B], vec![B]));
}

#[test]
fn more_than_is_remembered_makes_everything_nobodys_for_a_time() {
    let mut multiplexer = shared(3);
    for _ in 0..4 {
        call(&mut multiplexer, A);
        assert!(cancel(&mut multiplexer, A, Instant::now()));
    }
    for number in 1..=4 {
        say(&mut multiplexer, &answer(number));
    }
    call(&mut multiplexer, B);
    assert_eq!(heard_by(say(&mut multiplexer, SAMPLE)), [], "of one call it is not known whether it goes on");
    multiplexer.expire(Instant::now() + TIMEOUT + Duration::from_millis(1));
    call(&mut multiplexer, B);
    assert_eq!(heard_by(say(&mut multiplexer, SAMPLE)), [B]);
}

#[test]
fn what_names_a_task_is_its_owners_and_roots_are_nobodys() {
    let mut multiplexer = shared(10);
    let number = call(&mut multiplexer, A);
    say(
        &mut multiplexer,
        &format!(r#"{{"jsonrpc":"2.0","id":{number},"result":{{"task":{{"taskId":"t","status":"working"}}}}}}"#),
    );
    let related = |task: &str| {
        let meta = format!(r#"{{"io.modelcontextprotocol/related-task":{{"taskId":"{task}"}}}}"#);
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"info","_meta":{meta}}}}}"#)
    };
    assert_eq!(heard_by(say(&mut multiplexer, &related("t"))), [A]);
    call(&mut multiplexer, B);
    assert_eq!(heard_by(say(&mut multiplexer, SAMPLE)), [], "the task may have caused it");
    for method in ["roots/list", "tasks/get", "tasks/list"] {
        let asked = format!(r#"{{"jsonrpc":"2.0","id":0,"method":"{method}","params":{{"taskId":"t"}}}}"#);
        let incoming = say(&mut multiplexer, &asked);
        let Incoming::Reply(refusal) = incoming else { panic!("{method}: {incoming:?}") };
        assert!(String::from_utf8_lossy(&refusal).contains("-32601"), "{refusal:?}");
    }
    multiplexer.detach(B, Instant::now());
    assert_eq!(heard_by(say(&mut multiplexer, &related("of one who has left"))), [], "though A is alone");
}

#[test]
fn a_task_stays_whose_it_was_first() {
    let mut multiplexer = shared(10);
    for peer in [A, B] {
        let number = call(&mut multiplexer, peer);
        let result = r#"{"task":{"taskId":"t","status":"working"}}"#;
        say(&mut multiplexer, &format!(r#"{{"jsonrpc":"2.0","id":{number},"result":{result}}}"#));
    }
    let status =
        r#"{"jsonrpc":"2.0","method":"notifications/tasks/status","params":{"taskId":"t","status":"working"}}"#;
    assert_eq!(heard_by(say(&mut multiplexer, status)), [A]);
}
