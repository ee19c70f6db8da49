//! Readers of JSON do not agree on names. Whatever a client writes, a frame that reaches a child means to each of them
//! what the gateway took it for.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use tokio::time::Instant;

use super::super::{Ask, Notified, Outgoing};
use super::story::{A, TIMEOUT, ask, exchange, forwarded, request, say, shared};
use crate::jsonrpc::{Kind, parse, text};
use crate::worker::tests::rng::{TestRng, from_environment};

/// A JSON value with its members in their order, however often each is there.
#[derive(Debug, PartialEq)]
enum Node {
    Scalar(String),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Node;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Scalar("null".to_owned()))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Scalar(value.to_string()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Scalar(value.to_string()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
                Ok(Node::Scalar(value.to_string()))
            }
            fn visit_str<E>(self, value: &str) -> Result<Node, E> {
                Ok(Node::Scalar(format!("{value:?}")))
            }
            fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> Result<Node, S::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Node::List(list))
            }
            fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<Node, M::Error> {
                let mut object = Vec::new();
                while let Some(member) = members.next_entry()? {
                    object.push(member);
                }
                Ok(Node::Object(object))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// A way to read: what a name is, and whether the first of two counts.
struct Reader {
    name: fn(&str) -> String,
    is_first: bool,
}

const NAMES: [fn(&str) -> String; 5] = [
    str::to_owned,
    |name| name.to_lowercase(),
    |name| name.to_uppercase(),
    |name| name.split('\0').next().unwrap().trim().to_owned(),
    |name| if name == "meta" { "_meta".to_owned() } else { name.replace(['_', '-'], "").to_lowercase() },
];

impl Reader {
    fn get<'n>(&self, node: Option<&'n Node>, name: &str) -> Option<&'n Node> {
        let Node::Object(members) = node? else { return None };
        let mut found = members.iter().filter(|(key, _)| (self.name)(key) == (self.name)(name));
        if self.is_first { found.next() } else { found.next_back() }.map(|(_, value)| value)
    }

    /// What decides what a server does.
    fn read<'n>(&self, frame: &'n Node) -> Vec<Option<&'n Node>> {
        let top = |name| self.get(Some(frame), name);
        let (params, mut all) = (top("params"), vec![top("id"), top("method"), top("result"), top("error")]);
        for name in ["requestId", "progressToken", "taskId", "uri", "level", "task", "name", "cursor"] {
            all.push(self.get(params, name));
        }
        all.push(self.get(self.get(params, "_meta"), "progressToken"));
        all
    }
}

/// How a name may be written.
fn written(rng: &mut TestRng, name: &str) -> String {
    let half = rng.below(name.len());
    let (start, end) = name.split_at(half);
    match rng.below(24) {
        0 => name.to_uppercase(),
        1 => name.to_lowercase(),
        2 => format!("{start}{}", end.to_uppercase()),
        3 => format!("{start}{}", end.replacen('s', "\u{17f}", 1)),
        4 => format!("{start}{}", end.replacen('k', "\u{212a}", 1)),
        5 => format!("{start}{}", end.replacen('s', "\\u017f", 1)),
        6 => name.replacen('I', "_i", 1).replacen('T', "_t", 1),
        7 => format!("{name}\\u0000{start}"),
        8 => format!("{name} "),
        9 => name.trim_start_matches('_').to_owned(),
        10 => format!("{start}\\ud800{end}"),
        11 => name.replace("ss", "\u{df}"),
        12..=15 => format!("{start}\\u{:04x}{}", u32::from(end.as_bytes()[0]), &end[1..]),
        _ => name.to_owned(),
    }
}

fn pick<'a>(rng: &mut TestRng, of: &[&'a str]) -> &'a str {
    of[rng.below(of.len())]
}

