//! Progress: whose a token is, on either side.

use bytes::Bytes;
use tokio::time::Instant;

use super::super::{Incoming, LeaseId, Multiplexer, Notified, Outgoing};
use super::story::{A, B, answer_as_client, ask, forwarded, heard_by, request, say, shared};
use crate::jsonrpc::parse;
use crate::telemetry::DropReason;

fn progress(token: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token}}}}}"#)
}

/// A call of A's with the token `"t"` that the child answers with a task; the number that the child knows it by.
fn task(multiplexer: &mut Multiplexer, status: &str) -> u64 {
    let params = r#"{"task":{"ttl":1},"_meta":{"progressToken":"t"}}"#;
    let (number, _) = forwarded(ask(multiplexer, A, &request("tools/call", params)));
    let task = format!(r#"{{"task":{{"taskId":"task","status":"{status}"}}}}"#);
    assert!(matches!(say(multiplexer, &result(number, &task)), Incoming::Answer(..)));
    number
}

fn result(number: u64, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{number},"result":{result}}}"#)
}

fn is_passed_on(multiplexer: &mut Multiplexer, number: u64) -> bool {
    match say(multiplexer, &progress(&number.to_string())) {
        Incoming::Unsolicited(_, message, None, peers) => {
            assert_eq!((message, peers), (progress("\"t\"").into(), vec![A]));
            true
        }
        Incoming::Drop(DropReason::LateProgress) => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn progress_of_a_task_is_passed_on_until_its_status_is_one_that_it_keeps() {
    for (is_shared, status) in [(true, "completed"), (false, "completed"), (true, "failed"), (true, "cancelled")] {
        let mut multiplexer = Multiplexer::new(10, is_shared);
        multiplexer.attach(A);
        let number = task(&mut multiplexer, "working");
        assert!(is_passed_on(&mut multiplexer, number));
        let notify = |status: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/tasks/status","params":{{"taskId":"task","status":"{status}"}}}}"#
            )
        };
        assert_eq!(heard_by(say(&mut multiplexer, &notify("input_required"))), [A]);
        assert!(is_passed_on(&mut multiplexer, number));
        assert_eq!(heard_by(say(&mut multiplexer, &notify(status))), [A]);
        assert!(!is_passed_on(&mut multiplexer, number), "{status}");
    }
}

