//! Up to 64 sessions with the same ids and tokens, a child that says anything, in any order: what the multiplexer does
//! with each message is what the model says, byte for byte. Children crash, and retire beside their successors; most
//! sessions go on. `SLUICE_MUX_MESSAGES` and `SLUICE_MUX_SEED` ask for more.

mod answers;
mod child;
mod client;
mod survival;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;

use survival::Gateway;

use super::super::{Expired, Incoming, LeaseId, Multiplexer, Withdrawn};
use super::model::{Asker, Has, Model, TIMEOUT, What};
use crate::jsonrpc::parse;
use crate::stream::Exchange;
use crate::worker::tests::rng::{TestRng, from_environment};

const SESSIONS: usize = 64;
/// What clients write: few ids, so that they collide, in forms that only bytes tell apart.
const IDS: [&str; 8] = ["1", "2", "3", "\"1\"", "\"2\"", "1.0", "\"\\u0031\"", "-0"];

/// A request that the child has heard, and may answer as often as it likes.
#[derive(Clone)]
struct Heard {
    wire: u64,
    tag: u64,
    what: What,
}

/// How often what should be rare has happened.
#[derive(Debug, Default)]
struct Seen {
    delivered: u64,
    /// Requests of the child that went to the only one who can have caused them.
    attributed: u64,
    /// The same, refused because of somebody who had given up or left.
    blurred: u64,
    progress_of_tasks: u64,
    progress_of_clients: u64,
    withdrawn: u64,
    taken_back: u64,
    /// Levels that a session got because the child has taken the same before.
    levels_shared: u64,
    /// Levels that were told again, because it is not known whether the child has taken them.
    levels_repeated: u64,
    crowded: u64,
    /// Requests that were refused because others wait for a subscription.
    full_of_waiting: u64,
    /// Requests that were refused because their sessions had their share.
    had_their_share: u64,
    /// Requests that were refused because another child has taken over.
    handed_over: u64,
    /// Subscriptions that the child has not let go of.
    refused_to_let_go: u64,
    crashes: u64,
    /// Calls that were in flight when their child went.
    crashed_over: u64,
    /// Sessions that a retired child has let go of.
    let_go: u64,
    /// Levels and subscriptions that another child has granted as well.
    levels_again: u64,
    uris_again: u64,
    /// The same, not granted.
    not_again: u64,
}

struct World {
    rng: TestRng,
    multiplexer: Multiplexer,
    model: Model,
    heard: Vec<Heard>,
    /// Requests of the gateway's own that the child has not answered, and the tasks that they are about.
    heard_own: Vec<(u64, Option<u64>)>,
    /// What is over, as far as the child knows: it says it again.
    over: VecDeque<Heard>,
    next_tag: u64,
    next_child_id: u64,
    /// The numbers that the child has heard, in their order. The model knows a request by its place among them.
    wires: Vec<u64>,
    places: BTreeMap<u64, u64>,
    last_asked: Option<u64>,
    messages: u64,
    /// Whether the child answers less than it is asked.
    is_lazy: bool,
    /// Which child it is.
    number: u64,
    /// Whether another takes the calls.
    is_retired: bool,
    /// Sessions that had another child, until this one has been asked for what that had granted.
    coming: BTreeSet<LeaseId>,
    /// What children before this one have asked clients, by the numbers that these know it by.
    stale: Vec<u64>,
    seen: Seen,
    now: Instant,
}

fn uri(number: usize) -> String {
    format!("file:///{number}")
}

fn same(a: &Asker, peer: LeaseId, id: &str, exchange: &Arc<Exchange>) -> bool {
    a.peer == peer && a.id == id && Arc::ptr_eq(&a.exchange, exchange)
}

impl World {
    fn new(seed: u64, max_in_flight: usize, is_lazy: bool) -> Self {
        Self {
            rng: TestRng::new(seed),
            multiplexer: Multiplexer::new(max_in_flight, true),
            model: Model::new(max_in_flight),
            heard: Vec::new(),
            heard_own: Vec::new(),
            over: VecDeque::new(),
            next_tag: 0,
            next_child_id: 0,
            wires: Vec::new(),
            places: BTreeMap::new(),
            last_asked: None,
            messages: 0,
            is_lazy,
            number: 0,
            is_retired: false,
            coming: BTreeSet::new(),
            stale: Vec::new(),
            seen: Seen::default(),
            now: Instant::now(),
        }
    }

    fn someone(&mut self) -> Option<LeaseId> {
        let count = self.model.peers.len();
        (count > 0).then(|| *self.model.peers.keys().nth(self.rng.below(count)).unwrap())
    }

