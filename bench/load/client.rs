//! One client: its session, and the calls that it keeps in flight. Every answer is held against the call it claims to
//! belong to.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::sync::Notify;

use crate::arguments::{Arguments, Ids};
use crate::connection::{Connection, Head, invalid};
use crate::events::Events;
use crate::message::{self, Incoming};
use crate::score::Score;

/// Room between the ids of two clients that are to have none in common. All stay below 2^53.
const DISTINCT: u64 = 1_000_000_000;

/// A client with an initialized session.
#[derive(Debug)]
pub(crate) struct Client {
    number: usize,
    arguments: Rc<Arguments>,
    address: SocketAddr,
    /// A POST up to the value of its Content-Length.
    post: String,
    /// The HTTP+SSE stream; none for Streamable HTTP.
    stream: Option<Stream>,
    tool_argument: String,
    /// What the tool puts before and after the text that it gives back.
    around: (String, String),
}

#[derive(Debug)]
struct Stream {
    connection: Connection,
    buffer: BytesMut,
    events: Events,
}

impl Stream {
    /// Reads on, and hands over every event that has come.
    async fn read(&mut self, mut each: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        if !self.connection.body(&mut self.buffer).await? {
            return Err(invalid("the event stream ended"));
        }
        self.events.take(&mut self.buffer, &mut each);
        Ok(())
    }
}

impl Client {
    /// Opens a session: connects, initializes, looks at the tool and tries it once.
    pub(crate) async fn connect(number: usize, arguments: Rc<Arguments>) -> io::Result<Self> {
        let bad = || io::Error::new(io::ErrorKind::InvalidInput, "--url must be http://ADDRESS:PORT/PATH");
        let (host, path) =
            arguments.url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).ok_or_else(bad)?;
        let address: SocketAddr = host.parse().map_err(|_| bad())?;
        let path = format!("/{path}");
        let mut headers = format!("Host: {host}\r\n");
        if let Some(key) = &arguments.key {
            headers += &format!("Authorization: Bearer {key}\r\n");
        }
        let mut connection = Connection::open(address).await?;
        let (mut target, mut stream) = (path.clone(), None);
        if path.ends_with("/sse") {
            let get = format!("GET {path} HTTP/1.1\r\n{headers}Accept: text/event-stream\r\n\r\n");
            let (endpoint, opened) = open_stream(address, &get).await?;
            target = endpoint.strip_prefix(&format!("http://{host}")).unwrap_or(&endpoint).to_owned();
            if !target.starts_with('/') {
                // Relative to the path of the stream.
                target = format!("{}{target}", path.strip_suffix("sse").unwrap_or_default());
            }
            stream = Some(opened);
        }
        let post = format!(
            "POST {target} HTTP/1.1\r\n{headers}Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
        );
        let mut it = Self {
            number,
            address,
            post,
            stream,
            tool_argument: String::new(),
            around: (String::new(), String::new()),
            arguments,
        };
        it.shake_hands(&mut connection).await?;
        Ok(it)
    }

    async fn shake_hands(&mut self, connection: &mut Connection) -> io::Result<()> {
        let (head, _) =
            self.ask(connection, &message::initialize(self.number), &format!("\"initialize-{}\"", self.number)).await?;
        if let Some(session) = head.session {
            self.post += &format!("Mcp-Session-Id: {session}\r\nMCP-Protocol-Version: 2025-03-26\r\n");
        }
        self.post += "Content-Length: ";
        self.send(connection, message::INITIALIZED).await?;
        connection.skip_body().await?;

        let (_, list) = self.ask(connection, &message::list(self.number), &format!("\"list-{}\"", self.number)).await?;
        let tool = &self.arguments.tool;
        self.tool_argument =
            message::argument(&list, tool).ok_or_else(|| invalid(&format!("no tool {tool} that takes a string")))?;

        let mut body = String::new();
        message::call(&mut body, 0, tool, &self.tool_argument, "trial");
        let (_, answer) = self.ask(connection, &body, "0").await?;
        let answer = Incoming::parse(&answer).ok_or_else(|| invalid("an answer that is not JSON-RPC"))?;
        let text = answer.text().ok_or_else(|| invalid("the tool failed"))?;
        let (before, after) =
            text.split_once("trial").ok_or_else(|| invalid("the tool does not give its text back"))?;
        self.around = (before.to_owned(), after.to_owned());
        Ok(())
    }

    /// Sends one message and reads the head of the response, which must be a success.
    async fn send(&self, connection: &mut Connection, body: &str) -> io::Result<Head> {
        let length = if self.post.ends_with(": ") { "" } else { "Content-Length: " };
        connection.send(format!("{}{length}{}\r\n\r\n{body}", self.post, body.len()).as_bytes()).await?;
        let head = connection.head().await?;
        if (200..300).contains(&head.status) { Ok(head) } else { Err(invalid(&format!("HTTP status {}", head.status))) }
    }

    /// Sends a request, and waits for the message with its id, wherever it comes.
    async fn ask(&mut self, connection: &mut Connection, body: &str, id: &str) -> io::Result<(Head, Vec<u8>)> {
        let head = self.send(connection, body).await?;
        let mut found = None;
        let Some(stream) = &mut self.stream else {
            answer(connection, &head, |data| found = answer_to(id, data).or(found.take())).await?;
            return Ok((head, found.ok_or_else(|| invalid("a response without the answer"))?));
        };
        connection.skip_body().await?;
        while found.is_none() {
            stream.read(|_, data| found = answer_to(id, data).or(found.take())).await?;
        }
        Ok((head, found.unwrap_or_default()))
    }

    /// Calls the tool until the time is up or the number is reached, and waits for the last answers.
    pub(crate) async fn call_until_done(mut self, begin: Instant) -> Score {
        let stream = self.stream.take();
        let calls = Rc::new(Calls::new(self, begin, stream.is_none()));
        let reader = stream.map(|stream| tokio::task::spawn_local(Rc::clone(&calls).read(stream)));
        let mut slots = tokio::task::JoinSet::new();
        for slot in 0..calls.slots.len() {
            slots.spawn_local(Rc::clone(&calls).keep_calling(slot));
        }
        while slots.join_next().await.is_some() {}
        if let Some(reader) = reader {
            reader.abort();
        }
        calls.score.take()
    }
}

