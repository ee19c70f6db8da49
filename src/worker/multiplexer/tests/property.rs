//! Up to 64 sessions with the same ids and tokens, a child that says anything, in any order: what the multiplexer does
//! with each message is what the model says, byte for byte. `SLUICE_MUX_MESSAGES` and `SLUICE_MUX_SEED` ask for more.

mod child;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;

use super::super::{Ask, Expired, Incoming, Multiplexer, Outgoing, PeerId};
use super::model::{Asker, LEVELS, Model, Open, What};
use crate::jsonrpc::parse;
use crate::stream::{Exchange, Limits, Outbox};
use crate::worker::Refused;

const SESSIONS: usize = 64;
const MAX_IN_FLIGHT: usize = 100;
const TIMEOUT: Duration = Duration::from_secs(60);
/// What clients write: few ids, so that they collide, in forms that only bytes tell apart.
const IDS: [&str; 8] = ["1", "2", "3", "\"1\"", "\"2\"", "1.0", "\"\\u0031\"", "-0"];

/// xorshift64*: the same numbers for the same seed, everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % sides
    }
}

/// A request that the child has heard, and may answer as often as it likes.
#[derive(Clone)]
struct Heard {
    wire: u64,
    tag: u64,
    has_token: bool,
    what: What,
}

struct World {
    dice: Dice,
    multiplexer: Multiplexer,
    model: Model,
    heard: Vec<Heard>,
    /// What is over, as far as the child knows: it says it again.
    over: VecDeque<Heard>,
    next_tag: u64,
    next_peer: u64,
    next_child_id: u64,
    last_wire: u64,
    messages: u64,
    delivered: u64,
    now: Instant,
}

fn exchange() -> Arc<Exchange> {
    let (outbox, _) = Outbox::new(Limits { messages: 1, bytes: 1 });
    Arc::new(Exchange::of_request(outbox, 1))
}

fn uri(number: usize) -> String {
    format!("file:///{number}")
}

