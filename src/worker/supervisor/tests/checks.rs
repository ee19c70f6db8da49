//! What has to have come of each call: one answer, its own, or an error that there is a reason for, or none because it
//! was cancelled.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tokio::time::sleep;

use super::child::Heard;
use super::session::{Call, Calls, Session};
use super::*;
use crate::jsonrpc::parse;
use crate::stream::Entry;

/// How often what should happen has happened.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) answered: u64,
    pub(super) refused: u64,
    pub(super) timed_out: u64,
    pub(super) crashed_over: u64,
    pub(super) left_over: u64,
    pub(super) settled: u64,
    pub(super) not_cancelled: u64,
    pub(super) progress: u64,
    pub(super) asked: u64,
    pub(super) granted: u64,
}

impl Session {
    /// Each on a stream of its own.
    pub(super) fn check_each(&self, calls: &Calls, tally: &mut Tally) -> Vec<String> {
        let (mut settled, mut granted) = (BTreeMap::<String, usize>::new(), Vec::new());
        for call in &calls.taken {
            let answers = call.items.iter().filter(|item| item.answer).count();
            assert!(answers <= 1, "answered {answers} times");
            assert!(answers == 0 || !call.is_cancelled, "cancelled, and answered");
            if answers == 0 {
                *settled.entry(call.id.clone()).or_default() += 1;
            }
            for item in &call.items {
                granted.extend(self.check_item(call, item, tally));
            }
        }
        assert_eq!(settled, calls.cancelled, "calls that have come to no answer, and those that were cancelled");
        tally.settled += settled.values().sum::<usize>() as u64;
        granted
    }

    /// All on one stream, which does not end.
    pub(super) async fn check_stream(&self, tally: &mut Tally) -> Vec<String> {
        let items = &self.stream.as_ref().unwrap().items;
        let is_over = || {
            self.read();
            let calls = self.calls.lock();
            let answered = items.lock().iter().filter(|item| item.answer).count();
            answered + calls.cancelled.values().sum::<usize>() >= calls.taken.len()
        };
        while !is_over() {
            sleep(Duration::from_millis(1)).await;
        }
        let (calls, items) = (self.calls.lock(), items.lock());
        let (mut open, mut granted) = (BTreeMap::<&str, usize>::new(), Vec::new());
        calls.taken.iter().for_each(|call| *open.entry(call.id.as_str()).or_default() += 1);
        let mut answered = BTreeSet::new();
        for item in items.iter() {
            let envelope = parse(&item.message).unwrap();
            let value = readable(&item.message);
            let nonce = nonce(&value);
            // An error of the gateway's own says the id only.
            let id = envelope.id.map(str::to_owned);
            let is_it = |call: &&Call| Some(call.nonce) == nonce || (nonce.is_none() && Some(&call.id) == id.as_ref());
            let call = calls.taken.iter().find(is_it).unwrap_or_else(|| panic!("nobody has asked for {value}"));
            if item.answer {
                assert!(nonce.is_none_or(|nonce| answered.insert(nonce)), "answered twice: {value}");
                assert!(!call.is_cancelled, "cancelled, and answered: {value}");
                let open = open.get_mut(call.id.as_str()).unwrap();
                *open = open.checked_sub(1).unwrap();
            }
            granted.extend(self.check_item(call, item, tally));
        }
        open.retain(|_, left| *left > 0);
        let cancelled = calls.cancelled.iter().map(|(id, count)| (id.as_str(), *count)).collect::<BTreeMap<_, _>>();
        assert_eq!(open, cancelled, "calls that have come to no answer, and those that were cancelled");
        tally.settled += cancelled.values().sum::<usize>() as u64;
        granted
    }

    /// What has come for a call is about it; the URI that it was granted.
    fn check_item(&self, call: &Call, item: &Entry, tally: &mut Tally) -> Option<String> {
        let value = readable(&item.message);
        if !item.answer {
            let params = &value["params"];
            let token = format!(r#""progressToken":{},"progress":{}}}"#, call.id, call.nonce);
            assert!(memchr::memmem::find(&item.message, token.as_bytes()).is_some(), "{params}, not {token}");
            tally.progress += 1;
            return None;
        }
        assert_eq!(parse(&item.message).unwrap().id, Some(call.id.as_str()));
        let kind = value["error"]["data"]["type"].as_str();
        match (kind, nonce(&value)) {
            (None, Some(nonce)) => {
                assert_eq!(nonce, call.nonce, "the answer to another call");
                tally.answered += 1;
                return call.uri.clone().filter(|_| value.get("result").is_some());
            }
            // On one stream nobody knows which of those with the same id it is.
            (Some("call_timeout"), None) if call.is_mute || (self.stream.is_some() && call.is_one_of_many()) => {
                tally.timed_out += 1;
            }
            (Some("server_exited"), None) if self.fate == Fate::Crashes => tally.crashed_over += 1,
            (Some("session_ended"), None) if self.has_left.load(Ordering::Relaxed) => tally.left_over += 1,
            _ => panic!("{value}, of {:?}", self.fate),
        }
        None
    }

    /// What the child has heard is what was taken, in this order, and nothing else; and no more has come of it.
    pub(super) fn check_heard(&self, heard: &Heard) {
        let before = self.stream.as_ref().map(|stream| stream.items.lock().iter().filter(|item| item.answer).count());
        self.read();
        let after = self.stream.as_ref().map(|stream| stream.items.lock().iter().filter(|item| item.answer).count());
        assert_eq!(before, after, "more answers than calls");
        let calls = self.calls.lock();
        let taken: Vec<u64> = calls.taken.iter().map(|call| call.nonce).collect();
        let own: Vec<u64> = heard.nonces.iter().copied().filter(|nonce| taken.contains(nonce)).collect();
        match heard.crashed {
            true => assert!(taken.starts_with(&own), "{own:?}, not {taken:?}"),
            false => assert_eq!(own, taken),
        }
        assert!(calls.refused.iter().all(|nonce| !heard.nonces.contains(nonce)), "refused, and heard");
    }
}

fn readable(message: &[u8]) -> Value {
    serde_json::from_str(&String::from_utf8_lossy(message).replace("1e400", "0")).unwrap()
}

/// The number of the call that something is about.
fn nonce(value: &Value) -> Option<u64> {
    ["/result/nonce", "/error/data/nonce", "/params/progress"].iter().find_map(|place| value.pointer(place)?.as_u64())
}

impl Tally {
    /// Calls that the child has taken.
    pub(super) fn calls(&self) -> u64 {
        self.answered + self.timed_out + self.crashed_over + self.left_over + self.settled
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.answered += other.answered;
        self.refused += other.refused;
        self.timed_out += other.timed_out;
        self.crashed_over += other.crashed_over;
        self.left_over += other.left_over;
        self.settled += other.settled;
        self.not_cancelled += other.not_cancelled;
        self.progress += other.progress;
        self.asked += other.asked;
        self.granted += other.granted;
    }

    /// What makes the test worth its time has happened.
    pub(super) fn check(&self) {
        let least = self.calls() / 2000;
        for (what, count) in [
            ("answered", self.answered),
            ("refused", self.refused),
            ("timed out", self.timed_out),
            ("crashed over", self.crashed_over),
            ("left over", self.left_over),
            ("settled", self.settled),
            ("not cancelled", self.not_cancelled),
            ("progress", self.progress),
            ("asked", self.asked),
            ("granted", self.granted),
        ] {
            assert!(count >= least, "{what}: {count}");
        }
    }
}
