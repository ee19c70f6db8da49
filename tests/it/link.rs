//! A link without a transport: no HTTP, no session and no streams, only a client in memory and real children.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use sluice::auth::{Issuer, Principal};
use sluice::config::{Config, Server, ServerName, TenantId};
use sluice::jsonrpc::parse;
use sluice::memory::{Account, Memory};
use sluice::permits::Permits;
use sluice::pool::{Children, Deployments, Pools, Surroundings};
use sluice::process::{Ceilings, Folders, GuardianSupervisor, Neighbours};
use sluice::session::{Client, Link, Target};
use sluice::stream::{Budget, Cursor, Exchange, Item, Outbox};
use sluice::telemetry::Metrics;
use sluice::worker::{InFlight, Route, Unsolicited};

use crate::harness::{eventually, hello, in_time, named, text_of};
use crate::proc;
use crate::scene::fixture;

const LIMITS: Budget = Budget { messages: 100, bytes: 1 << 20 };

/// A client that listens on one outbox, and notes what the gateway announces.
struct Listener {
    outbox: Outbox,
    announced: Mutex<Vec<String>>,
}

impl Client for Listener {
    fn route(&self, _: &Item, _: Unsolicited, _: &InFlight) -> Route {
        Route::Stream(self.outbox.clone())
    }

    fn forget(&self, _: u64) -> bool {
        false
    }

    fn announce(&self, message: Bytes) {
        let message: Value = serde_json::from_slice(&message).unwrap();
        self.announced.lock().push(message["method"].as_str().unwrap().to_owned());
    }

    fn is_listening(&self) -> bool {
        true
    }
}

/// A conversation without a session: links, and the stream on which all of them reach the client.
struct Conversation {
    listener: Arc<Listener>,
    cursor: Cursor,
    links: Vec<Arc<Link>>,
    _deployments: Deployments,
    tasks: TaskTracker,
    stop_children: CancellationToken,
    stop_guardian: CancellationToken,
    guardian: tokio::task::JoinHandle<()>,
}

impl Conversation {
    /// One link to each server.
    fn new(servers: Vec<Server>) -> Self {
        let program = std::path::PathBuf::from(env!("CARGO_BIN_EXE_sluice"));
        let folders = Folders::new(None);
        let (supervisor, guardian) = GuardianSupervisor::start(program, Neighbours::Some, None, folders, None).unwrap();
        let metrics = Arc::new(Metrics::default());
        let (tasks, stop_children) = (TaskTracker::new(), CancellationToken::new());
        let surroundings = Surroundings {
            ceilings: Ceilings::new(&std::collections::BTreeMap::new(), &guardian, metrics.watch_failures.clone()),
            guardian,
            slow_client_timeout: Duration::from_secs(10),
            spawn_concurrency: 2,
            permits: Permits::default(),
            memory: Memory::new(1 << 30),
            children: Children::default(),
            tasks: tasks.clone(),
            draining: stop_children.clone(),
            kill: CancellationToken::new(),
        };
        let names: Vec<_> = servers.iter().map(|server| server.name.clone()).collect();
        let pools = Pools::new(metrics, surroundings);
        let deployments = pools.deploy(&Config::for_servers(servers), &Deployments::new());
        let (outbox, cursor) = Outbox::new(LIMITS);
        let listener = Arc::new(Listener { outbox, announced: Mutex::default() });
        let link = |server: &ServerName| {
            let target = Target {
                deployment: Arc::clone(&deployments[server]),
                principal: Principal::new(TenantId::fallback(), Issuer::Anonymous, "anonymous", Vec::new()),
                account: Account::unlimited(),
                label: "test".into(),
                tasks: tasks.clone(),
            };
            Link::new(target, Arc::clone(&listener) as Arc<dyn Client>)
        };
        let links = names.iter().map(link).collect();
        let stop_guardian = CancellationToken::new();
        let guardian = tokio::spawn(supervisor.run(stop_guardian.clone()));
        Self { listener, cursor, links, _deployments: deployments, tasks, stop_children, stop_guardian, guardian }
    }

    /// The next request of a server, and its id.
    async fn asked(&mut self) -> Value {
        let item = in_time("a request of the server", self.cursor.next()).await.unwrap();
        serde_json::from_slice(&item.message).unwrap()
    }

    /// Ends the links, and what they ran on. Nothing is left: no task, no child.
    async fn finish(self) {
        self.links.iter().for_each(|link| link.end());
        self.stop_children.cancel();
        self.tasks.close();
        in_time("all tasks and children end", self.tasks.wait()).await;
        self.stop_guardian.cancel();
        in_time("the guardian ends", self.guardian).await.unwrap();
    }
}

/// A request in flight: the exchange that its answer comes to.
struct Request(Cursor);

impl Request {
    fn send(link: &Link, id: u64, method: &str, params: Value) -> Self {
        let (outbox, cursor) = Outbox::new(LIMITS);
        let exchange = Arc::new(Exchange::of_request(outbox, 1, &Account::unlimited()));
        give(link, &json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}), &exchange);
        Self(cursor)
    }

    fn call(link: &Link, id: u64, tool: &str, arguments: Value) -> Self {
        Self::send(link, id, "tools/call", json!({"name": tool, "arguments": arguments}))
    }

    async fn answer(mut self) -> Value {
        let item = in_time("the answer", self.0.next()).await.unwrap();
        assert!(item.answer);
        serde_json::from_slice(&item.message).unwrap()
    }

    async fn text(self) -> String {
        text_of(&self.answer().await)
    }
}

fn give(link: &Link, message: &Value, exchange: &Arc<Exchange>) {
    let message = message.to_string();
    assert_eq!(link.receive(message.as_bytes(), &parse(message.as_bytes()).unwrap(), exchange), Ok(()));
}

