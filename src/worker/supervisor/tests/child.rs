//! A child that reads and writes in bits and pieces, and answers what it likes, when it likes, or not.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;

use serde_json::Value;
use tokio::net::unix::pipe;
use tokio::time::{Duration, sleep};

use super::TestRng;
use crate::jsonrpc::parse;

pub(super) const MAX_LINE: usize = 2000;

/// What it is to do.
#[derive(Default)]
pub(super) struct Script {
    /// So many frames, after which it ends in the middle of one of its own.
    pub(super) crashes_after: Option<usize>,
    pub(super) grants_all: bool,
    /// It says nothing that it need not say.
    pub(super) is_silent: bool,
}

/// What it has heard.
#[derive(Default)]
pub(super) struct Heard {
    /// The numbers of calls, in order.
    pub(super) nonces: Vec<u64>,
    pub(super) subscribed: Vec<String>,
    pub(super) crashed: bool,
    ids: BTreeSet<u64>,
    initialized: usize,
}

struct Child {
    rng: TestRng,
    script: Script,
    heard: Heard,
    input: Vec<u8>,
    output: Vec<u8>,
    frames: usize,
    /// Calls that it may answer: the number that it knows each by, and its own.
    open: Vec<(u64, u64)>,
    /// Those that it has answered, or will never.
    over: Vec<(u64, u64)>,
    /// What it has asked clients, and whether they have answered.
    asked: BTreeMap<String, bool>,
}

/// Lives until its stdin ends, or its script says so.
pub(super) async fn run(rng: TestRng, script: Script, stdin: pipe::Receiver, mut stdout: pipe::Sender) -> Heard {
    let (heard, input, output, asked) = (Heard::default(), Vec::new(), Vec::new(), BTreeMap::new());
    let mut child = Child { rng, script, heard, input, output, frames: 0, open: Vec::new(), over: Vec::new(), asked };
    let (mut has_ended, mut stalled) = (false, 0);
    loop {
        let mut is_idle = true;
        stalled = if child.rng.below(400) == 0 { child.rng.below(100) } else { usize::saturating_sub(stalled, 1) };
        let mut chunk = vec![0; 1 + child.rng.below(3000)];
        if stalled == 0 && !has_ended {
            match stdin.try_read(&mut chunk) {
                Ok(0) => has_ended = true,
                Ok(read) => {
                    child.input.extend_from_slice(&chunk[..read]);
                    is_idle = false;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            child.listen();
        }
        let crashes = child.script.crashes_after.is_some_and(|after| child.frames > after);
        if crashes || has_ended {
            if crashes {
                // In the middle of an answer.
                let (id, nonce) = child.open.first().copied().unwrap_or((1, 1));
                child.output.extend_from_slice(answer(id, nonce).split_at(20 + child.rng.below(20)).0.as_bytes());
                child.heard.crashed = true;
            }
            while !child.output.is_empty() && stdout.writable().await.is_ok() && child.write(&mut stdout).is_ok() {}
            assert!(crashes || child.input.is_empty(), "half a frame: {:?}", String::from_utf8_lossy(&child.input));
            return child.heard;
        }
        for _ in 0..child.rng.below(12) {
            if child.output.len() < 4 * MAX_LINE && !child.script.is_silent {
                child.speak();
            }
        }
        is_idle &= !matches!(child.write(&mut stdout), Ok(written) if written > 0);
        if is_idle {
            sleep(Duration::from_micros(200)).await;
        }
        tokio::task::yield_now().await;
    }
}

fn answer(id: u64, nonce: u64) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"nonce":{nonce},"x":1e400}}}}"#)
}

impl Child {
    fn write(&mut self, stdout: &mut pipe::Sender) -> Result<usize, ErrorKind> {
        let length = self.output.len().min(1 + self.rng.below(3000));
        match stdout.try_write(&self.output[..length]) {
            Ok(written) => {
                self.output.drain(..written);
                Ok(written)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error.kind()),
        }
    }

    fn say(&mut self, line: &str) {
        self.output.extend_from_slice(line.as_bytes());
        self.output.extend_from_slice([&b"\n"[..], b"\r\n"][self.rng.below(2)]);
    }

