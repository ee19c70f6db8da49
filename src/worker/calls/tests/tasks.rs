//! For how long a child is needed for a task.

use bytes::Bytes;
use tokio::time::{Duration, Instant};

use super::super::{Ask, Incoming, LeaseId, Multiplexer, Notified, Outgoing};
use super::story::{A, B, TIMEOUT, ask, exchange, forwarded, request};
use crate::jsonrpc::parse;
use crate::telemetry::DropReason;

const AUGMENTED: &str = r#"{"name":"t","task":{"ttl":60000}}"#;
const NAMED: &str = r#"{"taskId":"t"}"#;

/// A child with a session A, and B where it is shared, at a time of the test's own.
struct Child {
    multiplexer: Multiplexer,
    now: Instant,
}

impl Child {
    fn new(is_shared: bool) -> Self {
        let mut multiplexer = Multiplexer::new(10, is_shared);
        multiplexer.attach(A);
        if is_shared {
            multiplexer.attach(B);
        }
        Self { multiplexer, now: Instant::now() }
    }

    /// The same, where A has a call that has become a task, with the number of that call.
    fn with_task(is_shared: bool, status: &str) -> (Self, u64) {
        let mut child = Self::new(is_shared);
        let number = child.task("t", AUGMENTED, status);
        (child, number)
    }

