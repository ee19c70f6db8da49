//! Nobody becomes anybody: whatever a client writes, and however a server reads JSON, the server acts for that client
//! alone.

use serde_json::{Value, json};
use sluice::config::{Isolation, Server};

use crate::harness::{Gateway, Streamable, eventually, fixture, key, text_of};

/// What a client may send to be taken for another one.
const ATTACKS: &str = include_str!("../../fixtures/readers/attacks.txt");
const READER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/readers/reader.py");

fn server(reader: &str) -> Server {
    let mut server = fixture("echo");
    server.command = "/usr/bin/python3".to_owned();
    server.args = vec![READER.to_owned(), reader.to_owned()];
    server.isolation = Isolation::Shared;
    server
}

fn call(id: Value, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
}

/// The attacks on the call of a client that the server knows by a number.
fn attacks(number: &str) -> impl Iterator<Item = String> {
    let lines = ATTACKS.lines().filter(|line| line.starts_with('{'));
    lines.map(move |line| {
        let line = line.replace("NUMBER", number).replace("TASK", "task-1").replace("RESOURCE", "x:mine");
        line.replace("TOOL", r#"{"name":"say","arguments":{"text":"forged"}}"#)
    })
}

async fn attack(reader: &str) {
    let mut keys = Vec::new();
    let gateway = Gateway::start_with([server(reader)], |config| {
        keys = ["acme", "acme", "else"].into_iter().map(|tenant| key(config, tenant, "ann")).collect();
    })
    .await;
    let mut victim = gateway.with_key(&keys[0]).streamable().await;
    let mut beside = gateway.with_key(&keys[1]).streamable().await;
    let attacker = gateway.with_key(&keys[2]).streamable().await;
    assert!(victim.request("resources/subscribe", json!({"uri": "x:mine"})).await.get("result").is_some());
    let made = victim.request("tools/call", json!({"name": "task", "task": {"ttl": null}})).await;
    assert_eq!(made["result"]["task"]["taskId"], "task-1");
    let hold = call(json!("mine"), &json!({"name": "hold", "_meta": {"progressToken": "mine"}}));
    let attack = async {
        let number = eventually("the call is held", async || {
            Some(beside.call("number", json!({})).await).filter(|number| !number.is_empty())
        })
        .await;
        // Whoever knows the number, since a server tells, is nobody else for it.
        for attack in attacks(&number) {
            let reply = attacker.send(&attack).await;
            assert!(!reply.text.contains("the result of a task"), "{reader}: {attack}: {reply:?}");
            let acts = beside.call("acts", json!({})).await;
            assert_eq!(acts, "[]", "{reader}: the server was made to do something by {attack}");
        }
        assert_eq!(beside.call("release", json!({})).await, "released");
    };
    let (held, ()) = tokio::join!(victim.open(&hold), attack);
    assert!(!held.is_stream(), "{reader}: somebody else's progress has come");
    let answer = held.reply().await.json();
    assert_eq!((text_of(&answer), &answer["id"]), ("held".to_owned(), &json!("mine")), "{reader}");
    gateway.finish().await;
}

#[tokio::test]
async fn no_server_takes_a_client_for_another_one_however_it_reads_json() {
    for reader in ["exact", "fold", "first", "last", "names"] {
        attack(reader).await;
    }
}

#[tokio::test]
async fn who_writes_what_could_be_read_in_two_ways_is_told_so() {
    let gateway = Gateway::start(fixture("echo")).await;
    let mut client = gateway.streamable().await;
    for (message, code, says) in [
        (r#""method":"tools/call","params":{"name":"echo","_Meta":{}}"#, -32602, "some readers take for \"_meta\""),
        (
            r#""method":"tools/call","params":{"name":"echo","_meta":{"progressToken":1,"progressToken":2}}"#,
            -32602,
            "twice",
        ),
        (r#""method":"tools/call","params":["echo"]"#, -32602, "must be an object"),
        (r#""method":"Tools/call""#, -32601, "write \"tools/call\""),
        (r#""method":"notifications/cancelled","params":{}"#, -32600, "send it without"),
    ] {
        let reply = client.send(format!(r#"{{"jsonrpc":"2.0","id":7,{message}}}"#)).await;
        let error = reply.json();
        assert_eq!((reply.status, &error["id"], &error["error"]["code"]), (200, &json!(7), &json!(code)), "{message}");
        assert!(error["error"]["message"].as_str().unwrap().contains(says), "{error}");
    }
    client.notify(r#"{"jsonrpc":"2.0","method":"notifications/x","params":{"Uri":1}}"#).await;
    gateway.until("it is counted", |metrics| metrics.dropped("ambiguous") == 1.0).await;
    assert_eq!(client.call("notifications_received", json!({})).await, r#"["notifications/initialized"]"#);
    gateway.finish().await;
}

#[tokio::test]
async fn the_numbers_of_calls_cannot_be_guessed() {
    let gateway = Gateway::start_with([server("exact")], |_| {}).await;
    let mut client: Streamable = gateway.streamable().await;
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..20 {
        let hold = call(json!(1), &json!({"name": "hold"}));
        let release = async {
            let number = eventually("the call is held", async || {
                Some(client.call("number", json!({})).await).filter(|number| !number.is_empty())
            })
            .await;
            client.call("release", json!({})).await;
            number.parse::<u64>().unwrap()
        };
        let other = gateway.streamable().await;
        let (_, number) = tokio::join!(other.open(&hold), release);
        assert!(number < 100_000_000_000_000 && seen.insert(number), "round {round}: {number}");
        other.delete().await;
    }
    // Numbers that are counted up, or are near each other, would lie in a small part of the range.
    let (first, last) = (seen.first().unwrap(), seen.last().unwrap());
    assert!(last - first > 10_000_000_000_000, "{seen:?}");
    gateway.finish().await;
}