/// A request as a client writes it, or as the child should read it: they differ in id, token and level alone.
fn request(id: &str, token: Option<&str>, tag: u64, what: What, level: &str) -> String {
    let (method, member) = match what {
        What::Call | What::CreateTask => ("tools/call", r#""name": "é\n""#.to_owned()),
        What::Level(_) => ("logging/setLevel", format!(r#""level":"{level}""#)),
        What::Subscribe(number) => ("resources/subscribe", format!(r#""uri":"{}""#, uri(number))),
        What::Unsubscribe(number) => ("resources/unsubscribe", format!(r#""uri":"{}""#, uri(number))),
        What::Task(task) => ("tasks/get", format!(r#""taskId":"task-{task}""#)),
        What::Tasks => ("tasks/list", r#""x":1e400"#.to_owned()),
    };
    let meta = token.map(|token| format!(r#","_meta":{{ "progressToken" : {token} }}"#)).unwrap_or_default();
    format!(r#"{{"jsonrpc":"2.0", "id": {id} ,"method":"{method}","params":{{{member},"tag":{tag}{meta}}}}}"#)
}

fn same(a: &Asker, peer: PeerId, id: &str, exchange: &Arc<Exchange>) -> bool {
    a.peer == peer && a.id == id && Arc::ptr_eq(&a.exchange, exchange)
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            dice: Dice(seed),
            multiplexer: Multiplexer::new(MAX_IN_FLIGHT, true),
            model: Model::default(),
            heard: Vec::new(),
            over: VecDeque::new(),
            next_tag: 0,
            next_peer: 0,
            next_child_id: 0,
            last_wire: 0,
            messages: 0,
            delivered: 0,
            now: Instant::now(),
        }
    }

    fn someone(&mut self) -> Option<PeerId> {
        let count = self.model.peers.len();
        (count > 0).then(|| *self.model.peers.keys().nth(self.dice.roll(count)).unwrap())
    }

    fn step(&mut self) {
        self.messages += 1;
        match self.dice.roll(1000) {
            0 => self.crash(),
            1..=20 => self.attach(),
            // The crowd grows and shrinks, so that a session is alone now and then.
            21..=34 => self.detach(),
            35..=39 if self.dice.roll(40) == 0 => (0..60).for_each(|_| self.detach()),
            40..=369 => self.ask(),
            370..=419 => self.cancel(),
            420..=719 => self.answer(),
            720..=749 => self.answer_again(),
            750..=819 => self.progress(),
            820..=869 => self.child_asks(),
            870..=899 => self.client_answers(),
            900..=909 => self.child_cancels(),
            910..=998 => self.child_notifies(),
            _ => self.expire(),
        }
    }

    fn attach(&mut self) {
        if self.model.peers.len() < SESSIONS {
            let peer = PeerId(self.next_peer);
            self.next_peer += 1;
            self.multiplexer.attach(peer);
            self.model.peers.insert(peer, None);
        }
    }

    fn detach(&mut self) {
        let Some(peer) = self.someone() else { return };
        let gone = self.multiplexer.detach(peer);
        let (frames, failed) = self.model.leave(peer);
        self.check_expired(gone, frames, failed);
    }

    /// What was given up is what the model gives up, and the child hears of it.
    fn check_expired(&mut self, expired: Expired, mut frames: Vec<String>, mut failed: Vec<Asker>) {
        let calls = expired.calls.iter().map(|call| (call.peer, call.original.as_str(), &call.exchange));
        let waiting = expired.waiting.iter().map(|w| (w.peer, w.id.as_str(), &w.exchange));
        for (peer, id, exchange) in calls.chain(waiting) {
            let place = failed.iter().position(|asker| same(asker, peer, id, exchange));
            failed.remove(place.unwrap_or_else(|| panic!("{peer:?} lost its call {id}")));
        }
        assert!(failed.is_empty(), "left waiting: {failed:?}");
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
            assert!(number > self.last_wire, "a number is used twice");
            self.last_wire = number;
        }
        match value["method"].as_str() {
            Some("notifications/cancelled") => format!("cancel {}", params["requestId"]),
            Some("resources/unsubscribe") => {
                format!("unsubscribe {}", params["uri"].as_str().unwrap().strip_prefix("file:///").unwrap())
            }
            Some("logging/setLevel") => format!("level {}", params["level"].as_str().unwrap()),
            None if value.get("error").is_some() => format!("refuse {}", value["id"]),
            other => panic!("{other:?} was not to be said"),
        }
    }

    fn ask(&mut self) {
        let Some(peer) = self.someone() else { return };
        let id = IDS[self.dice.roll(IDS.len())];
        // Most SDKs take the id for the token.
        let token = [Some(id), Some(id), None, Some("\"t\"")][self.dice.roll(4)];
        let number = self.dice.roll(6);
        let tag = self.next_tag;
        self.next_tag += 1;
        let what = match self.dice.roll(20) {
            0 => What::CreateTask,
            1 | 2 => What::Level(self.dice.roll(8)),
            3..=5 => What::Subscribe(number),
            6 | 7 => What::Unsubscribe(number),
            8 => What::Task(tag.saturating_sub(self.dice.roll(200) as u64)),
            9 => What::Tasks,
            _ => What::Call,
        };
        let asking = |model: &Model| model.uris.get(&number).is_some_and(|subscribed| subscribed.asking.is_some());
        if matches!(what, What::Unsubscribe(_)) && asking(&self.model) {
            return;
        }
        let asker = Asker { peer, id, exchange: exchange() };
        let level = if let What::Level(level) = what { LEVELS[level] } else { "" };
        let message = request(id, token, tag, what, level);
        let envelope = parse(message.as_bytes()).unwrap();
        let ask = Ask { message: message.as_bytes(), envelope: &envelope, exchange: &asker.exchange, timeout: TIMEOUT };
        let outgoing = self.multiplexer.ask(peer, &ask, self.now);
        match self.expected(&asker, what, tag) {
            None => assert!(matches!(outgoing, Ok(Outgoing::Wait)), "{outgoing:?}"),
            Some(Some(text)) => {
                let Ok(Outgoing::Local(answer)) = &outgoing else { panic!("{what:?}: {outgoing:?}") };
                let start = format!(r#"{{"jsonrpc":"2.0","id":{id},{text}"#);
                assert!(answer.starts_with(start.as_bytes()), "{answer:?}, not {start}");
                self.delivered += 1;
            }
            Some(None) if self.model.open.len() >= MAX_IN_FLIGHT => {
                assert!(matches!(outgoing, Err(Refused::Busy)), "{outgoing:?}");
                self.not_told(what);
            }
            Some(None) => {
                let Ok(Outgoing::Forward(frame)) = outgoing else { panic!("{what:?}: {outgoing:?}") };
                self.forwarded(asker, token, tag, what, &frame);
            }
        }
    }

    /// What a request means to the model: `None` to wait for another's answer, the start of an answer, or that the
    /// child has to hear it.
    fn expected(&mut self, asker: &Asker, what: What, tag: u64) -> Option<Option<&'static str>> {
        let model = &mut self.model;
        let done = Some(Some(r#""result":{}"#));
        match what {
            What::Level(level) => {
                model.peers.insert(asker.peer, Some(level));
                let loudest = model.loudest();
                if loudest == model.told {
                    return done;
                }
                model.told = loudest;
            }
            What::Subscribe(uri) => {
                let subscribed = model.uris.entry(uri).or_default();
                if let Some((_, waiting)) = &mut subscribed.asking {
                    waiting.push(asker.clone());
                    return None;
                }
                if !subscribed.peers.is_empty() {
                    subscribed.peers.insert(asker.peer);
                    return done;
                }
                subscribed.asking = Some((tag, Vec::new()));
            }
            What::Unsubscribe(uri) => {
                if let Some(subscribed) = model.uris.get_mut(&uri) {
                    subscribed.peers.remove(&asker.peer);
                    if !subscribed.peers.is_empty() {
                        return done;
                    }
                    model.uris.remove(&uri);
                }
            }
            What::Task(task) if model.tasks.get(&task) != Some(&asker.peer) => {
                return Some(Some(r#""error":{"code":-32602,"message":"there is no such task""#));
            }
            What::Call | What::CreateTask | What::Task(_) | What::Tasks => {}
        }
        Some(None)
    }

    fn not_told(&mut self, what: What) {
        match what {
            What::Level(_) => self.model.told = None,
            What::Subscribe(uri) => drop(self.model.uris.remove(&uri)),
            _ => {}
        }
    }

    fn forwarded(&mut self, asker: Asker, token: Option<&'static str>, tag: u64, what: What, frame: &Bytes) {
        let wire = parse(frame).unwrap().raw_id().unwrap().as_u64().unwrap();
        assert!(wire > self.last_wire, "a number is used twice");
        self.last_wire = wire;
        let level = self.model.told.map_or("", |level| LEVELS[level]);
        let digits = wire.to_string();
        let expected = request(&digits, token.map(|_| digits.as_str()), tag, what, level) + "\n";
        assert_eq!(frame, &expected);
        self.heard.push(Heard { wire, tag, has_token: token.is_some(), what });
        self.model.open.insert(tag, Open { asker, token, wire, what });
    }

    fn cancel(&mut self) {
        let Some(peer) = self.someone() else { return };
        let id = IDS[self.dice.roll(IDS.len())];
        let text = |id: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id},"reason":"é"}}}}"#
            )
        };
        let message = text(id);
        let envelope = parse(message.as_bytes()).unwrap();
        let cancelled = self.multiplexer.cancel(peer, message.as_bytes(), &envelope);
        let open = self.model.cancellable(peer, id).and_then(|tag| self.model.open.remove(&tag));
        match (cancelled, open) {
            (None, None) => {}
            (Some((frame, call)), Some(open)) => {
                assert_eq!(frame, text(&open.wire.to_string()) + "\n");
                assert!(same(&open.asker, call.peer, call.original.as_str(), &call.exchange));
            }
            (cancelled, open) => panic!("{cancelled:?}, not {open:?}"),
        }
    }

    fn say(&mut self, message: &str) -> Incoming {
        let bytes = Bytes::copy_from_slice(message.as_bytes());
        let envelope = parse(&bytes).unwrap();
        self.multiplexer.receive(bytes.clone(), &envelope, self.now, TIMEOUT)
    }

    fn answer(&mut self) {
        if self.heard.is_empty() {
            return;
        }
        let place = self.dice.roll(self.heard.len());
        let heard = self.heard.swap_remove(place);
        if self.over.len() > 100 {
            self.over.pop_front();
        }
        self.over.push_back(heard.clone());
        self.answer_to(&heard);
    }

    fn answer_again(&mut self) {
        if self.dice.roll(2) == 0 && !self.over.is_empty() {
            let place = self.dice.roll(self.over.len());
            let heard = self.over[place].clone();
            return self.answer_to(&heard);
        }
        let id = [self.last_wire + 1_000_000, 0][self.dice.roll(2)];
        let quote = ["", "\""][self.dice.roll(2)];
        let incoming = self.say(&format!(r#"{{"jsonrpc":"2.0","id":{quote}{id}{quote},"result":{{}}}}"#));
        assert!(matches!(incoming, Incoming::Drop(_)), "{incoming:?}");
    }

    fn answer_to(&mut self, heard: &Heard) {
        let tag = heard.tag;
        let is_error = self.dice.roll(8) == 0;
        let outcome = match heard.what {
            _ if is_error => format!(
                r#""error":{{"code":-32042,"message":"","data":{{"elicitations":[{{"elicitationId":"e-{tag}"}}],"tag":{tag}}}}}"#
            ),
            What::CreateTask => format!(r#""result":{{"task":{{"taskId":"task-{tag}"}},"tag":{tag}}}"#),
            What::Tasks => {
                let tasks: Vec<String> =
                    (tag.saturating_sub(300)..tag).map(|task| format!(r#"{{"taskId":"task-{task}"}}"#)).collect();
                format!(r#""result":{{"tag":{tag},"tasks":[{}]}}"#, tasks.join(","))
            }
            _ => format!(r#""result":{{"tag":{tag},"x":1e400}}"#),
        };
        let text = |id: &str| format!(r#"{{"jsonrpc":"2.0", "id": {id} ,{outcome}}}"#);
        let incoming = self.say(&text(&heard.wire.to_string()));
        let Some(open) = self.model.open.remove(&tag) else {
            assert!(matches!(incoming, Incoming::Drop(_) | Incoming::Ignore), "late, but {incoming:?}");
            return;
        };
        let Incoming::Answer(call, message, waiting) = incoming else { panic!("an answer is lost: {incoming:?}") };
        assert!(same(&open.asker, call.peer, call.original.as_str(), &call.exchange), "{call:?}, not {open:?}");
        if heard.what == What::Tasks && !is_error {
            self.check_tasks(&open.asker, tag, &message);
        } else {
            assert_eq!(message, text(open.asker.id));
        }
        let waited = self.note(&open, tag, is_error);
        assert_eq!(waited.len(), waiting.len());
        assert!(waited.iter().zip(&waiting).all(|(a, w)| same(a, w.peer, w.id.as_str(), &w.exchange)));
        self.delivered += 1 + waiting.len() as u64;
    }

    /// What an answer changes; who else gets it.
    fn note(&mut self, open: &Open, tag: u64, is_error: bool) -> Vec<Asker> {
        let (model, peer) = (&mut self.model, open.asker.peer);
        if is_error {
            model.elicitations.insert(tag, peer);
        }
        match open.what {
            What::Level(_) if is_error => model.told = None,
            What::CreateTask if !is_error => drop(model.tasks.insert(tag, peer)),
            What::Subscribe(uri) => {
                let subscribed = model.uris.get_mut(&uri).unwrap();
                let (asking, waiting) = subscribed.asking.take().unwrap();
                assert_eq!(asking, tag);
                if is_error {
                    model.uris.remove(&uri);
                } else {
                    subscribed.peers.extend(waiting.iter().map(|asker| asker.peer).chain([peer]));
                }
                return waiting;
            }
            _ => {}
        }
        Vec::new()
    }

    fn check_tasks(&self, asker: &Asker, tag: u64, message: &[u8]) {
        assert_eq!(parse(message).unwrap().id, Some(asker.id));
        let value: Value = serde_json::from_slice(message).unwrap();
        let listed: Vec<&str> =
            value["result"]["tasks"].as_array().unwrap().iter().map(|task| task["taskId"].as_str().unwrap()).collect();
        let own = self.model.tasks.range(tag.saturating_sub(300)..tag).filter(|(_, owner)| **owner == asker.peer);
        assert_eq!(listed, own.map(|(task, _)| format!("task-{task}")).collect::<Vec<_>>());
    }

    /// Everything in flight runs out of time.
    fn expire(&mut self) {
        if self.dice.roll(20) > 0 {
            return;
        }
        self.now += TIMEOUT;
        let expired = self.multiplexer.expire(self.now);
        let mut frames: Vec<String> = self.model.open.values().map(|open| format!("cancel {}", open.wire)).collect();
        frames.extend(self.model.asked.values().map(|(_, id)| format!("refuse {id}")));
        self.model.asked.clear();
        let failed = self.fail_all();
        self.check_expired(expired, frames, failed);
    }

    fn fail_all(&mut self) -> Vec<Asker> {
        let mut failed: Vec<Asker> =
            std::mem::take(&mut self.model.open).into_values().map(|open| open.asker).collect();
        self.model.uris.retain(|_, subscribed| {
            failed.extend(subscribed.asking.take().into_iter().flat_map(|(_, waiting)| waiting));
            !subscribed.peers.is_empty()
        });
        failed
    }

    /// The child is gone: calls in flight fail, and the sessions go on with another.
    fn crash(&mut self) {
        let expired = self.multiplexer.drain();
        let failed = self.fail_all();
        self.check_expired(expired, Vec::new(), failed);
        self.multiplexer = Multiplexer::new(MAX_IN_FLIGHT, true);
        let sessions = self.model.peers.len();
        self.model = Model::default();
        self.heard.clear();
        self.over.clear();
        self.last_wire = 0;
        (0..sessions).for_each(|_| self.attach());
    }
}

fn asked_for(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

#[test]
#[expect(clippy::print_stdout, reason = "a count that is asked for")]
fn every_message_goes_where_the_model_says() {
    let (messages, seed) = (asked_for("SLUICE_MUX_MESSAGES", 1_000_000), asked_for("SLUICE_MUX_SEED", 1));
    let (mut done, mut delivered, mut worlds) = (0, 0, 0);
    while done < messages {
        let mut world = World::new((seed + worlds).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..20_000.min(messages - done) {
            world.step();
        }
        done += world.messages;
        delivered += world.delivered;
        worlds += 1;
    }
    println!("{done} messages in {worlds} worlds, {delivered} of them delivered, each to whom the model says");
    assert!(delivered > messages / 4);
}
