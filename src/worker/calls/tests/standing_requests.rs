//! What a session has of a child: what that has agreed to.

use tokio::time::Instant;

use super::super::{Ask, Incoming, Multiplexer, Outgoing};
use super::story::{
    A, B, SUBSCRIBE, TIMEOUT, answer, ask, cancel, exchange, forwarded, frames, heard_by, request, say, shared,
};
use crate::jsonrpc::parse;
use crate::worker::Refused;

const UPDATED: &str = r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"file:///a"}}"#;

fn both() -> [Multiplexer; 2] {
    [true, false].map(|is_shared| {
        let mut multiplexer = Multiplexer::new(2000, is_shared);
        multiplexer.attach(A);
        multiplexer
    })
}

fn level(level: &str) -> String {
    request("logging/setLevel", &format!(r#"{{"level":"{level}"}}"#))
}

fn refusal(number: u64) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{number},"error":{{"code":-32603,"message":"no"}}}}"#)
}

/// What A has.
fn granted(multiplexer: &Multiplexer) -> (Option<&'static str>, Vec<String>) {
    let (level, uris) = multiplexer.granted(A);
    (level, uris.into_iter().collect())
}

/// Has A ask for something, and the child agree or not.
fn settle(multiplexer: &mut Multiplexer, message: &str, accepted: bool) {
    let (number, _) = forwarded(ask(multiplexer, A, message));
    let incoming = say(multiplexer, &if accepted { answer(number) } else { refusal(number) });
    assert!(matches!(incoming, Incoming::Answer(..)), "{incoming:?}");
}

#[test]
fn a_session_has_what_the_child_has_agreed_to() {
    for mut multiplexer in both() {
        assert_eq!(granted(&multiplexer), (None, vec![]));
        let (subscribe, unsubscribe) =
            (request("resources/subscribe", SUBSCRIBE), request("resources/unsubscribe", SUBSCRIBE));
        let (number, _) = forwarded(ask(&mut multiplexer, A, &subscribe));
        assert_eq!(granted(&multiplexer), (None, vec![]), "it has only asked");
        say(&mut multiplexer, &refusal(number));
        assert_eq!(granted(&multiplexer), (None, vec![]));
        settle(&mut multiplexer, &subscribe, true);
        settle(&mut multiplexer, &unsubscribe, false);
        assert_eq!(granted(&multiplexer), (None, vec!["file:///a".to_owned()]));
        assert_eq!(heard_by(say(&mut multiplexer, UPDATED)), [A]);
        settle(&mut multiplexer, &level("error"), true);
        settle(&mut multiplexer, &level("debug"), false);
        assert_eq!(granted(&multiplexer).0, Some("error"));
        let (number, _) = forwarded(ask(&mut multiplexer, A, &unsubscribe));
        assert_eq!(granted(&multiplexer).1, ["file:///a"], "it has only asked");
        say(&mut multiplexer, &answer(number));
        assert_eq!(granted(&multiplexer), (Some("error"), vec![]));
    }
}