    fn step(&mut self) {
        self.messages += 1;
        self.seen.crowded += u64::from(self.model.crowded.is_some());
        match 40 + self.rng.below(960) {
            40 if self.rng.below(10) == 0 => self.begin_and_give_up(),
            // A lease puts no calls to a child that retires, but for those of the gateway's own.
            40..=369 if self.is_retired && self.rng.below(4) > 0 => self.answer(),
            40..=369 => self.ask(),
            370..=419 => self.cancel(),
            420..=719 if self.is_lazy && self.rng.below(4) == 0 => {}
            420..=719 => self.answer(),
            720..=739 => self.answer_again(),
            740..=749 => self.answer_own(),
            750..=809 => self.progress(),
            810..=819 => self.client_progress(),
            820..=869 => self.child_asks(),
            870..=899 => self.client_answers(),
            900..=909 => self.child_cancels(),
            910..=994 => self.child_notifies(),
            _ => self.expire(),
        }
        if self.messages.is_multiple_of(16) {
            self.check_alarm();
            self.someone().into_iter().for_each(|peer| {
                assert_eq!(self.multiplexer.in_flight(peer).count, self.model.in_flight(peer), "{peer:?}");
            });
        }
    }

    /// Who sleeps until the alarm goes off is there when the first thing is out of time.
    fn check_alarm(&mut self) {
        let calls = self.model.open.values().map(|open| open.deadline);
        let earliest = calls.chain(self.model.asked.values().map(|asked| asked.deadline)).min();
        let alarm = self.multiplexer.timer.at();
        assert!(earliest.is_none_or(|earliest| alarm.is_some_and(|at| at <= earliest)), "{alarm:?}, not {earliest:?}");
    }

    /// What was given up is what the model gives up, and the child hears of it.
    fn check_expired(
        &mut self,
        expired: Expired,
        mut frames: Vec<String>,
        mut failed: Vec<Asker>,
        withdrawn: Vec<(LeaseId, u64)>,
    ) {
        let told = expired.withdrawn.iter().map(|(Withdrawn { peer, number, .. }, message)| {
            assert_eq!(self.hear(message), format!("cancel {number}"));
            (*peer, *number)
        });
        assert_eq!(told.collect::<Vec<_>>(), withdrawn);
        let calls = expired.calls.iter().map(|call| (call.peer, call.original.as_str(), &call.exchange));
        let waiting = expired.waiting.iter().map(|w| (w.peer, w.id.as_str(), &w.exchange));
        for (peer, id, exchange) in calls.chain(waiting) {
            let place = failed.iter().position(|asker| same(asker, peer, id, exchange));
            failed.remove(place.unwrap_or_else(|| panic!("{peer:?} lost its call {id}")));
        }
        assert!(failed.is_empty(), "left waiting: {failed:?}");
        assert!(expired.waiting.iter().all(|waiting| waiting.timeout == TIMEOUT));
        let mut heard: Vec<String> = expired.frames.iter().map(|frame| self.hear(frame)).collect();
        heard.sort();
        frames.sort();
        assert_eq!(heard, frames);
    }

    /// The child reads a frame of the gateway's own.
    fn hear(&mut self, frame: &[u8]) -> String {
        let value: Value = serde_json::from_slice(frame).unwrap();
        let params = &value["params"];
        if let Some(number) = value["id"].as_u64().filter(|_| value.get("method").is_some()) {
            let number = self.heard_number(number);
            self.model.own.insert(number);
            if self.model.own.len() > self.model.max_in_flight {
                self.model.own.pop_first();
            }
            let task = params["taskId"].as_str().map(|task| task.strip_prefix("task-").unwrap().parse().unwrap());
            self.heard_own.push((number, task));
        }
        match value["method"].as_str() {
            Some("notifications/cancelled") => {
                let number = params["requestId"].as_u64().unwrap();
                // Clients know other requests, by other numbers.
                format!("cancel {}", self.places.get(&number).copied().unwrap_or(number))
            }
            Some("resources/unsubscribe") => {
                format!("unsubscribe {}", params["uri"].as_str().unwrap().strip_prefix("file:///").unwrap())
            }
            Some("logging/setLevel") => {
                self.model.told.as_mut().unwrap().by = self.wires.len() as u64;
                format!("level {}", params["level"].as_str().unwrap())
            }
            Some("tasks/cancel") => {
                format!("end task {}", params["taskId"].as_str().unwrap().strip_prefix("task-").unwrap())
            }
            None if value.get("error").is_some() => format!("refuse {}", value["id"]),
            other => panic!("{other:?} was not to be said"),
        }
    }

