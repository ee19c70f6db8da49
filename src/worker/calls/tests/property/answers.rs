//! What the child answers: in time, late, twice, to nobody.

use serde_json::Value;

use super::super::super::Incoming;
use super::super::model::{Asker, Live, Open, What};
use super::{Heard, World, same};
use crate::jsonrpc::parse;

impl World {
    pub(super) fn answer(&mut self) {
        if self.heard.is_empty() {
            return;
        }
        let place = self.rng.below(self.heard.len());
        let heard = self.heard.swap_remove(place);
        if self.over.len() > 100 {
            self.over.pop_front();
        }
        self.over.push_back(heard.clone());
        self.answer_to(&heard);
    }

    pub(super) fn answer_again(&mut self) {
        if self.rng.below(2) == 0 && !self.over.is_empty() {
            let place = self.rng.below(self.over.len());
            let heard = self.over[place].clone();
            return self.answer_to(&heard);
        }
        let id = [self.wires.last().copied().unwrap_or_default() + 1, 0][self.rng.below(2)];
        let quote = ["", "\""][self.rng.below(2)];
        let incoming = self.say(&format!(r#"{{"jsonrpc":"2.0","id":{quote}{id}{quote},"result":{{}}}}"#));
        assert!(matches!(incoming, Incoming::Drop(_)), "{incoming:?}");
    }

    /// The child answers something of the gateway's own.
    pub(super) fn answer_own(&mut self) {
        if self.heard_own.is_empty() {
            return;
        }
        let place = self.rng.below(self.heard_own.len());
        let (number, task) = self.heard_own.swap_remove(place);
        let (is_error, is_over) = (self.rng.below(4) == 0, self.rng.below(2) == 0);
        let status = if is_over { "cancelled" } else { "working" };
        let outcome = match task {
            _ if is_error => r#""error":{"code":-32603,"message":""}"#.to_owned(),
            Some(task) => format!(r#""result":{{"taskId":"task-{task}","status":"{status}"}}"#),
            None => r#""result":{}"#.to_owned(),
        };
        let incoming = self.say(&format!(r#"{{"jsonrpc":"2.0","id":{},{outcome}}}"#, self.wire(number)));
        if !self.model.own.remove(&number) {
            assert!(matches!(incoming, Incoming::Drop(_)), "forgotten, but {incoming:?}");
            return;
        }
        assert!(matches!(incoming, Incoming::Ignore), "{incoming:?}");
        self.model.told_by(number, !is_error);
        if let Some(task) = task.filter(|_| !is_error) {
            self.model.heard_of(task, is_over, self.now);
        }
    }

    fn answer_to(&mut self, heard: &Heard) {
        let (tag, wire) = (heard.tag, heard.wire);
        let stubbornness = if matches!(heard.what, What::Unsubscribe(_)) { 2 } else { 8 };
        let (is_error, is_over) = (self.rng.below(stubbornness) == 0, self.rng.below(4) == 0);
        let status = if is_over { "failed" } else { "working" };
        let outcome = match heard.what {
            _ if is_error => format!(
                r#""error":{{"code":-32042,"message":"","data":{{"elicitations":[{{"elicitationId":"e-{tag}"}}],"tag":{tag}}}}}"#
            ),
            What::CreateTask => {
                format!(r#""result":{{"task":{{"taskId":"task-{tag}","status":"{status}"}},"x":1e400}}"#)
            }
            What::Task(task, 0 | 2) => format!(r#""result":{{"taskId":"task-{task}","status":"{status}"}}"#),
            What::Tasks => {
                let tasks: Vec<String> = (tag.saturating_sub(300)..tag)
                    .map(|task| format!(r#"{{"taskId":"task-{task}", "x":1e400}}"#))
                    .collect();
                format!(r#""result":{{"tag":{tag},"tasks":[{}]}}"#, tasks.join(","))
            }
            _ => format!(r#""result":{{"tag":{tag},"x":1e400}}"#),
        };
        let text = |id: &str| format!(r#"{{"jsonrpc":"2.0", "id": {id} ,{outcome}}}"#);
        let incoming = self.say(&text(&self.wire(wire).to_string()));
        let Some(open) = self.model.open.remove(&tag) else {
            let makes_task = heard.what == What::CreateTask && !is_error && !is_over;
            return self.late(tag, wire, makes_task, incoming);
        };
        let Incoming::Answer(answer, message) = incoming else { panic!("an answer is lost: {incoming:?}") };
        self.model.answered += u64::from(!open.asker.is_own);
        let (call, waiting) = (&answer.call, &answer.waiting);
        assert!(same(&open.asker, call.peer, call.original.as_str(), &call.exchange), "{call:?}, not {open:?}");
        if heard.what == What::Tasks && !is_error {
            self.check_tasks(&open.asker, tag, &message);
        } else {
            assert_eq!(message, text(open.asker.id));
        }
        let frame = answer.frame.as_deref().map(|frame| self.hear(frame));
        let (waited, unwanted) = self.note(&open, tag, is_error, is_over);
        assert_eq!(frame, unwanted.map(|uri| format!("unsubscribe {uri}")));
        assert_eq!(waited.len(), waiting.len());
        assert!(waited.iter().zip(waiting).all(|(a, w)| same(a, w.peer, w.id.as_str(), &w.exchange)));
        self.seen.delivered += 1 + waiting.len() as u64;
    }

    /// What nobody waits for is nobody's. Where it announces a task, the child goes on for who has asked for it, and is
    /// told to stop.
    fn late(&mut self, tag: u64, wire: u64, makes_task: bool, incoming: Incoming) {
        let model = &mut self.model;
        let is_known = model.tasks.contains_key(&tag) || model.live.values().any(|live| live.task == tag);
        let works_for = model.abandoned.get(&wire).map(|(peer, _)| *peer);
        if model.live.contains_key(&wire) || !makes_task || works_for.is_none() {
            assert!(matches!(incoming, Incoming::Drop(_)), "late, but {incoming:?}");
            if !model.live.contains_key(&wire) {
                model.abandoned.remove(&wire);
            }
            return;
        }
        let peer = works_for.unwrap();
        if is_known {
            assert!(matches!(incoming, Incoming::Drop(_)), "late, but {incoming:?}");
        } else {
            model.live.insert(wire, Live { task: tag, peer, token: None });
            if model.live.len() > model.max_in_flight {
                model.live.pop_first();
            }
            let Incoming::Reply(frame) = incoming else { panic!("it goes on: {incoming:?}") };
            assert_eq!(self.hear(&frame), format!("end task {tag}"));
        }
        self.model.note_abandoned(wire, peer, self.now);
    }

    /// What an answer changes; who else gets it, and what nobody wants any more.
    fn note(&mut self, open: &Open, tag: u64, is_error: bool, is_over: bool) -> (Vec<Asker>, Option<usize>) {
        let (model, peer, now) = (&mut self.model, open.asker.peer, self.now);
        if is_error {
            model.elicitations.insert(tag, peer);
        }
        match open.what {
            What::Level(level) => {
                if !is_error {
                    model.grant(peer, level, open.wire);
                }
                model.told_by(open.wire, !is_error);
            }
            What::Unsubscribe(uri) if is_error && open.has_taken => {
                model.uris.entry(uri).or_default().peers.insert(peer);
                self.seen.refused_to_let_go += 1;
            }
            What::CreateTask if !is_error => {
                model.tasks.insert(tag, peer);
                if !is_over {
                    model.live.insert(open.wire, Live { task: tag, peer, token: open.token });
                    if model.live.len() > model.max_in_flight {
                        model.live.pop_first();
                    }
                    model.note_abandoned(open.wire, peer, now);
                }
            }
            What::Task(task, verb) => model.heard_of(task, verb == 1 || (is_over && !is_error), now),
            What::Subscribe(uri) => {
                let subscribed = model.uris.get_mut(&uri).unwrap();
                let asking = subscribed.asking.take().unwrap();
                assert_eq!(asking.tag, tag);
                if !is_error {
                    subscribed.peers.extend(asking.wanted);
                }
                let unwanted = (!is_error && subscribed.peers.is_empty()).then_some(uri);
                model.tidy(uri);
                return (asking.waiting, unwanted);
            }
            _ => {}
        }
        (Vec::new(), None)
    }

    fn check_tasks(&self, asker: &Asker, tag: u64, message: &[u8]) {
        let envelope = parse(message).unwrap();
        assert_eq!(envelope.id, Some(asker.id));
        let value: Value = serde_json::from_str(&envelope.result.unwrap().replace("1e400", "0")).unwrap();
        let listed: Vec<&str> =
            value["tasks"].as_array().unwrap().iter().map(|task| task["taskId"].as_str().unwrap()).collect();
        let own = self.model.tasks.range(tag.saturating_sub(300)..tag).filter(|(_, owner)| **owner == asker.peer);
        assert_eq!(listed, own.map(|(task, _)| format!("task-{task}")).collect::<Vec<_>>());
    }
}
