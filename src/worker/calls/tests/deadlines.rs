//! Time-outs to the instant, and how often somebody has to look for them.

use std::ops::ControlFlow;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant, advance};

use super::super::{Ask, Expired, LeaseId, Multiplexer, Outgoing};
use super::story::{A, answer, cancel, exchange, request};
use crate::jsonrpc::parse;
use crate::worker::deadlines::keep_watch;

const SECOND: Duration = Duration::from_secs(1);
const ASKS: &str = r#"{"jsonrpc":"2.0","id":0,"method":"sampling/createMessage","params":{}}"#;

/// A child that somebody watches as the supervisor does.
struct Watched {
    multiplexer: Mutex<Multiplexer>,
    deadline_moved: Notify,
    looks: Mutex<usize>,
}

impl Watched {
    fn new(harakiri: Option<Duration>) -> Self {
        let mut multiplexer = Multiplexer::new(1000, true).with_harakiri(harakiri);
        multiplexer.attach(A);
        Self { multiplexer: Mutex::new(multiplexer), deadline_moved: Notify::new(), looks: Mutex::new(0) }
    }

    fn call(&self, timeout: Duration) -> u64 {
        let message = request("tools/call", "{}");
        let envelope = parse(message.as_bytes()).unwrap();
        let exchange = exchange();
        let ask = Ask { envelope: &envelope, exchange: &exchange, timeout, is_own: false };
        let mut multiplexer = self.multiplexer.lock();
        let Ok(Outgoing::Forward(number, _)) = multiplexer.ask(A, &ask, Instant::now()) else { panic!("refused") };
        self.moved(&mut multiplexer);
        number
    }

    fn say(&self, message: &str, timeout: Duration) {
        let message = bytes::Bytes::copy_from_slice(message.as_bytes());
        let mut multiplexer = self.multiplexer.lock();
        multiplexer.hear(&message, &parse(&message).unwrap(), Instant::now(), timeout);
        self.moved(&mut multiplexer);
    }

    fn moved(&self, multiplexer: &mut Multiplexer) {
        if multiplexer.timer.take_moved() {
            self.deadline_moved.notify_one();
        }
    }

    /// Watches until something is given up, or a call has overrun: when that was, and what.
    async fn expired(&self) -> (Instant, Expired) {
        keep_watch(&self.deadline_moved, |now| {
            *self.looks.lock() += 1;
            let mut multiplexer = self.multiplexer.lock();
            let expired = multiplexer.expire(now);
            if !expired.frames.is_empty() || multiplexer.has_overrun(now).is_some() {
                return ControlFlow::Break((now, expired));
            }
            ControlFlow::Continue(multiplexer.timer.at())
        })
        .await
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_given_up_when_its_time_is_over_and_not_later() {
    let (child, begin) = (Watched::new(None), Instant::now());
    let others = async {
        child.call(10 * SECOND);
        advance(SECOND).await;
        let short = child.call(SECOND / 4);
        advance(SECOND / 8).await;
        let progress =
            format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{short}}}}}"#);
        child.say(&progress, SECOND);
        std::future::pending::<()>().await;
    };
    let (at, expired) = tokio::select! {
        found = child.expired() => found,
        () = others => unreachable!(),
    };
    assert_eq!(at - begin, SECOND + SECOND / 8 + SECOND / 4, "progress has started its time anew");
    assert_eq!(expired.calls.len(), 1);
    assert_eq!(child.expired().await.0 - begin, 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_request_to_a_client_and_a_call_that_overruns_are_found_at_once() {
    let (child, begin) = (Watched::new(Some(3 * SECOND)), Instant::now());
    child.call(10 * SECOND);
    child.say(ASKS, SECOND / 2);
    let (at, expired) = child.expired().await;
    assert_eq!((at - begin, expired.calls.len(), expired.frames.len()), (SECOND / 2, 0, 1));
    assert_eq!(child.expired().await.0 - begin, 3 * SECOND, "it has overrun");
}

#[tokio::test(start_paused = true)]
async fn who_watches_sleeps_through_calls_that_are_answered() {
    let child = Watched::new(Some(100 * SECOND));
    let calls = async {
        for _ in 0..10_000 {
            let number = child.call(10 * SECOND);
            advance(Duration::from_millis(1)).await;
            child.say(&answer(number), SECOND);
        }
    };
    tokio::select! {
        _ = child.expired() => panic!("nothing was late"),
        () = calls => {}
    }
    let looks = *child.looks.lock();
    assert!(looks <= 4, "woken {looks} times in the 10 s of 10,000 calls");
}

#[test]
fn what_is_given_up_counts_until_the_instant_that_it_counts_to() {
    let mut multiplexer = Multiplexer::new(10, true);
    let (a, b) = (A, LeaseId(2));
    multiplexer.attach(a);
    multiplexer.attach(b);
    let now = Instant::now();
    let ask = |multiplexer: &mut Multiplexer, peer, now| {
        let message = request("tools/call", "{}");
        let envelope = parse(message.as_bytes()).unwrap();
        let ask = Ask { envelope: &envelope, exchange: &exchange(), timeout: 60 * SECOND, is_own: false };
        assert!(matches!(multiplexer.ask(peer, &ask, now), Ok(Outgoing::Forward(..))));
    };
    ask(&mut multiplexer, a, now);
    assert!(cancel(&mut multiplexer, a, now));
    let later = now + 60 * SECOND;
    ask(&mut multiplexer, b, later - SECOND);
    let message = bytes::Bytes::from_static(ASKS.as_bytes());
    // Nobody has looked meanwhile.
    for (at, asked) in [(later - Duration::from_nanos(1), vec![]), (later, vec![b])] {
        let incoming = multiplexer.hear(&message, &parse(&message).unwrap(), at, SECOND);
        assert_eq!(super::story::heard_by(incoming), asked);
    }
}
