//! What the child says of its own accord.

use std::sync::Arc;

use super::super::super::{Incoming, Withdrawn};
use super::super::model::{Asked, LEVELS, TIMEOUT, What};
use super::{World, uri};
use crate::worker::Unsolicited;

/// Few tokens, so that those of one child collide with those of the next.
const TOKENS: [Option<&str>; 4] = [Some("0"), Some("\"0\""), Some("1.0"), None];

/// What a URI goes on with, and whether it is a part then of the one without.
const PARTS: [(&str, bool); 7] = [
    ("", true),
    ("/part", true),
    ("#part", true),
    ("/a/part?x#y", true),
    ("0", false),
    ("?q", false),
    ("/../7", false),
];

impl World {
    pub(super) fn progress(&mut self) {
        let heard = match self.rng.below(2) {
            0 if !self.over.is_empty() => self.over[self.rng.below(self.over.len())].clone(),
            _ if !self.heard.is_empty() => self.heard[self.rng.below(self.heard.len())].clone(),
            _ => return,
        };
        let text = |token: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken": {token} ,"progress":1e400}}}}"#
            )
        };
        let incoming = self.say(&text(&self.wire(heard.wire).to_string()));
        let (model, now) = (&mut self.model, self.now);
        if let Some(open) = model.open.get_mut(&heard.tag) {
            open.deadline = now + TIMEOUT;
            match (incoming, open.token) {
                (Incoming::Inform(exchange, message), Some(token)) => {
                    assert!(Arc::ptr_eq(&exchange, &open.asker.exchange));
                    assert_eq!(message, text(token));
                    self.seen.delivered += 1;
                }
                (Incoming::Drop(_), None) => {}
                (incoming, token) => panic!("{incoming:?}, not {token:?}"),
            }
            return;
        }
        model.abandoned.entry(heard.wire).and_modify(|(_, until)| *until = now + TIMEOUT);
        let live = model.live.get(&heard.wire);
        if let Some(live) = live {
            let waits = |what: What| matches!(what, What::Task(task, _) if task == live.task);
            model.open.values_mut().filter(|open| waits(open.what)).for_each(|open| open.deadline = now + TIMEOUT);
        }
        match (incoming, live.and_then(|live| live.token.map(|token| (live.peer, token)))) {
            (Incoming::Unsolicited(Unsolicited::Notification, message, None, peers), Some((peer, token))) => {
                assert_eq!((message, peers), (text(token).into(), vec![peer]));
                self.seen.progress_of_tasks += 1;
                self.seen.delivered += 1;
            }
            (Incoming::Drop(_), None) => {}
            (incoming, live) => panic!("{incoming:?}, not {live:?}"),
        }
    }

    pub(super) fn child_asks(&mut self) {
        self.next_child_id += 1;
        let number = self.next_child_id;
        let id = [number.to_string(), format!("\"s-{number}\"")][self.rng.below(2)].clone();
        if self.rng.below(10) == 0 {
            let incoming = self.say(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#));
            let Incoming::Reply(frame) = incoming else { panic!("{incoming:?}") };
            assert_eq!(frame, format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{}}}}\n"));
            return;
        }
        let task = self.rng.below(4).eq(&0).then(|| self.next_tag.saturating_sub(self.rng.below(500) as u64));
        let token = TOKENS[self.rng.below(TOKENS.len())];
        let related = task.map(|task| format!(r#""io.modelcontextprotocol/related-task":{{"taskId":"task-{task}"}}"#));
        let elicitation = 1_000_000_000 + number;
        let methods = ["sampling/createMessage", "elicitation/create", "x/y", "roots/list", "tasks/get"];
        let method = methods[self.rng.below(methods.len())];
        let text = |id: &str, token: Option<&str>| {
            let token = token.map(|token| format!(r#""progressToken": {token}"#));
            let meta: Vec<String> = related.iter().cloned().chain(token).collect();
            format!(
                r#"{{"jsonrpc":"2.0", "id": {id} ,"method":"{method}","params":{{"elicitationId":"e-{elicitation}","_meta":{{{}}}}}}}"#,
                meta.join(",")
            )
        };
        let owner = match task {
            _ if ["roots/list", "tasks/get"].contains(&method) => None,
            Some(task) => self.model.tasks.get(&task).copied(),
            None => self.causer(),
        };
        let incoming = self.say(&text(&id, token));
        match owner.filter(|peer| self.model.may_be_asked(*peer)) {
            Some(peer) => {
                let Incoming::Unsolicited(Unsolicited::Request, message, Some(number), peers) = incoming else {
                    panic!("{incoming:?}")
                };
                assert_eq!(peers, [peer]);
                assert!(number < 1 << 30 && !self.model.asked.contains_key(&number), "{number} is used twice");
                self.last_asked = Some(number);
                let digits = number.to_string();
                assert_eq!(message, text(&digits, token.map(|_| digits.as_str())));
                let deadline = self.now + TIMEOUT;
                self.model.asked.insert(number, Asked { peer, id, token, deadline });
                self.model.elicitations.insert(elicitation, peer);
                self.seen.delivered += 1;
            }
            None => {
                let Incoming::Reply(frame) = incoming else { panic!("nobody may see {incoming:?}") };
                assert_eq!(self.hear(&frame), format!("refuse {id}"));
            }
        }
    }

    fn causer(&mut self) -> Option<super::LeaseId> {
        let causer = self.model.causer();
        let callers: std::collections::BTreeSet<_> = self.model.open.values().map(|open| open.asker.peer).collect();
        self.seen.attributed += u64::from(causer.is_some());
        self.seen.blurred += u64::from(causer.is_none() && (callers.len() == 1 || self.model.peers.len() == 1));
        causer
    }

    pub(super) fn child_cancels(&mut self) {
        let known = self.model.asked.len();
        let asked = (known > 0).then(|| self.model.asked.iter().nth(self.rng.below(known)).unwrap());
        let asked = asked.map(|(number, asked)| (*number, asked.clone()));
        let text = |id: &str| {
            format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId": {id} }}}}"#)
        };
        let incoming = self.say(&text(asked.as_ref().map_or("\"never\"", |(_, asked)| &asked.id)));
        match (incoming, asked) {
            (Incoming::Withdrawn(withdrawn, message), Some((number, asked))) => {
                let Withdrawn { peer, number: of, .. } = withdrawn;
                assert_eq!((message, peer, of), (text(&number.to_string()).into(), asked.peer, number));
                self.model.asked.remove(&number);
            }
            (Incoming::Drop(_), None) => {}
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn child_notifies(&mut self) {
        // Who has another child hears from that one what is new.
        let is_staying = |peer: &super::LeaseId| !self.model.leaving.contains(peer);
        let all = || self.model.peers.keys().copied().filter(is_staying).collect::<Vec<_>>();
        let tag = self.next_tag.saturating_sub(self.rng.below(300) as u64);
        let of_task = self.model.tasks.get(&tag).copied();
        let related = self.rng.below(3) == 0;
        let only = if related { of_task } else { self.model.only() };
        let meta = format!(r#""_meta":{{"io.modelcontextprotocol/related-task":{{"taskId":"task-{tag}"}}}}"#);
        let meta = if related { meta } else { r#""x":0"#.to_owned() };
        let (method, params, expected) = match self.rng.below(7) {
            0 => ("tools/list_changed", String::new(), all()),
            1 => {
                let number = self.rng.below(6);
                let (rest, is_part) = PARTS[self.rng.below(PARTS.len())];
                let subscribed = self.model.uris.get(&number).filter(|_| is_part);
                let peers = subscribed.map(|subscribed| subscribed.peers.iter().copied().filter(is_staying).collect());
                ("resources/updated", format!(r#""uri":"{}{rest}""#, uri(number)), peers.unwrap_or_default())
            }
            2 => {
                let level = self.rng.below(8);
                let wants = |peer: &super::LeaseId| self.model.peers[peer].level.is_none_or(|wanted| level >= wanted);
                let peers = only.into_iter().filter(wants).collect();
                ("message", format!(r#""level":"{}",{meta}"#, LEVELS[level]), peers)
            }
            3 => {
                let is_over = self.rng.below(4) == 0;
                let status = if is_over { "completed" } else { "input_required" };
                self.model.heard_of(tag, is_over, self.now);
                let params = format!(r#""taskId":"task-{tag}","status":"{status}""#);
                ("tasks/status", params, of_task.into_iter().collect())
            }
            4 => {
                let owner = self.model.elicitations.get(&tag).copied();
                ("elicitation/complete", format!(r#""elicitationId":"e-{tag}""#), owner.into_iter().collect())
            }
            5 => ("x/of-its-own", meta, only.into_iter().collect()),
            _ => ("prompts/list_changed", String::new(), all()),
        };
        let text = format!(r#"{{"jsonrpc":"2.0","method":"notifications/{method}","params":{{{params}}}}}"#);
        match self.say(&text) {
            Incoming::Unsolicited(_, message, None, peers) => {
                assert_eq!((message, peers), (text.into(), expected.clone()), "{method}");
                self.seen.delivered += expected.len() as u64;
            }
            Incoming::Drop(_) | Incoming::Ignore => assert_eq!(expected, [], "{method} is lost"),
            other => panic!("{method}: {other:?}"),
        }
    }
}