/// The message, if it is the answer to the request with that id.
fn answer_to(id: &str, data: &[u8]) -> Option<Vec<u8>> {
    let message = Incoming::parse(data)?;
    (message.method.is_none() && message.id?.get() == id).then(|| data.to_vec())
}

/// Opens the HTTP+SSE stream and waits for the event that says where to post.
async fn open_stream(address: SocketAddr, get: &str) -> io::Result<(String, Stream)> {
    let mut connection = Connection::open(address).await?;
    connection.send(get.as_bytes()).await?;
    let head = connection.head().await?;
    if head.status != 200 || !head.is_event_stream {
        return Err(invalid(&format!("GET: HTTP status {}, or not an event stream", head.status)));
    }
    let mut stream = Stream { connection, buffer: BytesMut::new(), events: Events::default() };
    let mut endpoint = None;
    while endpoint.is_none() {
        let mut take = |name: &[u8], data: &[u8]| {
            if name == b"endpoint" {
                endpoint = Some(String::from_utf8_lossy(data).into_owned());
            }
        };
        stream.read(&mut take).await?;
    }
    Ok((endpoint.unwrap_or_default(), stream))
}

/// Reads the body of a POST's response and hands over every message in it.
async fn answer(connection: &mut Connection, head: &Head, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut body = BytesMut::new();
    let mut events = Events::default();
    while connection.body(&mut body).await? {
        if head.is_event_stream {
            events.take(&mut body, |_, data| each(data));
        }
    }
    if !body.is_empty() {
        each(&body);
    }
    Ok(())
}

/// The calls of a client, and what became of them.
struct Calls {
    client: Client,
    streamable: bool,
    slots: Vec<Slot>,
    next: Cell<u64>,
    last: u64,
    from: Instant,
    to: Option<Instant>,
    score: RefCell<Score>,
}

/// A place for one call in flight.
struct Slot {
    number: u64,
    id: Cell<Option<u64>>,
    text: RefCell<String>,
    sent: Cell<Instant>,
    answered: Notify,
}

impl Calls {
    fn new(client: Client, begin: Instant, streamable: bool) -> Self {
        let arguments = &client.arguments;
        let from = begin + Duration::from_secs_f64(arguments.warm_up);
        let first = if arguments.ids == Ids::Distinct { DISTINCT * client.number as u64 } else { 0 };
        let clients = arguments.clients as u64;
        let share = |all: u64| all / clients + u64::from((client.number as u64) < all % clients);
        let slot = |number: usize| Slot {
            number: number as u64 + 1,
            id: Cell::new(None),
            text: RefCell::default(),
            sent: Cell::new(begin),
            answered: Notify::new(),
        };
        Self {
            slots: (0..arguments.in_flight).map(slot).collect(),
            next: Cell::new(first + 1),
            last: arguments.requests.map_or(u64::MAX, |all| first + share(all)),
            from,
            to: arguments.requests.is_none().then(|| from + Duration::from_secs_f64(arguments.seconds)),
            score: RefCell::default(),
            streamable,
            client,
        }
    }