    fn task(&mut self, id: &str, params: &str, status: &str) -> u64 {
        let number = self.ask(A, "tools/call", params);
        self.answer(number, &format!(r#"{{"task":{{"taskId":"{id}","status":"{status}"}}}}"#));
        number
    }

    fn ask(&mut self, peer: LeaseId, method: &str, params: &str) -> u64 {
        forwarded(self.try_ask(peer, method, params)).0
    }

    fn try_ask(&mut self, peer: LeaseId, method: &str, params: &str) -> Result<Outgoing, crate::worker::Refused> {
        let message = request(method, params);
        let envelope = parse(message.as_bytes()).unwrap();
        let exchange = exchange();
        let ask = Ask { envelope: &envelope, exchange: &exchange, timeout: TIMEOUT, is_own: false };
        self.multiplexer.ask(peer, &ask, self.now)
    }

    fn say(&mut self, message: &str) -> Incoming {
        let message = Bytes::copy_from_slice(message.as_bytes());
        self.multiplexer.hear(&message, &parse(&message).unwrap(), self.now, TIMEOUT)
    }

    fn answer(&mut self, number: u64, result: &str) {
        let answer = self.say(&format!(r#"{{"jsonrpc":"2.0","id":{number},"result":{result}}}"#));
        assert!(matches!(answer, Incoming::Answer(..)), "{answer:?}");
    }

    fn notify_status(&mut self, status: &str) {
        self.say(&format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/tasks/status","params":{{"taskId":"t","status":"{status}"}}}}"#
        ));
    }

    /// Whether the child is needed, for A and for nobody else.
    fn is_needed(&self) -> bool {
        let is_idle = self.multiplexer.is_idle();
        assert_eq!(is_idle, self.multiplexer.is_idle_for(A));
        assert!(self.multiplexer.is_idle_for(B));
        !is_idle
    }

    fn is_about_task(&self, peer: LeaseId, method: &str, params: &str) -> bool {
        let message = request(method, params);
        self.multiplexer.is_about_task_here(peer, &parse(message.as_bytes()).unwrap())
    }
}

#[test]
fn a_child_stays_for_a_task_until_its_result_is_fetched() {
    for (is_shared, end) in [(true, "completed"), (false, "completed"), (false, "failed")] {
        let (mut child, _) = Child::with_task(is_shared, "working");
        child.multiplexer.leave_when_idle(A);
        for status in ["working", "input_required", end] {
            child.notify_status(status);
            assert!(child.is_needed(), "{status}");
            assert_eq!(child.multiplexer.ready_to_leave(), []);
            let is_done = status == end;
            assert_eq!(child.multiplexer.is_done_for(A), is_done, "{status}");
            assert_eq!(child.multiplexer.works_on_task(), !is_done, "{status}");
        }
        let asked = child.ask(A, "tasks/result", NAMED);
        child.answer(asked, r#"{"content":[]}"#);
        assert!(!child.is_needed());
        assert_eq!(child.multiplexer.ready_to_leave(), [A]);
        // It may be long over when its call is answered.
        let (child, _) = Child::with_task(is_shared, end);
        assert!(child.is_needed(), "the result is there to be fetched");
    }
}

#[test]
fn a_child_does_not_stay_for_a_task_that_is_cancelled_or_whose_session_leaves() {
    for is_shared in [true, false] {
        let (mut child, _) = Child::with_task(is_shared, "working");
        let asked = child.ask(A, "tasks/cancel", NAMED);
        assert!(child.is_needed());
        child.answer(asked, r#"{"taskId":"t","status":"cancelled"}"#);
        assert!(!child.is_needed());
        for status in ["working", "completed"] {
            let (mut child, _) = Child::with_task(is_shared, status);
            child.multiplexer.detach(A, child.now);
            assert!(!child.is_needed(), "{status}");
            child.notify_status("working");
            assert!(!child.is_needed(), "{status}, and heard of");
        }
    }
}

#[test]
fn a_child_does_not_stay_for_a_task_that_it_does_not_know_any_more() {
    for is_shared in [true, false] {
        for (method, knows) in [("tasks/get", false), ("tasks/cancel", true)] {
            let (mut child, _) = Child::with_task(is_shared, "completed");
            let asked = child.ask(A, method, NAMED);
            child.say(&format!(r#"{{"jsonrpc":"2.0","id":{asked},"error":{{"code":-32602,"message":"no"}}}}"#));
            // What is over cannot be cancelled, and its result is there all the same.
            assert_eq!(child.is_needed(), knows, "{method}");
        }
    }
}

#[test]
fn a_task_that_nobody_speaks_of_keeps_its_child_for_the_patience_of_its_call_to_the_instant() {
    for (is_shared, status) in [(true, "working"), (false, "working"), (true, "completed"), (false, "completed")] {
        let (mut child, _) = Child::with_task(is_shared, status);
        let end = child.now + TIMEOUT;
        child.multiplexer.expire(end - Duration::from_nanos(1));
        assert!(child.is_needed(), "{status}");
        assert_eq!(child.multiplexer.timer.at(), Some(end), "{status}");
        child.multiplexer.expire(end);
        assert!(!child.is_needed(), "{status}");
        assert_eq!(child.multiplexer.timer.at(), None, "nobody looks again");
    }
}

#[test]
fn whoever_speaks_of_a_task_starts_that_time_anew() {
    type Sign = fn(&mut Child, u64);
    let signs: [(&str, Sign); 6] = [
        ("status", |child, _| child.notify_status("working")),
        ("its end", |child, _| child.notify_status("completed")),
        ("progress", |child, number| {
            child.say(&format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{number}}}}}"#
            ));
        }),
        ("a question", |child, _| assert!(child.ask(A, "tasks/get", NAMED) > 0)),
        ("an answer", |child, _| {
            let now = child.now;
            child.now -= TIMEOUT / 4;
            let asked = child.ask(A, "tasks/get", NAMED);
            child.now = now;
            child.answer(asked, r#"{"taskId":"t","status":"working"}"#);
        }),
        ("what was asked for in vain", |child, _| {
            let asked = child.ask(A, "tasks/get", NAMED);
            child.say(&format!(r#"{{"jsonrpc":"2.0","id":{asked},"error":{{"code":-32603,"message":""}}}}"#));
        }),
    ];
    for is_shared in [true, false] {
        for (what, sign) in signs {
            let (mut child, number) = Child::with_task(is_shared, "working");
            child.now += TIMEOUT / 2;
            sign(&mut child, number);
            let end = child.now + TIMEOUT;
            child.multiplexer.expire(end - Duration::from_nanos(1));
            assert!(child.is_needed(), "{what}");
            child.multiplexer.expire(end);
            assert!(!child.is_needed(), "{what}");
        }
        // One that was given up is there all the same.
        let (mut child, _) = Child::with_task(is_shared, "working");
        child.multiplexer.expire(child.now + TIMEOUT);
        child.notify_status("working");
        assert!(child.is_needed());
        child.multiplexer.expire(child.now + TIMEOUT);
        assert!(!child.is_needed());
    }
}

#[test]
fn a_call_that_becomes_a_task_when_it_was_given_up_counts_until_the_child_has_cancelled_it() {
    type End = fn(&mut Child);
    let ends: [End; 2] = [
        |child| drop(child.multiplexer.detach(A, child.now)),
        |child| drop(child.multiplexer.expire(child.now + TIMEOUT)),
    ];
    for end in ends {
        let mut child = Child::new(true);
        let number = child.ask(A, "tools/call", AUGMENTED);
        end(&mut child);
        let made =
            format!(r#"{{"jsonrpc":"2.0","id":{number},"result":{{"task":{{"taskId":"t","status":"working"}}}}}}"#);
        let Incoming::Reply(frame) = child.say(&made) else { panic!("nobody can ask for it") };
        let cancel = parse(&frame).unwrap();
        assert_eq!((cancel.method.as_deref(), cancel.params), (Some("tasks/cancel"), Some(NAMED)));
        let asked = cancel.raw_id().unwrap().as_u64().unwrap();
        assert!(!child.is_needed());
        child.ask(B, "tools/call", "{}");
        let sample = r#"{"jsonrpc":"2.0","id":7,"method":"sampling/createMessage","params":{}}"#;
        assert!(matches!(child.say(sample), Incoming::Reply(_)), "it may be for the task");
        child.say(&format!(r#"{{"jsonrpc":"2.0","id":{asked},"result":{{"taskId":"t","status":"cancelled"}}}}"#));
        assert!(matches!(child.say(sample), Incoming::Unsolicited(_, _, Some(_), peers) if peers == [B]));
        assert!(matches!(child.say(&made), Incoming::Drop(_)), "it has been answered");
    }
    // A server that names the task of another has not made one.
    let (mut child, _) = Child::with_task(true, "working");
    let number = child.ask(B, "tools/call", AUGMENTED);
    child.multiplexer.detach(B, child.now);
    let named = format!(r#"{{"jsonrpc":"2.0","id":{number},"result":{{"task":{{"taskId":"t","status":"working"}}}}}}"#);
    assert!(matches!(child.say(&named), Incoming::Drop(_)));
    assert!(child.is_about_task(A, "tasks/get", NAMED), "it is A's as before");
}

#[test]
fn what_was_not_asked_for_is_no_task_of_a_child_that_is_one_sessions_own() {
    for (is_shared, params, is_needed) in [(false, "{}", false), (false, AUGMENTED, true), (true, "{}", true)] {
        let mut child = Child::new(is_shared);
        child.task("t", params, "working");
        assert_eq!(child.is_needed(), is_needed, "{is_shared} {params}");
    }
}

#[test]
fn only_so_many_tasks_are_remembered_and_those_first_that_go_on() {
    let mut child = Child::new(false);
    let working = child.task("goes on", AUGMENTED, "working");
    for number in 0..20 {
        child.task(&format!("over {number}"), AUGMENTED, "completed");
    }
    assert_eq!(child.multiplexer.live_tasks.awaited().count(), 10);
    assert!(child.multiplexer.live_tasks.working(working).is_some());
    for number in 0..20 {
        child.task(&format!("another {number}"), AUGMENTED, "working");
    }
    assert_eq!(child.multiplexer.live_tasks.awaited().count(), 10);
    assert!(child.multiplexer.live_tasks.working(working).is_none());
}

#[test]
fn what_names_a_task_of_the_session_is_about_one_while_the_child_is_there_for_the_session() {
    for is_shared in [true, false] {
        let (mut child, _) = Child::with_task(is_shared, "working");
        for method in ["tasks/get", "tasks/result", "tasks/cancel"] {
            assert!(child.is_about_task(A, method, NAMED), "{method}");
            assert!(!child.is_about_task(B, method, NAMED), "{method}: it is not B's");
            assert!(!child.is_about_task(A, method, r#"{"taskId":"another"}"#), "{method}");
        }
        for method in ["tasks/list", "tools/call"] {
            assert!(!child.is_about_task(A, method, NAMED), "{method}");
        }
        let asked = child.ask(A, "tasks/result", NAMED);
        child.answer(asked, "{}");
        assert!(!child.is_about_task(A, "tasks/get", NAMED), "it may be off the child at any moment");
        child.ask(A, "tools/call", "{}");
        assert!(child.is_about_task(A, "tasks/get", NAMED));
    }
}

#[test]
fn nobody_names_the_task_of_another_session_to_a_shared_child() {
    let (mut child, _) = Child::with_task(true, "working");
    let task: serde_json::Value = serde_json::from_str(NAMED).unwrap();
    let related = format!(r#"{{"_meta":{{"io.modelcontextprotocol/related-task":{task}}}}}"#);
    let of_no_known_form = r#"{"_meta":{"io.modelcontextprotocol/related-task":7}}"#;
    for (method, params) in [("tools/call", &*related), ("x/y", &related), ("tasks/later", NAMED), ("tasks/get", NAMED)]
    {
        let message = request(method, params);
        let to_a = ask(&mut child.multiplexer, A, &message);
        assert!(matches!(to_a, Ok(Outgoing::Forward(..))), "{method}: {to_a:?}");
        let Ok(Outgoing::Local(answer)) = ask(&mut child.multiplexer, B, &message) else { panic!("{method}") };
        assert!(String::from_utf8_lossy(&answer).contains("there is no such task"), "{method}");
    }
    let said = ask(&mut child.multiplexer, A, &request("tools/call", of_no_known_form));
    assert!(matches!(said, Ok(Outgoing::Local(_))), "{said:?}");
    for (method, params) in [("notifications/x", &*related), ("notifications/tasks/later", NAMED)] {
        let message = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#);
        let envelope = parse(message.as_bytes()).unwrap();
        let told = |peer| child.multiplexer.notice_of_client(peer, &envelope);
        assert!(matches!(told(A), Notified::Forward(_)), "{method}");
        assert_eq!(told(B), Notified::Drop(DropReason::Unattributable), "{method}");
    }
}
