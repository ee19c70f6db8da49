//! The rules for sharing a child, one by one, where a story says more than the property test.

use tokio::time::Instant;

use super::super::{Ask, Incoming, Multiplexer, Notified, Outgoing};
use super::story::{
    A, B, SUBSCRIBE, TIMEOUT, answer, answer_as_client, ask, cancel, exchange, forwarded, frames, heard_by, request,
    say, shared,
};
use crate::jsonrpc::parse;
use crate::telemetry::DropReason;
use crate::worker::Refused;

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
    for (peer, text) in [(A, "error"), (B, "debug")] {
        let (number, frame) = forwarded(ask(&mut multiplexer, peer, &level(text)));
        assert!(frame.contains(&format!(r#""level":"{text}""#)), "{frame}");
        say(&mut multiplexer, &answer(number));
    }
    assert!(matches!(ask(&mut multiplexer, A, &level("warning")), Ok(Outgoing::Local(_))));
    let line = |level: &str| {
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"{level}","data":1}}}}"#)
    };
    let incoming = say(&mut multiplexer, &line("emergency"));
    assert!(matches!(incoming, Incoming::Drop(DropReason::Unattributable)), "two are there: {incoming:?}");
    let gone = multiplexer.detach(B, Instant::now());
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
    assert_eq!(multiplexer.notice_of_client(A, &parse(roots).unwrap()), Notified::Ignore);
    assert!(matches!(ask(&mut multiplexer, A, &request("ping", "{}")), Ok(Outgoing::Local(_))));
}

