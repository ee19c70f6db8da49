//! What the child says of its own accord, and what clients answer to it.

use std::sync::Arc;

use super::super::super::{Incoming, PeerId};
use super::super::model::{LEVELS, What};
use super::{MAX_IN_FLIGHT, World, uri};
use crate::jsonrpc::parse;
use crate::worker::peer::Unsolicited;

impl World {
    pub(super) fn progress(&mut self) {
        let heard = match self.dice.roll(4) {
            0 if !self.over.is_empty() => self.over[self.dice.roll(self.over.len())].clone(),
            _ if !self.heard.is_empty() => self.heard[self.dice.roll(self.heard.len())].clone(),
            _ => return,
        };
        let text = |token: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken": {token} ,"progress":1e400}}}}"#
            )
        };
        let incoming = self.say(&text(&heard.wire.to_string()));
        let open = self.model.open.get(&heard.tag).filter(|_| heard.has_token);
        match (incoming, open.and_then(|open| open.token.map(|token| (open, token)))) {
            (Incoming::Inform(exchange, message), Some((open, token))) => {
                // Whoever took over another's first subscription has asked for no progress of it.
                assert!(Arc::ptr_eq(&exchange, &open.asker.exchange));
                assert_eq!(message, text(token));
                self.delivered += 1;
            }
            (Incoming::Drop(_), None) => {}
            (Incoming::Drop(_), Some((open, _))) if matches!(open.what, What::Subscribe(_)) => {}
            (incoming, open) => panic!("{incoming:?}, not {open:?}"),
        }
    }

    pub(super) fn child_asks(&mut self) {
        self.next_child_id += 1;
        let number = self.next_child_id;
        let id = [number.to_string(), format!("\"s-{number}\"")][self.dice.roll(2)].clone();
        if self.dice.roll(10) == 0 {
            let incoming = self.say(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#));
            let Incoming::Reply(frame) = incoming else { panic!("{incoming:?}") };
            assert_eq!(frame, format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{}}}}\n"));
            return;
        }
        let task = self.dice.roll(4).eq(&0).then(|| self.next_tag.saturating_sub(self.dice.roll(500) as u64));
        let meta = task
            .map(|task| format!(r#","_meta":{{"io.modelcontextprotocol/related-task":{{"taskId":"task-{task}"}}}}"#));
        let elicitation = 1_000_000_000 + number;
        let (meta, method) =
            (meta.unwrap_or_default(), ["sampling/createMessage", "elicitation/create", "x/y"][self.dice.roll(3)]);
        let text = |id: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","id": {id} ,"method":"{method}","params":{{"elicitationId":"e-{elicitation}"{meta}}}}}"#
            )
        };
        let owner = match task {
            Some(task) => self.model.tasks.get(&task).copied(),
            None => self.model.causer(),
        };
        let incoming = self.say(&text(&id));
        match owner.filter(|_| self.model.asked.len() < MAX_IN_FLIGHT) {
            Some(owner) => {
                let Incoming::Unsolicited(Unsolicited::Request, message, Some(number), peers) = incoming else {
                    panic!("{incoming:?}")
                };
                assert_eq!(peers, [owner]);
                assert!(number > self.last_wire);
                self.last_wire = number;
                assert_eq!(message, text(&number.to_string()));
                self.model.asked.insert(number, (owner, id));
                self.model.elicitations.insert(elicitation, owner);
                self.delivered += 1;
            }
            None => {
                let Incoming::Reply(frame) = incoming else { panic!("nobody may see {incoming:?}") };
                assert_eq!(self.hear(&frame), format!("refuse {id}"));
            }
        }
    }

    pub(super) fn client_answers(&mut self) {
        let Some(peer) = self.someone() else { return };
        let known = self.model.asked.len();
        let number = match self.dice.roll(5) {
            0 => self.dice.roll(1000) as u64,
            _ if known > 0 => *self.model.asked.keys().nth(self.dice.roll(known)).unwrap(),
            _ => return,
        };
        // Now and then it is somebody else who answers.
        let owner = self.model.asked.get(&number).map(|(owner, _)| *owner);
        let peer = owner.filter(|_| self.dice.roll(3) > 0).unwrap_or(peer);
        let text = |id: &str| format!(r#"{{"jsonrpc":"2.0","id": {id} ,"result":{{"é":1e400}}}}"#);
        let message = text(&number.to_string());
        let frame = self.multiplexer.answered_by_client(peer, message.as_bytes(), &parse(message.as_bytes()).unwrap());
        if owner == Some(peer) {
            let (_, id) = self.model.asked.remove(&number).unwrap();
            assert_eq!(frame.unwrap(), text(&id) + "\n");
        } else {
            assert_eq!(frame, None, "an answer of somebody who was not asked");
        }
    }

    pub(super) fn child_cancels(&mut self) {
        let known = self.model.asked.len();
        let asked = (known > 0).then(|| self.model.asked.iter().nth(self.dice.roll(known)).unwrap());
        let asked = asked.map(|(number, (peer, id))| (*number, *peer, id.clone()));
        let text = |id: &str| {
            format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId": {id} }}}}"#)
        };
        let incoming = self.say(&text(asked.as_ref().map_or("\"never\"", |(.., id)| id)));
        match (incoming, asked) {
            (Incoming::Unsolicited(Unsolicited::Notification, message, None, peers), Some((number, peer, _))) => {
                assert_eq!((message, peers), (text(&number.to_string()).into(), vec![peer]));
                self.model.asked.remove(&number);
            }
            (Incoming::Drop(_), None) => {}
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn child_notifies(&mut self) {
        let all = || self.model.peers.keys().copied().collect::<Vec<_>>();
        let only = self.model.only();
        let tag = self.next_tag.saturating_sub(self.dice.roll(300) as u64);
        let (method, params, expected) = match self.dice.roll(7) {
            0 => ("tools/list_changed", String::new(), all()),
            1 => {
                let number = self.dice.roll(6);
                let rest = ["", "/part", "0"][self.dice.roll(3)];
                let subscribed = self.model.uris.get(&number).filter(|_| rest != "0");
                let peers = subscribed.map(|subscribed| subscribed.peers.iter().copied().collect());
                ("resources/updated", format!(r#""uri":"{}{rest}""#, uri(number)), peers.unwrap_or_default())
            }
            2 => {
                let level = self.dice.roll(8);
                let wants = |peer: &PeerId| self.model.peers[peer].is_none_or(|wanted| level >= wanted);
                let peers = only.into_iter().filter(wants).collect();
                ("message", format!(r#""level":"{}","data":1"#, LEVELS[level]), peers)
            }
            3 => {
                let owner = self.model.tasks.get(&tag).copied();
                ("tasks/status", format!(r#""taskId":"task-{tag}""#), owner.into_iter().collect())
            }
            4 => {
                let owner = self.model.elicitations.get(&tag).copied();
                ("elicitation/complete", format!(r#""elicitationId":"e-{tag}""#), owner.into_iter().collect())
            }
            5 => ("x/of-its-own", String::new(), only.into_iter().collect()),
            _ => ("prompts/list_changed", String::new(), all()),
        };
        let text = format!(r#"{{"jsonrpc":"2.0","method":"notifications/{method}","params":{{{params}}}}}"#);
        match self.say(&text) {
            Incoming::Unsolicited(_, message, None, peers) => {
                assert_eq!((message, peers), (text.into(), expected.clone()), "{method}");
                self.delivered += expected.len() as u64;
            }
            Incoming::Drop(_) | Incoming::Ignore => assert_eq!(expected, [], "{method} is lost"),
            other => panic!("{method}: {other:?}"),
        }
    }
}