    /// The child hears a number for the first time: the how-manyth it is.
    fn heard_number(&mut self, wire: u64) -> u64 {
        assert!((1..100_000_000_000_000).contains(&wire), "{wire}");
        self.wires.push(wire);
        let place = self.wires.len() as u64;
        assert_eq!(self.places.insert(wire, place), None, "a number is used twice");
        place
    }

    /// The number that the child has heard as the how-manyth.
    fn wire(&self, place: u64) -> u64 {
        self.wires[usize::try_from(place).unwrap() - 1]
    }

    fn say(&mut self, message: &str) -> Incoming {
        let bytes = Bytes::copy_from_slice(message.as_bytes());
        let envelope = parse(&bytes).unwrap();
        self.multiplexer.hear(&bytes, &envelope, self.now, TIMEOUT)
    }

    /// Time passes, and what is late is given up.
    fn expire(&mut self) {
        self.now += Duration::from_millis(self.rng.below(30_000) as u64);
        let expired = self.multiplexer.expire(self.now);
        let (frames, failed, withdrawn) = self.model.expire(self.now);
        self.check_expired(expired, frames, failed, withdrawn);
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "a count that is asked for")]
fn every_message_goes_where_the_model_says() {
    let (messages, seed) = (from_environment("SLUICE_MUX_MESSAGES", 1_000_000), from_environment("SLUICE_MUX_SEED", 1));
    let (mut done, mut rounds, mut children, mut seen) = (0, 0, 0, Seen::default());
    while done < messages {
        // Where there is little room, some are refused all the time.
        let max_in_flight = if rounds % 2 == 0 { 100 } else { 6 };
        let seed = (seed + rounds).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut gateway = Gateway::new(seed, max_in_flight, [1, 2].contains(&(rounds % 4)));
        let steps = 20_000.min(messages - done);
        (0..steps).for_each(|_| gateway.step());
        let (of_round, seen_in_round) = gateway.end();
        (done, rounds, children, seen) = (done + steps, rounds + 1, children + of_round + 1, seen.and(&seen_in_round));
    }
    println!("seed {seed}: {done} messages on {children} children, each to whom the model says: {seen:?}");
    assert!(seen.delivered > messages / 4);
    // What makes the test worth its time must not become so rare that it shows nothing.
    for (what, count) in [
        ("attributed", seen.attributed),
        ("blurred", seen.blurred),
        ("progress of tasks", seen.progress_of_tasks),
        ("progress of clients", seen.progress_of_clients),
        ("withdrawn", seen.withdrawn),
        ("taken back", seen.taken_back),
        ("levels shared", seen.levels_shared),
        ("levels repeated", seen.levels_repeated),
        ("crowded", seen.crowded),
        ("full of waiting", seen.full_of_waiting),
        ("had their share", seen.had_their_share),
        ("handed over", seen.handed_over),
        ("refused to let go", seen.refused_to_let_go),
        ("crashed over", seen.crashed_over),
        ("let go", seen.let_go),
        ("levels again", seen.levels_again),
        ("subscriptions again", seen.uris_again),
        ("not again", seen.not_again),
    ] {
        assert!(count >= messages / 20_000, "{what}: {count}");
    }
}

impl Seen {
    fn and(self, other: &Self) -> Self {
        Self {
            delivered: self.delivered + other.delivered,
            attributed: self.attributed + other.attributed,
            blurred: self.blurred + other.blurred,
            progress_of_tasks: self.progress_of_tasks + other.progress_of_tasks,
            progress_of_clients: self.progress_of_clients + other.progress_of_clients,
            withdrawn: self.withdrawn + other.withdrawn,
            taken_back: self.taken_back + other.taken_back,
            levels_shared: self.levels_shared + other.levels_shared,
            levels_repeated: self.levels_repeated + other.levels_repeated,
            crowded: self.crowded + other.crowded,
            full_of_waiting: self.full_of_waiting + other.full_of_waiting,
            had_their_share: self.had_their_share + other.had_their_share,
            handed_over: self.handed_over + other.handed_over,
            refused_to_let_go: self.refused_to_let_go + other.refused_to_let_go,
            crashes: self.crashes + other.crashes,
            crashed_over: self.crashed_over + other.crashed_over,
            let_go: self.let_go + other.let_go,
            levels_again: self.levels_again + other.levels_again,
            uris_again: self.uris_again + other.uris_again,
            not_again: self.not_again + other.not_again,
        }
    }
}