#[test]
fn what_is_answered_about_a_task_tells_whether_it_goes_on() {
    let answers = [
        ("tasks/get", r#"{"taskId":"task","status":"working"}"#, true),
        ("tasks/get", r#"{"taskId":"task","status":"completed"}"#, false),
        ("tasks/cancel", r#"{"taskId":"task","status":"cancelled"}"#, false),
        ("tasks/result", r#"{"content":[]}"#, false),
    ];
    for (method, answer, goes_on) in answers {
        let mut multiplexer = shared(10);
        let number = task(&mut multiplexer, "working");
        let (asked, _) = forwarded(ask(&mut multiplexer, A, &request(method, r#"{"taskId":"task"}"#)));
        assert!(is_passed_on(&mut multiplexer, number), "{method} is not answered yet");
        say(&mut multiplexer, &result(asked, answer));
        assert_eq!(is_passed_on(&mut multiplexer, number), goes_on, "{method} {answer}");
    }
    let mut multiplexer = shared(10);
    let number = task(&mut multiplexer, "completed");
    assert!(!is_passed_on(&mut multiplexer, number), "it was over at once");
    let number = task(&mut multiplexer, "working");
    multiplexer.detach(A, Instant::now());
    assert!(!is_passed_on(&mut multiplexer, number), "its session has left");
}

#[test]
fn progress_is_passed_on_for_a_bounded_number_of_tasks() {
    let mut multiplexer = shared(2);
    let mut numbers = Vec::new();
    for id in 0..3 {
        let params = r#"{"_meta":{"progressToken":"t"}}"#;
        let (number, _) = forwarded(ask(&mut multiplexer, A, &request("tools/call", params)));
        say(&mut multiplexer, &result(number, &format!(r#"{{"task":{{"taskId":"{id}","status":"working"}}}}"#)));
        numbers.push(number);
    }
    let passed: Vec<bool> = numbers.into_iter().map(|number| is_passed_on(&mut multiplexer, number)).collect();
    assert_eq!(passed, [false, true, true]);
}

/// Makes the child ask A, with a token of its own; what A is asked.
fn asked(multiplexer: &mut Multiplexer, token: &str) -> (u64, Bytes) {
    let request = format!(
        r#"{{"jsonrpc":"2.0","id":0,"method":"elicitation/create","params":{{"_meta":{{"progressToken":{token}}}}}}}"#
    );
    forwarded(ask(multiplexer, A, &super::story::request("tools/call", "{}")));
    let Incoming::Unsolicited(_, message, Some(number), peers) = say(multiplexer, &request) else { panic!("refused") };
    assert_eq!(peers, [A]);
    (number, message)
}

fn say_as_client(multiplexer: &Multiplexer, peer: LeaseId, message: &str) -> Notified<Bytes> {
    multiplexer.notice_of_client(peer, &parse(message.as_bytes()).unwrap())
}

#[test]
fn progress_of_a_client_passes_only_from_who_was_asked_and_only_with_the_childs_own_token() {
    for is_shared in [true, false] {
        let mut multiplexer = Multiplexer::new(10, is_shared);
        multiplexer.attach(A);
        multiplexer.attach(B);
        if !is_shared {
            multiplexer.detach(B, Instant::now());
        }
        let (number, message) = asked(&mut multiplexer, "\"é\"");
        let message = String::from_utf8(message.to_vec()).unwrap();
        assert!(message.contains(&format!(r#"{{"progressToken":{number}}}"#)), "{message}");
        let dropped = Notified::Drop(DropReason::LateProgress);
        let own = progress(&number.to_string());
        assert_eq!(say_as_client(&multiplexer, B, &own), dropped, "B was not asked");
        for token in ["\"é\"", "0", &(number + 1).to_string()] {
            assert_eq!(say_as_client(&multiplexer, A, &progress(token)), dropped, "{token}");
        }
        let frame = Notified::Forward((progress("\"é\"") + "\n").into());
        assert_eq!(say_as_client(&multiplexer, A, &own), frame);
        let answer = format!(r#"{{"jsonrpc":"2.0","id":{number},"result":{{}}}}"#);
        answer_as_client(&mut multiplexer, &answer);
        assert_eq!(say_as_client(&multiplexer, A, &own), dropped, "it is answered");
        // A client that answers with a task goes on to tell of its progress.
        let (number, _) = asked(&mut multiplexer, "\"é\"");
        let answer = result(number, r#"{"task":{"taskId":"mine","status":"working"}}"#);
        answer_as_client(&mut multiplexer, &answer);
        assert_eq!(say_as_client(&multiplexer, A, &progress(&number.to_string())), frame);
    }
}

#[test]
fn what_a_client_was_asked_by_another_child_is_not_taken_for_what_this_one_asks() {
    let mut before = shared(10);
    let mut after = shared(10);
    let ((old, _), (new, _)) = (asked(&mut before, "0"), asked(&mut after, "0"));
    assert_ne!(old, new);
    assert!(old < 1 << 30, "some clients read ids as 32 bits");
    let answer = result(old, "{}");
    assert_eq!(after.answer_to_child(A, &parse(answer.as_bytes()).unwrap()), None);
}

#[test]
fn a_token_is_seen_however_it_is_written() {
    let mut multiplexer = shared(10);
    let (number, frame) =
        forwarded(ask(&mut multiplexer, A, &request("tools/call", r#"{"_meta":{"progress\u0054oken":77}}"#)));
    assert!(frame.contains(&format!(r#"{{"progress\u0054oken":{number}}}"#)), "{frame}");
    for params in [
        r#"{"_meta":{"progressToken":77,"progressToken":78}}"#,
        r#"{"_meta":{"progressToken":77},"_meta":{}}"#,
        r#"{"_meta":{"progressToken":77,"progress\u0054oken":78}}"#,
    ] {
        let outgoing = ask(&mut multiplexer, A, &request("tools/call", params));
        assert!(matches!(outgoing, Ok(Outgoing::Local(_))), "the child may take either: {params}: {outgoing:?}");
    }
    forwarded(ask(&mut multiplexer, A, &request("tools/call", r#"{"_meta":null}"#)));
    for params in ["[1]", r#"{"_meta":[77,"progressToken"]}"#, r#"{"_meta":{"progressToken":[77]}}"#] {
        let outgoing = ask(&mut multiplexer, A, &request("tools/call", params));
        assert!(matches!(outgoing, Ok(Outgoing::Local(_))), "a list may be read by position: {params}: {outgoing:?}");
    }
}
