//! What clients ask, cancel and answer.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::super::super::{Ask, LeaseId, Notified, Outgoing, Reported};
use super::super::model::{Asker, Asking, LEVELS, Open, TIMEOUT, Told, What};
use super::super::story::exchange;
use super::{Heard, IDS, World, same, uri};
use crate::jsonrpc::parse;
use crate::stream::Exchange;
use crate::worker::Refused;

/// What the model says of a request.
enum Expected {
    Refused(Refused),
    /// Another child does it.
    Ended,
    Wait,
    /// It is answered with something that begins like this.
    Local(&'static str),
    Forward,
}

/// A request as a client writes it, or as the child should read it: they differ in id, token and level alone.
fn request(id: &str, token: Option<&str>, tag: u64, what: What, level: &str) -> String {
    let (method, member) = match what {
        What::Call | What::CreateTask => ("tools/call", r#""name": "é\n""#.to_owned()),
        What::Level(_) => ("logging/setLevel", format!(r#""level":"{level}""#)),
        What::Subscribe(number) => ("resources/subscribe", format!(r#""uri":"{}""#, uri(number))),
        What::Unsubscribe(number) => ("resources/unsubscribe", format!(r#""uri":"{}""#, uri(number))),
        What::Task(task, verb) => {
            (["tasks/get", "tasks/result", "tasks/cancel"][verb], format!(r#""taskId":"task-{task}""#))
        }
        What::Tasks => ("tasks/list", r#""x":1e400"#.to_owned()),
    };
    // A name is a name, however it is written.
    let key = if tag.is_multiple_of(3) { r"progress\u0054oken" } else { "progressToken" };
    let meta = token.map(|token| format!(r#","_meta":{{ "{key}" : {token} }}"#)).unwrap_or_default();
    format!(r#"{{"jsonrpc":"2.0", "id": {id} ,"method":"{method}","params":{{{member},"tag":{tag}{meta}}}}}"#)
}

/// A request as the child hears it: with the members of an envelope, in one order.
fn heard(id: &str, message: &str) -> String {
    let envelope = parse(message.as_bytes()).unwrap();
    let (method, params) = (envelope.method.unwrap(), envelope.params.unwrap());
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{method}\",\"params\":{params}}}\n")
}

/// A request of the gateway, for what another child has granted.
pub(super) fn replayed(id: &str, what: What, level: &str) -> String {
    let params = match what {
        What::Level(_) => format!(r#""level":"{level}""#),
        What::Subscribe(number) => format!(r#""uri":"{}""#, uri(number)),
        other => panic!("{other:?} does not last"),
    };
    let method = replay_id(what).trim_matches('"');
    format!(r#"{{"id":{id},"jsonrpc":"2.0","method":"{method}","params":{{{params}}}}}"#)
}

/// The id of such a request.
pub(super) fn replay_id(what: What) -> &'static str {
    if matches!(what, What::Level(_)) { "\"logging/setLevel\"" } else { "\"resources/subscribe\"" }
}

impl World {
    pub(super) fn ask(&mut self) {
        let Some(peer) = self.someone() else { return };
        let number = self.rng.below(6);
        let task = self.next_tag.saturating_sub(self.rng.below(200) as u64);
        let what = match self.rng.below(40) {
            0 => What::CreateTask,
            1..=4 => What::Level(self.rng.below(8)),
            5..=10 => What::Subscribe(number),
            11..=14 => What::Unsubscribe(number),
            15 | 16 => What::Task(task, self.rng.below(3)),
            17 => What::Tasks,
            _ => What::Call,
        };
        // Who unsubscribes has often just subscribed, or is the last.
        let subscribed = self.model.uris.get(&number);
        let asking = subscribed.and_then(|subscribed| subscribed.asking.as_ref()?.wanted.first().copied());
        let last = subscribed.and_then(|subscribed| subscribed.peers.first().copied());
        let hasty = asking.or(last).filter(|_| self.rng.below(2) == 0);
        let peer = hasty.filter(|_| matches!(what, What::Unsubscribe(_))).unwrap_or(peer);
        let id = IDS[self.rng.below(IDS.len())];
        // What a client asks meanwhile waits in its session.
        if !self.coming.contains(&peer) {
            self.ask_for(peer, id, what);
        }
    }

    fn ask_for(&mut self, peer: LeaseId, id: &'static str, what: What) {
        // Most SDKs take the id for the token.
        let token = [Some(id), Some(id), None, Some("\"t\"")][self.rng.below(4)];
        let asker = Asker { peer, id, exchange: exchange(), is_own: false };
        let level = if let What::Level(level) = what { LEVELS[level] } else { "" };
        let message = request(id, token, self.next_tag, what, level);
        if token.is_some() && self.rng.below(50) == 0 {
            // With a second token, whichever of the two the child would take.
            let twice = message.replace(r#""_meta":{"#, r#""_meta":{"progressToken":1,"#);
            let outgoing = self.put(&asker, &twice);
            assert!(matches!(&outgoing, Ok(Outgoing::Local(answer)) if contains(answer, "-32602")), "{outgoing:?}");
            return;
        }
        self.ask_with(asker, token, what, &message);
    }

    /// The gateway asks for what another child has granted a session: the exchange that it waits with, unless it has to
    /// ask again.
    pub(super) fn ask_again(&mut self, peer: LeaseId, what: What, message: &[u8]) -> Option<Arc<Exchange>> {
        let asker = Asker { peer, id: replay_id(what), exchange: exchange(), is_own: true };
        let exchange = Arc::clone(&asker.exchange);
        let is_taken = self.ask_with(asker, None, what, std::str::from_utf8(message).unwrap());
        is_taken.then_some(exchange)
    }

    fn put(&mut self, asker: &Asker, message: &str) -> Result<Outgoing, Refused> {
        let envelope = parse(message.as_bytes()).unwrap();
        let (exchange, is_own) = (&asker.exchange, asker.is_own);
        let ask = Ask { envelope: &envelope, exchange, timeout: TIMEOUT, is_own };
        self.multiplexer.ask(asker.peer, &ask, self.now)
    }

    /// Puts a request to the child, as the model says. Whether it was taken.
    fn ask_with(&mut self, asker: Asker, token: Option<&'static str>, what: What, message: &str) -> bool {
        let (tag, peer, id) = (self.next_tag, asker.peer, asker.id);
        self.next_tag += 1;
        let outgoing = self.put(&asker, message);
        let held = |uri| self.model.uris.get(&uri).is_some_and(|subscribed| subscribed.peers.contains(&peer));
        let held = matches!(what, What::Unsubscribe(uri) if held(uri));
        match (self.expected(&asker, what, tag), outgoing) {
            (Expected::Refused(expected), Err(refused)) if expected == refused => {
                self.seen.full_of_waiting += u64::from(self.model.is_full_of_waiting(peer));
                self.seen.had_their_share += u64::from(refused == Refused::Share);
                return false;
            }
            (Expected::Ended, Err(Refused::Ended)) => {
                self.seen.handed_over += 1;
                return false;
            }
            (Expected::Wait, Ok(Outgoing::Wait)) => {}
            (Expected::Local(text), Ok(Outgoing::Local(answer))) => {
                let start = format!(r#"{{"jsonrpc":"2.0","id":{id},{text}"#);
                assert!(answer.starts_with(start.as_bytes()), "{answer:?}, not {start}");
                self.seen.delivered += 1;
            }
            (Expected::Forward, Ok(Outgoing::Forward(wire, frame))) => {
                self.forwarded(asker, token, tag, (what, held), &frame);
                if self.rng.below(100) == 0 {
                    self.take_back(tag, wire);
                    return false;
                }
            }
            (_, outgoing) => panic!("{what:?}: {outgoing:?}"),
        }
        true
    }

    /// What a request means to the model.
    fn expected(&mut self, asker: &Asker, what: What, tag: u64) -> Expected {
        let model = &mut self.model;
        let peer = asker.peer;
        let refusal = model.refusal(peer, asker.is_own);
        let forwarded = || refusal.map_or(Expected::Forward, Expected::Refused);
        let done = Expected::Local(r#""result":{}"#);
        if what.is_standing() && model.handed_over.contains(&peer) {
            return Expected::Ended;
        }
        match what {
            What::Task(task, _) if model.tasks.get(&task) != Some(&peer) => {
                return Expected::Local(r#""error":{"code":-32602,"message":"there is no such task""#);
            }
            What::Unsubscribe(uri) => {
                let Some(subscribed) = model.uris.get_mut(&uri) else {
                    return forwarded();
                };
                if let Some(asking) = &mut subscribed.asking {
                    self.seen.withdrawn += u64::from(asking.wanted.remove(&peer));
                    subscribed.peers.remove(&peer);
                    return done;
                }
                if subscribed.peers.iter().any(|other| *other != peer) {
                    subscribed.peers.remove(&peer);
                    return done;
                }
                if refusal.is_none() {
                    model.uris.remove(&uri);
                }
            }
            What::Subscribe(uri) => {
                let subscribed = model.uris.entry(uri).or_default();
                let is_asking = subscribed.asking.is_some();
                if subscribed.peers.contains(&peer) || (!is_asking && !subscribed.peers.is_empty()) {
                    subscribed.peers.insert(peer);
                    return done;
                }
                match &mut subscribed.asking {
                    _ if refusal.is_some() => model.tidy(uri),
                    Some(asking) => {
                        asking.wanted.insert(peer);
                        asking.waiting.push(asker.clone());
                        return Expected::Wait;
                    }
                    none => *none = Some(Asking { tag, wanted: BTreeSet::from([peer]), waiting: Vec::new() }),
                }
            }
            What::Level(level) => {
                let (loudest, by) =
                    (model.loudest(Some(peer)).map_or(level, |others| others.min(level)), self.wires.len() as u64 + 1);
                if model.told.is_some_and(|told| told.is_done && told.level == loudest) {
                    model.grant(peer, level, by);
                    self.seen.levels_shared += 1;
                    return done;
                }
                if refusal.is_none() {
                    self.seen.levels_repeated += u64::from(model.told.is_none_or(|told| told.level == loudest));
                    model.told = Some(Told { level: loudest, by, is_done: false });
                }
            }
            What::Call | What::CreateTask | What::Task(..) | What::Tasks => {}
        }
        forwarded()
    }

    fn forwarded(
        &mut self,
        asker: Asker,
        token: Option<&'static str>,
        tag: u64,
        (what, has_taken): (What, bool),
        frame: &Bytes,
    ) {
        let wire = parse(frame).unwrap().raw_id().unwrap().as_u64().unwrap();
        let level = self.model.told.map_or("", |told| LEVELS[told.level]);
        let digits = wire.to_string();
        // Of a level the child hears what the gateway says.
        let expected = match asker.is_own || matches!(what, What::Level(_)) {
            true => heard(&digits, &replayed(&digits, what, level)),
            false => heard(&digits, &request(&digits, token.map(|_| digits.as_str()), tag, what, level)),
        };
        assert_eq!(frame, &expected);
        let wire = self.heard_number(wire);
        self.heard.push(Heard { wire, tag, what });
        self.model.open.insert(tag, Open { asker, token, wire, what, has_taken, deadline: self.now + TIMEOUT });
    }

    /// The frame could not be queued: the child does not hear it.
    fn take_back(&mut self, tag: u64, wire: u64) {
        self.seen.taken_back += 1;
        self.multiplexer.forget(wire);
        self.heard.pop();
        let open = self.model.open.remove(&tag).unwrap();
        match open.what {
            What::Level(_) => self.model.told_by(open.wire, false),
            What::Subscribe(uri) => {
                self.model.uris.get_mut(&uri).unwrap().asking = None;
                self.model.tidy(uri);
            }
            What::Unsubscribe(uri) if open.has_taken => {
                self.model.uris.entry(uri).or_default().peers.insert(open.asker.peer);
            }
            _ => {}
        }
    }

    pub(super) fn cancel(&mut self) {
        let Some(peer) = self.someone() else { return };
        // What the gateway has asked for a session is not the client's to cancel.
        let id = match self.rng.below(20) {
            0 => replay_id([What::Level(0), What::Subscribe(0)][self.rng.below(2)]),
            _ => IDS[self.rng.below(IDS.len())],
        };
        self.cancel_for(peer, id);
    }

    /// Somebody begins more than is remembered, and gives it all up.
    pub(super) fn begin_and_give_up(&mut self) {
        let Some(peer) = self.someone().filter(|peer| !self.coming.contains(peer)) else { return };
        for _ in 0..self.model.max_in_flight + 20 {
            self.ask_for(peer, "4", What::Call);
            self.cancel_for(peer, "4");
        }
    }

    fn cancel_for(&mut self, peer: LeaseId, id: &str) {
        let text = |id: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id},"reason":"é"}}}}"#
            )
        };
        let message = text(id);
        let envelope = parse(message.as_bytes()).unwrap();
        let cancellation = self.multiplexer.cancellation(peer, &envelope);
        if self.rng.below(50) == 0 {
            // The frame could not be queued: the child does not hear it, and the call goes on.
            return;
        }
        let open = self.model.cancellable(peer, id).and_then(|tag| self.model.open.remove(&tag));
        match (cancellation, open) {
            (None, None) => {}
            (Some((number, frame)), Some(open)) => {
                let wire = self.wire(open.wire);
                assert_eq!((number, frame), (wire, (text(&wire.to_string()) + "\n").into()));
                let call = self.multiplexer.cancel(number, self.now).unwrap();
                assert!(same(&open.asker, call.peer, call.original.as_str(), &call.exchange));
                self.model.told_by(open.wire, false);
                self.model.note_abandoned(open.wire, peer, self.now);
            }
            (cancellation, open) => panic!("{cancellation:?}, not {open:?}"),
        }
    }

    /// One of the requests that clients have been asked, or of others, and whose it is; and who speaks of it: now and
    /// then it is somebody else.
    fn asked(&mut self, numbers: Vec<u64>, owner: impl Fn(&Self, u64) -> Option<LeaseId>) -> Option<(u64, LeaseId)> {
        let peer = self.someone()?;
        let number = match self.rng.below(5) {
            0 if !self.stale.is_empty() && self.rng.below(2) == 0 => self.stale[self.rng.below(self.stale.len())],
            0 => self.last_asked.unwrap_or(7).saturating_sub(self.rng.below(200) as u64),
            _ if numbers.is_empty() => return None,
            _ => numbers[self.rng.below(numbers.len())],
        };
        let owner = owner(self, number);
        Some((number, owner.filter(|_| self.rng.below(3) > 0).unwrap_or(peer)))
    }

    pub(super) fn client_answers(&mut self) {
        let numbers = self.model.asked.keys().copied().collect();
        let owner = |world: &Self, number| world.model.asked.get(&number).map(|asked| asked.peer);
        let Some((number, peer)) = self.asked(numbers, owner) else { return };
        let by_task = self.rng.below(4) == 0;
        let outcome = match by_task {
            true => r#"{"task":{"taskId":"1","status":"working"}}"#,
            false => r#"{"é":1e400}"#,
        };
        let text = |id: &str| format!(r#"{{"jsonrpc":"2.0", "id": {id} ,"result":{outcome}}}"#);
        let message = text(&number.to_string());
        let envelope = parse(message.as_bytes()).unwrap();
        let answer = self.multiplexer.answer_to_child(peer, &envelope);
        if let Some(asked) = self.model.asked.get(&number).filter(|asked| asked.peer == peer) {
            let heard = format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{outcome}}}\n", asked.id);
            assert_eq!(answer, Some((number, heard.into())));
            if self.rng.below(50) == 0 {
                // The frame could not be queued: the client may answer again.
                return;
            }
            self.multiplexer.server_requests.answered(number, &Reported::by(&envelope));
            let asked = self.model.asked.remove(&number).unwrap();
            if let Some(token) = asked.token.filter(|_| by_task) {
                self.model.answered_by_task.insert(number, (peer, token));
                if self.model.answered_by_task.len() > self.model.max_in_flight {
                    self.model.answered_by_task.pop_first();
                }
            }
        } else {
            assert_eq!(answer, None, "an answer of somebody who was not asked");
        }
    }

    pub(super) fn client_progress(&mut self) {
        let numbers = self.model.asked.keys().chain(self.model.answered_by_task.keys()).copied().collect();
        let known = |world: &Self, number| {
            let asked = world.model.asked.get(&number).and_then(|asked| Some((asked.peer, asked.token?)));
            asked.or_else(|| world.model.answered_by_task.get(&number).copied())
        };
        let owner = |world: &Self, number| known(world, number).map(|(peer, _)| peer);
        let Some((number, peer)) = self.asked(numbers, owner) else { return };
        let text = |token: &str| {
            format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken": {token} }}}}"#)
        };
        let message = text(&number.to_string());
        let envelope = parse(message.as_bytes()).unwrap();
        let notified = self.multiplexer.notice_of_client(peer, &envelope);
        match (notified, known(self, number).filter(|(owner, _)| *owner == peer)) {
            (Notified::Forward(frame), Some((_, token))) => {
                assert_eq!(frame, text(token) + "\n");
                self.seen.progress_of_clients += 1;
            }
            (Notified::Drop(_), None) => {}
            other => panic!("{peer:?}: {other:?}"),
        }
    }
}

fn contains(answer: &[u8], text: &str) -> bool {
    memchr::memmem::find(answer, text.as_bytes()).is_some()
}
