//! A session: what its client asks for, gives up and answers, from two tasks at once; and what it has to have got at
//! the end.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::sleep;

use super::checks::Tally;
use super::*;
use crate::jsonrpc::parse;
use crate::memory::Account;
use crate::stream::{Budget, Cursor, Entry, Exchange, Item, Outbox};
use crate::worker::calls::{Ask, InFlight, Refused, Unsolicited};
use crate::worker::lease_holder::{LeaseHolder, Route};

/// What clients write, often the same.
const IDS: [&str; 6] = ["1", "2", "\"1\"", "1.0", "\"\\u0031\"", "-0"];
const ROOM: Budget = Budget { messages: 100_000, bytes: 100_000_000 };

/// What a session hears unasked.
pub(super) struct Listener {
    outbox: Outbox,
}

impl LeaseHolder for Listener {
    fn route(&self, _: &Item, _: Unsolicited, _: &InFlight) -> Route {
        Route::Stream(self.outbox.clone())
    }

    fn forget(&self, _: u64) -> bool {
        false
    }

    fn exited(&self) {}
}

/// A call that the lease has taken.
pub(super) struct Call {
    pub(super) nonce: u64,
    pub(super) id: String,
    /// The URI that it subscribes to.
    pub(super) uri: Option<String>,
    /// Whether the child does not answer it.
    pub(super) is_mute: bool,
    /// Whether this very call was cancelled, and no other.
    pub(super) is_cancelled: bool,
    /// Where its answer comes, if not on the session's stream, and what has come.
    pub(super) cursor: Option<Cursor>,
    pub(super) items: Vec<Entry>,
}

/// A stream that outlives its answers, and what has come of it.
pub(super) struct Stream {
    pub(super) exchange: Arc<Exchange>,
    pub(super) cursor: Mutex<Cursor>,
    pub(super) items: Mutex<Vec<Entry>>,
}

impl Call {
    /// Whether others may have the same id.
    pub(super) fn is_one_of_many(&self) -> bool {
        IDS.contains(&self.id.as_str())
    }
}

#[derive(Default)]
pub(super) struct Calls {
    /// In the order in which they were taken.
    pub(super) taken: Vec<Call>,
    pub(super) refused: Vec<u64>,
    /// How many calls with each id were cancelled.
    pub(super) cancelled: BTreeMap<String, usize>,
}

pub(super) struct Session {
    pub(super) lease: Lease,
    pub(super) fate: Fate,
    pub(super) nonces: Arc<AtomicU64>,
    /// Held while a call is put to the child, or taken from it.
    pub(super) calls: Mutex<Calls>,
    /// The one stream of a client that has one.
    pub(super) stream: Option<Stream>,
    pub(super) listener: Arc<Listener>,
    pub(super) unasked: Mutex<Cursor>,
    pub(super) has_left: AtomicBool,
    pub(super) next: Mutex<Option<Arc<Lease>>>,
}