/// Gives a link something that has no answer.
fn tell(link: &Link, message: &Value) {
    let (outbox, _) = Outbox::new(LIMITS);
    give(link, message, &Arc::new(Exchange::of_request(outbox, 0, &Account::unlimited())));
}

async fn shake_hands(link: &Link) {
    let answer = Request::send(link, 0, "initialize", hello("2025-03-26")).answer().await;
    assert_eq!((&answer["id"], &answer["result"]["protocolVersion"]), (&json!(0), &json!("2025-03-26")));
    assert_eq!(link.version().as_deref(), Some("2025-03-26"));
    tell(link, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
}

async fn pid(link: &Link) -> u32 {
    Request::call(link, 1, "pid", json!({})).text().await.parse().unwrap()
}

/// A call in flight for as long as the test wants: the server asks the client, and waits for the answer.
struct Held {
    call: Request,
    asked: Value,
}

impl Held {
    async fn on(conversation: &mut Conversation, link: usize, prompt: &str) -> Self {
        let call = Request::call(&conversation.links[link], 7, "sample", json!({"prompt": prompt}));
        Self { call, asked: conversation.asked().await }
    }

    /// What the client answers, in so many words.
    fn response(&self, text: &str) -> Value {
        let content = json!({"type": "text", "text": text});
        let result = json!({"role": "assistant", "model": "m", "content": content});
        json!({"jsonrpc": "2.0", "id": self.asked["id"], "result": result})
    }
}

#[tokio::test]
async fn a_link_without_a_transport_shakes_hands_and_calls() {
    let conversation = Conversation::new(vec![fixture(&["echo"])]);
    let link = &conversation.links[0];
    let early = Request::call(link, 1, "echo", json!({"text": "early"})).answer().await;
    assert_eq!(early["error"]["message"], "send initialize first", "{early}");
    // What comes right behind `initialize` is queued for the child.
    let initialize = Request::send(link, 0, "initialize", hello("2025-03-26"));
    let queued = Request::call(link, 2, "echo", json!({"text": "queued"}));
    assert!(link.is_busy() && link.last_use().is_none());
    assert_eq!(initialize.answer().await["result"]["protocolVersion"], "2025-03-26");
    assert_eq!(queued.text().await, "queued");
    let again = Request::send(link, 3, "initialize", hello("2025-03-26")).answer().await;
    assert!(again["error"]["message"].as_str().unwrap().contains("initialized already"), "{again}");
    assert_eq!(Request::call(link, 4, "echo", json!({"text": "hello"})).text().await, "hello");
    assert!(!link.is_busy() && link.last_use().is_some());
    // The end answers what is in flight.
    let hanging = Request::call(link, 5, "hang", json!({}));
    link.end();
    assert_eq!(hanging.answer().await["error"]["data"]["type"], "session_ended");
    conversation.finish().await;
}

#[tokio::test]
async fn a_link_without_a_transport_restarts_a_crashed_child() {
    let conversation = Conversation::new(vec![fixture(&["echo"])]);
    let link = &conversation.links[0];
    shake_hands(link).await;
    let before = pid(link).await;
    let crashed = Request::call(link, 2, "crash", json!({"code": 9})).answer().await;
    assert_eq!(crashed["error"]["data"]["exitCode"], 9, "{crashed}");
    // Nobody calls, but the client listens.
    let announced = || conversation.listener.announced.lock().first().cloned();
    assert_eq!(eventually("it is replaced", async || announced()).await, "notifications/tools/list_changed");
    assert_ne!(pid(link).await, before);
    let heard = Request::call(link, 3, "notifications_received", json!({})).text().await;
    assert_eq!(heard, r#"["notifications/initialized"]"#, "the handshake is replayed, once");
    conversation.finish().await;
}

#[tokio::test]
async fn a_link_without_a_transport_drains_a_replaced_child() {
    let mut server = fixture(&["echo"]);
    server.pool.max_requests = Some(2);
    let mut conversation = Conversation::new(vec![server]);
    shake_hands(&conversation.links[0].clone()).await;
    let before = pid(&conversation.links[0]).await;
    let held = Held::on(&mut conversation, 0, "how long?").await;
    let link = &conversation.links[0];
    // The child has had its calls: the next one is another child's.
    let after = pid(link).await;
    assert_ne!(before, after);
    assert!(proc::exists(before), "it drains");
    tell(link, &held.response("long enough"));
    assert_eq!(held.call.text().await, "long enough");
    proc::gone(before).await;
    assert_eq!(pid(link).await, after);
    conversation.finish().await;
}

#[tokio::test]
async fn links_of_one_conversation_tell_the_requests_of_their_servers_apart() {
    let names = ["a", "b"].map(|name| named(name, fixture(&["echo"])));
    let mut conversation = Conversation::new(names.to_vec());
    for link in &conversation.links {
        shake_hands(link).await;
    }
    let held = [Held::on(&mut conversation, 0, "a?").await, Held::on(&mut conversation, 1, "b?").await];
    assert_ne!(held[0].asked["id"], held[1].asked["id"]);
    // Whoever has several links may give each of them every answer: only the child that has asked hears it.
    for (text, held) in ["to a", "to b"].iter().zip(&held) {
        conversation.links.iter().for_each(|link| tell(link, &held.response(text)));
    }
    let [a, b] = held;
    assert_eq!((a.call.text().await, b.call.text().await), ("to a".to_owned(), "to b".to_owned()));
    // The end of one is not the end of the other.
    conversation.links[0].end();
    assert_eq!(Request::call(&conversation.links[1], 9, "echo", json!({"text": "b"})).text().await, "b");
    conversation.finish().await;
}