fn members(rng: &mut TestRng, most: usize, names: &[&str], values: &[&str]) -> Vec<String> {
    let count = rng.below(most + 1);
    let member = |_| {
        let (name, value) = (pick(rng, names), pick(rng, values));
        format!(r#""{}":{value}"#, written(rng, name))
    };
    (0..count).map(member).collect()
}

/// A message of a client that would be somebody else.
fn message(rng: &mut TestRng) -> String {
    let values =
        ["7", "\"7\"", "7.0", "null", "\"mine\"", "\"theirs\"", "[7]", "{}", "{\"taskId\":\"theirs\"}", "true"];
    let meta = members(rng, 2, &["progressToken", "io.modelcontextprotocol/related-task", "x"], &values).join(",");
    let mut params = members(
        rng,
        2,
        &["requestId", "progressToken", "taskId", "uri", "level", "task", "name", "cursor", "x"],
        &values,
    );
    for _ in 0..rng.below(3) {
        params.push(format!(r#""{}":{{{meta}}}"#, written(rng, "_meta")));
    }
    let methods =
        ["tools/call", "tasks/get", "tasks/cancel", "x/y", "notifications/cancelled", "notifications/x", "ping"];
    let method = pick(rng, &methods);
    let method = if rng.below(2) == 0 { written(rng, method) } else { method.to_owned() };
    let mut envelope = vec![r#""jsonrpc":"2.0""#.to_owned(), format!(r#""method":"{method}""#)];
    envelope.extend((rng.below(4) > 0).then(|| r#""id":1"#.to_owned()));
    let params = if rng.below(20) == 0 { "[7]".to_owned() } else { format!("{{{}}}", params.join(",")) };
    envelope.push(format!(r#""params":{params}"#));
    envelope.extend(
        members(rng, 2, &["id", "method", "params", "result", "error"], &values)
            .into_iter()
            .filter(|_| rng.below(2) == 0),
    );
    let place = rng.below(envelope.len());
    envelope.rotate_left(place);
    format!("{{{}}}", envelope.join(","))
}

#[test]
#[expect(clippy::print_stdout, reason = "a count that is asked for")]
fn readers_of_every_kind_understand_what_the_gateway_took() {
    let mut multiplexer = shared(1_000_000);
    let (number, _) = forwarded(ask(&mut multiplexer, A, &request("tools/call", "{}")));
    say(&mut multiplexer, &format!(r#"{{"jsonrpc":"2.0","id":{number},"result":{{"task":{{"taskId":"mine"}}}}}}"#));
    let (mut passed, mut refused) = (0, 0);
    let mut rng = TestRng::new(from_environment("SLUICE_MUX_SEED", 1));
    for _ in 0..60_000 {
        let message = message(&mut rng);
        let Ok(envelope) = parse(message.as_bytes()) else {
            refused += 1;
            continue;
        };
        let ask = Ask { envelope: &envelope, exchange: &exchange(), timeout: TIMEOUT, is_own: false };
        let forwarded = match envelope.kind {
            Kind::Request => match multiplexer.ask(A, &ask, Instant::now()).unwrap() {
                Outgoing::Forward(number, frame) => Some((Some(number), frame)),
                Outgoing::Local(_) | Outgoing::Wait => None,
            },
            Kind::Notification => match multiplexer.notice_of_client(A, &envelope) {
                Notified::Forward(frame) => Some((None, frame)),
                Notified::Drop(_) | Notified::Ignore => None,
            },
            Kind::Response => None,
        };
        let Some((number, frame)) = forwarded else {
            refused += 1;
            continue;
        };
        passed += 1;
        let node: Node = serde_json::from_slice(&frame).unwrap();
        let exact = Reader { name: NAMES[0], is_first: true }.read(&node);
        for name in NAMES {
            for is_first in [true, false] {
                assert_eq!(Reader { name, is_first }.read(&node), exact, "{message} came as {frame:?}");
            }
        }
        let heard = parse(&frame).unwrap();
        assert_eq!((heard.raw_id().and_then(|id| id.as_u64()), &heard.method), (number, &envelope.method), "{message}");
        let token = heard.members.meta.progress_token.map(str::to_owned);
        assert!(token.is_none_or(|token| Some(token) == number.map(|number| number.to_string())), "{message}");
        if envelope.method.as_deref().unwrap().starts_with("tasks/") {
            assert_eq!(heard.members.task_id.and_then(text).as_deref(), Some("mine"), "{message}");
        }
        number.into_iter().for_each(|number| drop(say(&mut multiplexer, &super::story::answer(number))));
    }
    println!("{passed} messages passed, {refused} were refused");
    assert!(passed > 3000 && refused > 3000, "{passed} passed, {refused} were refused");
}