    /// The number of the next call, unless there is to be none.
    fn next_call(&self) -> Option<u64> {
        let call = self.next.get();
        if call > self.last || self.to.is_some_and(|to| Instant::now() >= to) {
            return None;
        }
        self.next.set(call + 1);
        Some(call)
    }

    async fn keep_calling(self: Rc<Self>, number: usize) {
        let Some(slot) = self.slots.get(number) else { return };
        let mut request = String::new();
        let mut connection = None;
        while let Some(call) = self.next_call() {
            let mut ready = match connection.take() {
                Some(ready) => ready,
                None => match Connection::open(self.client.address).await {
                    Ok(opened) => opened,
                    Err(_) => return self.score.borrow_mut().errors += 1,
                },
            };
            self.prepare(slot, call, &mut request);
            match tokio::time::timeout(self.client.arguments.timeout, self.call(slot, &mut ready, &request)).await {
                Ok(Ok(())) => connection = Some(ready),
                Ok(Err(_)) => self.score.borrow_mut().errors += 1,
                Err(_) => self.score.borrow_mut().missing += u64::from(slot.id.get().is_some()),
            }
            slot.id.set(None);
        }
    }

    /// Writes the request for a call, and notes what its answer has to be.
    fn prepare(&self, slot: &Slot, call: u64, request: &mut String) {
        use std::fmt::Write as _;
        let client = &self.client;
        let id = if client.arguments.ids == Ids::Same { slot.number } else { call };
        let text = format!("client-{}-call-{call}-{:x<2$}", client.number, "", client.arguments.payload);
        let mut body = String::with_capacity(160 + text.len());
        message::call(&mut body, id, &client.arguments.tool, &client.tool_argument, &text);
        request.clear();
        let _ = write!(request, "{}{}\r\n\r\n{body}", client.post, body.len());
        slot.text.replace(format!("{}{text}{}", client.around.0, client.around.1));
        slot.id.set(Some(id));
        slot.sent.set(Instant::now());
    }

    async fn call(&self, slot: &Slot, connection: &mut Connection, request: &str) -> io::Result<()> {
        connection.send(request.as_bytes()).await?;
        let head = connection.head().await?;
        if self.streamable && head.status == 200 {
            answer(connection, &head, |data| self.deliver(data, Some(slot))).await?;
        } else {
            connection.skip_body().await?;
        }
        if !(200..300).contains(&head.status) {
            return Err(invalid("refused"));
        }
        while slot.id.get().is_some() {
            if self.streamable {
                return Err(invalid("a response without the answer"));
            }
            slot.answered.notified().await;
        }
        Ok(())
    }

    async fn read(self: Rc<Self>, mut stream: Stream) {
        while stream.read(|_, data| self.deliver(data, None)).await.is_ok() {}
        // The stream is gone: what waits will be missing, and nothing more is asked.
        self.next.set(u64::MAX);
        self.score.borrow_mut().errors += 1;
    }

    /// Holds a message against the call with its id: that of `only`, or of any slot.
    fn deliver(&self, data: &[u8], only: Option<&Slot>) {
        let mut score = self.score.borrow_mut();
        let Some(message) = Incoming::parse(data) else { return score.errors += 1 };
        if message.method.is_some() {
            return;
        }
        let id = message.id.and_then(|id| id.get().parse::<u64>().ok());
        let mine = |slot: &&Slot| id.is_some() && slot.id.get() == id;
        let Some(slot) = only.filter(mine).or_else(|| if only.is_some() { None } else { self.slots.iter().find(mine) })
        else {
            return score.stray += 1;
        };
        slot.id.set(None);
        let now = Instant::now();
        match message.text() {
            None => score.errors += 1,
            Some(text) if text != *slot.text.borrow() => score.wrong += 1,
            Some(_) => {
                let sent = slot.sent.get();
                if sent >= self.from && self.to.is_none_or(|to| now <= to) {
                    score.right(now - sent);
                }
            }
        }
        slot.answered.notify_one();
    }
}