fn message(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

impl Session {
    pub(super) fn new(number: usize, worker: &Worker, fate: Fate, nonces: Arc<AtomicU64>) -> Arc<Self> {
        // Some do not read what they are sent.
        let room = if number % 4 == 3 { Budget { messages: 4, bytes: 4000 } } else { ROOM };
        let (outbox, unasked) = Outbox::new(room);
        let listener = Arc::new(Listener { outbox });
        let weak: std::sync::Weak<Listener> = Arc::downgrade(&listener);
        let stream = (number % 2 == 1).then(|| {
            let (outbox, cursor) = Outbox::new(ROOM);
            Stream {
                exchange: Arc::new(Exchange::of_stream(outbox, &Account::unlimited())),
                cursor: Mutex::new(cursor),
                items: Mutex::default(),
            }
        });
        Arc::new(Self {
            lease: Lease::new(worker.clone(), weak, false),
            fate,
            nonces,
            calls: Mutex::default(),
            stream,
            listener,
            unasked: Mutex::new(unasked),
            has_left: AtomicBool::new(false),
            next: Mutex::new(None),
        })
    }

    /// Does what clients do, for so long as the child takes calls.
    pub(super) async fn work(self: Arc<Self>, mut rng: TestRng, leaves_after: Option<usize>) -> Tally {
        let mut tally = Tally::default();
        for step in 0..CALLS_OF_SESSION {
            if leaves_after == Some(step) {
                self.has_left.store(true, Ordering::Relaxed);
                self.lease.leave();
            }
            match self.call(&mut rng) {
                Ok(place) if rng.below(3) > 0 => {
                    if rng.below(4) == 0 {
                        self.cancel(&mut rng, place, &mut tally);
                    }
                    self.settle(place).await;
                }
                Ok(place) => {
                    let place = place.saturating_sub(rng.below(6));
                    self.cancel(&mut rng, place, &mut tally);
                }
                Err(Refused::Busy | Refused::Share | Refused::Memory(_)) => {
                    tally.refused += 1;
                    sleep(Duration::from_micros(100 * rng.below(20) as u64)).await;
                }
                Err(Refused::Ended | Refused::Retired | Refused::SessionEnded) => break,
            }
            self.listen(&mut rng, &mut tally).await;
        }
        tally
    }

    /// Puts a call to the child.
    fn call(&self, rng: &mut TestRng) -> Result<usize, Refused> {
        let nonce = self.nonces.fetch_add(1, Ordering::Relaxed);
        let id = if rng.below(2) == 0 { nonce.to_string() } else { IDS[rng.below(IDS.len())].to_owned() };
        let (is_mute, uri) = (rng.below(12) == 0, (rng.below(8) == 0).then(|| format!("x:{nonce}")));
        let is_mute = is_mute && uri.is_none();
        let (method, more) = match &uri {
            Some(uri) => ("resources/subscribe", format!(r#""uri":"{uri}""#)),
            None => ("tools/call", format!(r#""mute":{is_mute},"fill":"{}""#, "é".repeat(rng.below(200)))),
        };
        let text = message(&format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{"nonce":{nonce},{more},"_meta":{{"progressToken":{id}}}}}}}"#
        ));
        let (exchange, cursor) = match &self.stream {
            Some(stream) => (Arc::clone(&stream.exchange), None),
            None => {
                let (outbox, cursor) = Outbox::new(ROOM);
                (Arc::new(Exchange::of_request(outbox, 1, &Account::unlimited())), Some(cursor))
            }
        };
        let envelope = parse(&text).unwrap();
        let timeout = if is_mute { SHORT } else { FOR_EVER };
        let ask = Ask { envelope: &envelope, exchange: &exchange, timeout, is_own: false };
        let mut calls = self.calls.lock();
        if let Err(refused) = self.lease.call(&ask, None) {
            calls.refused.push(nonce);
            assert!(cursor.is_none_or(|mut cursor| cursor.next().now_or_never().is_none()), "refused, and answered");
            return Err(refused);
        }
        calls.taken.push(Call { nonce, id, uri, is_mute, is_cancelled: false, cursor, items: Vec::new() });
        Ok(calls.taken.len() - 1)
    }

    /// The client gives up a call, or the latest that has the same id.
    fn cancel(&self, rng: &mut TestRng, place: usize, tally: &mut Tally) {
        let mut calls = self.calls.lock();
        let id = calls.taken[place].id.clone();
        let text = format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#);
        for _ in 0..=rng.below(2) {
            match self.lease.follow_up(&parse(text.as_bytes()).unwrap()) {
                Some(Ok(())) => {
                    let call = &mut calls.taken[place];
                    call.is_cancelled |= !call.is_one_of_many();
                    *calls.cancelled.entry(id.clone()).or_default() += 1;
                }
                Some(Err(_)) => tally.not_cancelled += 1,
                None => {}
            }
        }
    }

    /// Waits until a call is over.
    async fn settle(&self, place: usize) {
        let cursor = self.calls.lock().taken[place].cursor.take();
        let Some(mut cursor) = cursor else { return self.read() };
        let mut items = Vec::new();
        while let Some(item) = cursor.next().await {
            items.push(item);
        }
        self.calls.lock().taken[place].items = items;
    }

    /// Reads what has come on the session's stream.
    pub(super) fn read(&self) {
        if let Some(Stream { cursor, items, .. }) = &self.stream {
            let (mut cursor, mut items) = (cursor.lock(), items.lock());
            while let Some(Some(item)) = cursor.next().now_or_never() {
                items.push(item);
            }
        }
    }

    /// Hears what the child asks, and answers that, or not.
    async fn listen(&self, rng: &mut TestRng, tally: &mut Tally) {
        if rng.below(3) > 0 {
            return;
        }
        loop {
            let next = self.unasked.lock().next().now_or_never();
            let Some(Some(item)) = next else { return };
            let Some(request) = item.request else { continue };
            tally.asked += 1;
            if rng.below(4) == 0 {
                continue;
            }
            let value: Value = serde_json::from_slice(&item.message).unwrap();
            assert_eq!(value["id"].as_u64(), Some(request));
            let text = format!(
                r#"{{"jsonrpc":"2.0","id":{},"result":{{"asked":{}}}}}"#,
                value["id"], value["params"]["asked"]
            );
            let envelope = parse(text.as_bytes()).unwrap();
            for _ in 0..3 {
                let is_busy = self.lease.answer(&envelope).is_err_and(Refused::is_busy);
                if !is_busy && rng.below(8) > 0 {
                    break;
                }
                sleep(Duration::from_millis(1)).await;
            }
        }
    }

    /// Goes on with another child, as a session does.
    pub(super) async fn move_on(&self, successor: &Worker) {
        if self.has_left.load(Ordering::Relaxed) {
            return;
        }
        let peer: std::sync::Weak<Listener> = Arc::downgrade(&self.listener);
        let lease = Arc::new(Lease::new(successor.clone(), peer, false));
        let terms = self.lease.hand_over().await.unwrap();
        lease.replay(&terms, Instant::now() + FOR_EVER).await.unwrap().finish().await;
        assert!(self.lease.hand_over_now().is_none());
        self.lease.leave_when_idle();
        let text = message(r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"nonce":7}}"#);
        let answer = lease.ask(&text, FOR_EVER).await.unwrap();
        assert_eq!(answer, r#"{"jsonrpc":"2.0","id":7,"result":{"nonce":7,"x":1e400}}"#);
        *self.next.lock() = Some(lease);
    }

    /// Waits until all its calls are over, each as it should be. What it was granted.
    pub(super) async fn check(&self, tally: &mut Tally) -> Vec<String> {
        let count = self.calls.lock().taken.len();
        for place in 0..count {
            self.settle(place).await;
        }
        let calls = self.calls.lock();
        let granted = match &self.stream {
            None => self.check_each(&calls, tally),
            Some(_) => {
                drop(calls);
                self.check_stream(tally).await
            }
        };
        if let Some(lease) = &*self.next.lock() {
            let (_, uris) = lease.worker().shared().multiplexer.lock().granted(lease.peer());
            let mut granted = granted.clone();
            granted.sort_unstable();
            assert_eq!(uris.into_iter().collect::<Vec<_>>(), granted, "granted before, and after");
            return granted;
        }
        Vec::new()
    }

    /// It is off both children.
    pub(super) fn leave(&self) {
        self.lease.leave();
        self.next.lock().take();
    }
}