#[test]
fn what_the_child_leaves_unanswered_when_it_ends_is_as_it_was() {
    for mut multiplexer in both() {
        settle(&mut multiplexer, &request("resources/subscribe", SUBSCRIBE), true);
        settle(&mut multiplexer, &level("error"), true);
        forwarded(ask(&mut multiplexer, A, &request("resources/unsubscribe", SUBSCRIBE)));
        forwarded(ask(&mut multiplexer, A, &request("resources/subscribe", r#"{"uri":"file:///b"}"#)));
        forwarded(ask(&mut multiplexer, A, &level("debug")));
        for _ in 0..2 {
            assert_eq!(granted(&multiplexer), (Some("error"), vec!["file:///a".to_owned()]));
            multiplexer.drain();
        }
    }
}

#[test]
fn a_session_that_is_handed_over_gets_nothing_more_of_the_child_and_is_told_so() {
    for mut multiplexer in both() {
        let subscribe = request("resources/subscribe", SUBSCRIBE);
        let (number, _) = forwarded(ask(&mut multiplexer, A, &subscribe));
        forwarded(ask(&mut multiplexer, A, &level("debug")));
        let (call, _) = forwarded(ask(&mut multiplexer, A, &request("tools/call", "{}")));
        let gone = multiplexer.hand_over(A, Instant::now());
        assert_eq!(gone.calls.len(), 2);
        assert!(matches!(say(&mut multiplexer, &answer(number)), Incoming::Drop(_)), "it has failed");
        assert_eq!(granted(&multiplexer), (None, vec![]));
        for standing in [&subscribe, &level("info"), &request("resources/unsubscribe", SUBSCRIBE)] {
            assert_eq!(ask(&mut multiplexer, A, standing).unwrap_err(), Refused::Ended);
        }
        assert!(matches!(say(&mut multiplexer, &answer(call)), Incoming::Answer(..)), "what is in flight goes on");
        forwarded(ask(&mut multiplexer, A, &request("tools/call", "{}")));
    }
}

#[test]
fn who_is_not_handed_over_keeps_what_it_waits_for() {
    let mut multiplexer = shared(10);
    let subscribe = request("resources/subscribe", SUBSCRIBE);
    let (number, _) = forwarded(ask(&mut multiplexer, A, &subscribe));
    assert!(matches!(ask(&mut multiplexer, B, &subscribe), Ok(Outgoing::Wait)));
    let gone = multiplexer.hand_over(A, Instant::now());
    assert_eq!((gone.calls.len(), gone.waiting.len(), frames(&gone)), (1, 0, vec![]));
    let Incoming::Answer(answered, _) = say(&mut multiplexer, &answer(number)) else { panic!("lost") };
    assert_eq!(answered.call.peer, B);
    assert_eq!(heard_by(say(&mut multiplexer, UPDATED)), [B]);
    let (mut other, uri) = (shared(10), request("resources/subscribe", SUBSCRIBE));
    forwarded(ask(&mut other, B, &uri));
    assert!(matches!(ask(&mut other, A, &uri), Ok(Outgoing::Wait)));
    let gone = other.hand_over(A, Instant::now());
    assert_eq!((gone.calls.len(), gone.waiting.len()), (0, 1));
}

#[test]
fn what_the_child_says_meanwhile_is_for_a_client_that_goes_on_waiting_and_not_for_the_gateway() {
    for own in [A, B] {
        let (mut multiplexer, subscribe) = (shared(10), request("resources/subscribe", SUBSCRIBE));
        for peer in [A, B] {
            let (envelope, exchange) = (parse(subscribe.as_bytes()).unwrap(), exchange());
            let is_own = peer == own;
            let ask = Ask { envelope: &envelope, exchange: &exchange, timeout: TIMEOUT, is_own };
            assert!(matches!(multiplexer.ask(peer, &ask, Instant::now()), Ok(Outgoing::Forward(..) | Outgoing::Wait)));
        }
        multiplexer.detach(A, Instant::now());
        assert_eq!(multiplexer.in_flight(B).count, usize::from(own == A));
    }
}

#[test]
fn who_is_refused_an_unsubscribe_stays_and_takes_it_from_nobody() {
    let mut multiplexer = shared(10);
    let (subscribe, unsubscribe) =
        (request("resources/subscribe", SUBSCRIBE), request("resources/unsubscribe", SUBSCRIBE));
    settle(&mut multiplexer, &subscribe, true);
    let (of_a, _) = forwarded(ask(&mut multiplexer, A, &unsubscribe));
    // It is asked anew for B, and refuses to let A go.
    let (of_b, _) = forwarded(ask(&mut multiplexer, B, &subscribe));
    say(&mut multiplexer, &refusal(of_a));
    assert_eq!(heard_by(say(&mut multiplexer, UPDATED)), [A]);
    // B does not want it any more: the child must not be told so while A does.
    assert!(matches!(ask(&mut multiplexer, B, &unsubscribe), Ok(Outgoing::Local(_))));
    let Incoming::Answer(answered, _) = say(&mut multiplexer, &answer(of_b)) else { panic!("lost") };
    assert_eq!(answered.frame, None);
    assert_eq!(heard_by(say(&mut multiplexer, UPDATED)), [A]);
    let (of_a, _) = forwarded(ask(&mut multiplexer, A, &unsubscribe));
    forwarded(ask(&mut multiplexer, B, &subscribe));
    say(&mut multiplexer, &refusal(of_a));
    let gone = multiplexer.detach(B, Instant::now());
    assert!(frames(&gone).iter().all(|frame| !frame.contains("unsubscribe")), "{gone:?}");
}

#[test]
fn who_leaves_takes_no_subscription_that_another_is_asking_for() {
    let mut multiplexer = shared(10);
    let subscribe = request("resources/subscribe", SUBSCRIBE);
    settle(&mut multiplexer, &subscribe, true);
    let (of_a, _) = forwarded(ask(&mut multiplexer, A, &request("resources/unsubscribe", SUBSCRIBE)));
    let (of_b, _) = forwarded(ask(&mut multiplexer, B, &subscribe));
    say(&mut multiplexer, &refusal(of_a));
    let gone = multiplexer.detach(A, Instant::now());
    assert_eq!(frames(&gone), Vec::<String>::new());
    assert!(matches!(say(&mut multiplexer, &answer(of_b)), Incoming::Answer(..)));
    assert_eq!(heard_by(say(&mut multiplexer, UPDATED)), [B]);
}

#[test]
fn a_level_is_a_sessions_when_the_child_has_it_and_nobody_is_told_before() {
    let mut multiplexer = shared(10);
    settle(&mut multiplexer, &level("error"), true);
    let (of_a, _) = forwarded(ask(&mut multiplexer, A, &level("debug")));
    // The child has not agreed yet: B's request for the same is put to it as well.
    let (of_b, frame) = forwarded(ask(&mut multiplexer, B, &level("warning")));
    assert!(frame.contains(r#""level":"debug""#), "the loudest that anybody wants: {frame}");
    say(&mut multiplexer, &refusal(of_a));
    say(&mut multiplexer, &answer(of_b));
    assert_eq!((multiplexer.granted(A).0, multiplexer.granted(B).0), (Some("error"), Some("warning")));
    // One that is given up leaves nobody knowing.
    assert!(matches!(ask(&mut multiplexer, A, &level("debug")), Ok(Outgoing::Local(_))));
    assert!(matches!(ask(&mut multiplexer, B, &level("info")), Ok(Outgoing::Local(_))));
    forwarded(ask(&mut multiplexer, A, &level("error")));
    assert!(cancel(&mut multiplexer, A, Instant::now()));
    assert_eq!(multiplexer.granted(A).0, Some("debug"));
    forwarded(ask(&mut multiplexer, B, &level("info")));
}

#[test]
fn what_is_remembered_is_bounded() {
    let long = format!(r#"{{"uri":"file:///{}"}}"#, "x".repeat(8 * 1024));
    for mut multiplexer in both() {
        let is_shared = matches!(ask(&mut multiplexer, A, &request("ping", "{}")), Ok(Outgoing::Local(_)));
        for number in 0..1024 {
            let uri = format!(r#"{{"uri":"file:///{number}"}}"#);
            settle(&mut multiplexer, &request("resources/subscribe", &uri), true);
        }
        for params in [long.as_str(), r#"{"uri":"file:///more"}"#] {
            let outgoing = ask(&mut multiplexer, A, &request("resources/subscribe", params));
            assert_eq!(matches!(outgoing, Ok(Outgoing::Local(_))), is_shared, "{outgoing:?}");
            if let Ok(Outgoing::Forward(..)) = outgoing {
                let (number, _) = forwarded(outgoing);
                assert!(matches!(say(&mut multiplexer, &answer(number)), Incoming::Answer(..)));
            }
        }
        assert_eq!(granted(&multiplexer).1.len(), 1024);
    }
}