    fn listen(&mut self) {
        while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            self.frames += 1;
            let value: Value = serde_json::from_slice(&line)
                .unwrap_or_else(|error| panic!("no whole frame, {error}: {:?}", String::from_utf8_lossy(&line)));
            self.hear(&value);
        }
    }

    fn hear(&mut self, value: &Value) {
        let (id, params) = (value["id"].as_u64(), &value["params"]);
        let Some(method) = value["method"].as_str() else { return self.hear_answer(value) };
        if let Some(id) = id {
            assert!(id < 100_000_000_000_000 && self.heard.ids.insert(id), "{id} is used twice");
            assert_eq!(self.heard.initialized, usize::from(method != "initialize"), "{method}");
        }
        let nonce = params["nonce"].as_u64();
        self.heard.nonces.extend(nonce);
        match (method, id) {
            ("initialize", Some(id)) => {
                self.say(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"protocolVersion":"2025-06-18"}}}}"#));
            }
            ("notifications/initialized", None) => self.heard.initialized += 1,
            ("notifications/cancelled", None) => {
                let id = params["requestId"].as_u64().unwrap();
                assert!(self.heard.ids.contains(&id), "{id} is cancelled before it is asked for");
                // It may not care.
                if self.rng.below(2) == 0 {
                    self.over.extend(self.open.extract_if(.., |(open, _)| *open == id));
                }
            }
            ("resources/subscribe", Some(id)) => {
                self.heard.subscribed.push(params["uri"].as_str().unwrap().to_owned());
                match self.script.grants_all || self.rng.below(3) > 0 {
                    true => self.open.push((id, nonce.unwrap_or_default())),
                    false => self.say(&format!(
                        r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":1,"message":"no","data":{{"nonce":{}}}}}}}"#,
                        nonce.unwrap_or_default()
                    )),
                }
            }
            ("resources/unsubscribe" | "ping", Some(id)) => self.say(&answer(id, 0)),
            ("tools/call", Some(id)) if params["mute"] == Value::Bool(true) => self.over.push((id, nonce.unwrap())),
            ("tools/call", Some(id)) => self.open.push((id, nonce.unwrap())),
            other => panic!("{other:?} was not to be said"),
        }
    }

    /// A client answers, or the gateway for it: what it was asked, and once.
    fn hear_answer(&mut self, value: &Value) {
        let id = value["id"].as_str().unwrap();
        let was = self.asked.insert(id.to_owned(), true);
        assert_eq!(was, Some(false), "{id} is answered twice, or was never asked");
        if let Some(result) = value.get("result") {
            assert_eq!(result["asked"], *id, "the answer to something else");
        }
    }

    fn speak(&mut self) {
        let some = |rng: &mut TestRng, calls: &[(u64, u64)]| (!calls.is_empty()).then(|| calls[rng.below(calls.len())]);
        match self.rng.below(40) {
            0..=9 if !self.open.is_empty() => {
                let (id, nonce) = {
                    let place = self.rng.below(self.open.len());
                    self.open.swap_remove(place)
                };
                self.over.push((id, nonce));
                self.say(&answer(id, nonce));
            }
            10 if self.open.len() > 1 => {
                let both = [self.open.swap_remove(0), self.open.swap_remove(0)];
                self.over.extend(both);
                let texts = both.map(|(id, nonce)| answer(id, nonce));
                self.say(&format!("[{}]", texts.join(" , ")));
            }
            // Again, too late, or to nobody.
            11 => {
                let (id, nonce) = some(&mut self.rng, &self.over).unwrap_or((1_000_000, 0));
                self.say(&answer(id, nonce));
            }
            12..=14 => {
                let of = [&self.open, &self.over][self.rng.below(2)];
                let Some((id, nonce)) = some(&mut self.rng, of) else { return };
                self.say(&format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{id},"progress":{nonce}}}}}"#));
            }
            // Who is asked keeps the child busy: not for ever.
            15 | 16 if !self.open.is_empty() => {
                let id = format!("q-{}", self.asked.len());
                self.asked.insert(id.clone(), false);
                self.say(&format!(
                    r#"{{"jsonrpc":"2.0","id":"{id}","method":"sampling/createMessage","params":{{"asked":"{id}"}}}}"#
                ));
            }
            17 => self.say(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}"#),
            18 => self.say(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#),
            19 => {
                let garbage = ["no JSON", "{", "[]", "", "\"é", "{\"jsonrpc\":\"2.0\",\"id\":1}"];
                let line = garbage[self.rng.below(garbage.len())];
                self.say(line);
            }
            20 => {
                // Under no number that is in use: it would end that call.
                let line = answer(1_000_000, 1).replace("1e400", &"1".repeat(MAX_LINE));
                assert!(parse(line.as_bytes()).is_ok());
                self.say(&line);
            }
            _ => {}
        }
    }
}