#[test]
fn ids_and_tokens_are_of_bounded_length() {
    for is_shared in [true, false] {
        let mut multiplexer = Multiplexer::new(10, is_shared);
        multiplexer.attach(A);
        let long = format!("\"{}\"", "x".repeat(1024));
        let call = |id: &str, token: &str| {
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"x","params":{{"_meta":{{"progressToken":{token}}}}}}}"#)
        };
        for message in [call(&long, "1"), call("1", &long)] {
            let Ok(Outgoing::Local(refused)) = ask(&mut multiplexer, A, &message) else { panic!("it is taken") };
            assert!(String::from_utf8_lossy(&refused).contains("longer than 1024 bytes"), "{refused:?}");
        }
        let (number, _) = forwarded(ask(&mut multiplexer, A, &call("1", "1")));
        for message in [call(&long, "1"), call("1", &long)] {
            let Incoming::Reply(refused) = say(&mut multiplexer, &message) else { panic!("it is taken") };
            assert!(String::from_utf8_lossy(&refused).contains("longer than 1024 bytes"), "{refused:?}");
        }
        // A task with such a name is nobody's.
        let result = format!(r#"{{"task":{{"taskId":"{}","status":"working"}}}}"#, "x".repeat(1025));
        say(&mut multiplexer, &format!(r#"{{"jsonrpc":"2.0","id":{number},"result":{result}}}"#));
        assert!(multiplexer.sharing.tasks.is_empty() && multiplexer.live_tasks.is_empty());
    }
}

#[test]
fn another_sessions_id_cancels_nothing() {
    let mut multiplexer = shared(10);
    forwarded(ask(&mut multiplexer, A, &request("tools/call", "{}")));
    let mut cancelled = |peer| cancel(&mut multiplexer, peer, Instant::now());
    assert!(!cancelled(B));
    assert!(cancelled(A) && !cancelled(A), "it is over");
}

#[test]
fn a_level_that_is_none_does_not_reach_the_child() {
    let mut multiplexer = shared(10);
    forwarded(ask(&mut multiplexer, A, &request("logging/setLevel", r#"{"level":"info"}"#)));
    for params in [r#"{"level":"loud"}"#, "{}", r#"{"level":"debug","level":"error"}"#] {
        let outgoing = ask(&mut multiplexer, B, &request("logging/setLevel", params));
        assert!(matches!(outgoing, Ok(Outgoing::Local(_))), "{params}: {outgoing:?}");
    }
}

#[test]
fn the_list_of_tasks_holds_no_others_however_it_is_written() {
    let mut multiplexer = shared(10);
    let (number, _) = forwarded(ask(&mut multiplexer, A, &request("tools/call", "{}")));
    say(&mut multiplexer, &format!(r#"{{"jsonrpc":"2.0","id":{number},"result":{{"task":{{"taskId":"a"}}}}}}"#));
    let lists = [
        (
            r#"{"tasks":[{"taskId":"a","x":1e400},{"taskId":"b"}],"nextCursor":"c"}"#,
            r#"{"tasks":[{"taskId":"a","x":1e400}],"nextCursor":"c"}"#,
        ),
        (r#"{"tasks":[{"taskId":"b"},{"x":1},7,{"taskId":"a","taskId":"b"}]}"#, r#"{"tasks":[]}"#),
        (r#"{"other":1}"#, r#"{"other":1}"#),
    ];
    let mut list = |result: &str| {
        let (number, _) = forwarded(ask(&mut multiplexer, A, &request("tasks/list", "{}")));
        let incoming = say(&mut multiplexer, &format!(r#"{{"jsonrpc":"2.0","id":{number},"result":{result}}}"#));
        let Incoming::Answer(_, message) = incoming else { panic!("{incoming:?}") };
        String::from_utf8(message.to_vec()).unwrap()
    };
    for (told, own) in lists {
        assert_eq!(list(told), format!(r#"{{"jsonrpc":"2.0","id":"é","result":{own}}}"#));
    }
    for told in [r#"{"tasks":[],"tasks":[{"taskId":"b"}]}"#, r#"{"tasks":{"taskId":"b"}}"#] {
        let answer = list(told);
        assert!(answer.contains("-32603") && !answer.contains("taskId"), "{answer}");
    }
}

#[test]
fn what_the_gateway_asks_for_a_session_is_no_call_of_its_client() {
    let mut multiplexer = shared(10);
    let list = request("tools/list", "{}");
    let (envelope, exchange) = (parse(list.as_bytes()).unwrap(), exchange());
    let own = Ask { envelope: &envelope, exchange: &exchange, timeout: TIMEOUT, is_own: true };
    let (own, _) = forwarded(multiplexer.ask(A, &own, Instant::now()));
    assert_eq!(multiplexer.in_flight(A).count, 0);
    let (call, _) = forwarded(ask(&mut multiplexer, A, &list));
    assert_eq!(multiplexer.in_flight(A).count, 1);
    let mut cancelled = || cancel(&mut multiplexer, A, Instant::now());
    assert!(cancelled() && !cancelled(), "the client's own, though both have one id");
    say(&mut multiplexer, &answer(own));
    assert_eq!(multiplexer.answered, 0);
    say(&mut multiplexer, &answer(call));
    let (call, _) = forwarded(ask(&mut multiplexer, A, &list));
    say(&mut multiplexer, &answer(call));
    assert_eq!(multiplexer.answered, 1);
}

#[test]
fn who_has_another_child_hears_from_the_old_one_of_its_own_calls_only() {
    let mut multiplexer = shared(10);
    for peer in [A, B] {
        let outgoing = ask(&mut multiplexer, peer, &request("resources/subscribe", SUBSCRIBE));
        if let Ok(Outgoing::Forward(number, _)) = outgoing {
            say(&mut multiplexer, &answer(number));
        }
    }
    let (number, _) = forwarded(ask(&mut multiplexer, A, &request("tools/call", "{}")));
    multiplexer.leave_when_idle(A);
    let changed = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
    let updated = format!(r#"{{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{SUBSCRIBE}}}"#);
    for announcement in [changed, &updated] {
        assert_eq!(heard_by(say(&mut multiplexer, announcement)), [B], "{announcement}");
    }
    let sample = r#"{"jsonrpc":"2.0","id":0,"method":"sampling/createMessage","params":{}}"#;
    let Incoming::Unsolicited(_, _, Some(asked), peers) = say(&mut multiplexer, sample) else { panic!() };
    assert_eq!(peers, [A]);
    say(&mut multiplexer, &answer(number));
    assert!(multiplexer.ready_to_leave().is_empty(), "it has not answered yet");
    answer_as_client(&mut multiplexer, &answer(asked));
    assert_eq!(multiplexer.ready_to_leave(), [A]);
    multiplexer.leave_when_idle(B);
    assert!(matches!(say(&mut multiplexer, changed), Incoming::Ignore), "nobody is left to hear it");
}

#[test]
fn a_level_is_the_childs_when_it_says_so_and_not_before() {
    let level = request("logging/setLevel", r#"{"level":"info"}"#);
    let refusal =
        |number: u64| format!(r#"{{"jsonrpc":"2.0","id":{number},"error":{{"code":-32601,"message":"no"}}}}"#);
    let log = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"debug","data":1}}"#;
    let mut multiplexer = shared(10);
    let (of_a, _) = forwarded(ask(&mut multiplexer, A, &level));
    // What A has asked for may be refused: B does not get it for that.
    let (of_b, _) = forwarded(ask(&mut multiplexer, B, &level));
    say(&mut multiplexer, &refusal(of_a));
    say(&mut multiplexer, &refusal(of_b));
    multiplexer.detach(B, Instant::now());
    assert_eq!(heard_by(say(&mut multiplexer, log)), [A], "A has not got the level that keeps this from it");

    // One that timed out, or was cancelled, is told again.
    let (_, now) = (forwarded(ask(&mut multiplexer, A, &level)), Instant::now() + TIMEOUT);
    assert_eq!(multiplexer.expire(now).calls.len(), 1);
    let (number, _) = forwarded(ask(&mut multiplexer, A, &level));
    assert!(multiplexer.cancel(number, now).is_some());
    let (number, _) = forwarded(ask(&mut multiplexer, A, &level));
    // Its frame could not be queued.
    multiplexer.forget(number);
    assert_eq!(heard_by(say(&mut multiplexer, log)), [A], "{number} has not been heard");
    let (number, _) = forwarded(ask(&mut multiplexer, A, &level));
    say(&mut multiplexer, &answer(number));
    assert!(matches!(ask(&mut multiplexer, A, &level), Ok(Outgoing::Local(_))));
    assert!(matches!(say(&mut multiplexer, log), Incoming::Ignore));
}

#[test]
fn tasks_that_a_session_leaves_behind_are_cancelled_and_count_until_they_are_over() {
    let mut multiplexer = shared(10);
    for (task, status) in [("goes-on", "working"), ("is-over", "completed")] {
        let (number, _) = forwarded(ask(&mut multiplexer, A, &request("tools/call", "{}")));
        let task = format!(r#"{{"task":{{"taskId":"{task}","status":"{status}"}}}}"#);
        say(&mut multiplexer, &format!(r#"{{"jsonrpc":"2.0","id":{number},"result":{task}}}"#));
    }
    let told = frames(&multiplexer.detach(A, Instant::now()));
    let [cancel] = told.as_slice() else { panic!("{told:?}") };
    assert!(cancel.contains(r#""method":"tasks/cancel","params":{"taskId":"goes-on"}"#), "{cancel}");
    forwarded(ask(&mut multiplexer, B, &request("tools/call", "{}")));
    let sample = r#"{"jsonrpc":"2.0","id":0,"method":"sampling/createMessage","params":{}}"#;
    assert_eq!(heard_by(say(&mut multiplexer, sample)), [], "it may be for A's task");
    let number = parse(cancel.as_bytes()).unwrap().raw_id().unwrap();
    let is_over =
        format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{"taskId":"goes-on","status":"cancelled"}}}}"#, number.as_str());
    assert!(matches!(say(&mut multiplexer, &is_over), Incoming::Ignore));
    assert_eq!(heard_by(say(&mut multiplexer, sample)), [B]);
}
