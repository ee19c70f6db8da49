//! One session: it takes the client's messages to its worker, and starts one when there is none.
//!
//! Invariant: a child's death is not the session's death. The next message starts another child and replays the
//! handshake; only calls in flight fail. A live child never sees a second `initialize`.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::handshake::{Done, Handshake, protocol_version};
use super::id::SessionId;
use super::streams::{Streams, Transport};
use super::waiting::Waiting;
use crate::auth::Principal;
use crate::config::Server;
use crate::jsonrpc::{Code, Envelope, Kind, RawId, error_response, parse};
use crate::process::Origin;
use crate::stream::{Exchange, Inbox, Limits, Outbox};
use crate::telemetry::ServerMetrics;
use crate::worker::{Ask, Failure, InFlight, Peer, Refused, Route, Spec, Unsolicited, Worker};

type Starting = watch::Receiver<Option<Result<Worker, Failure>>>;

/// The session's worker, or the way to one.
#[derive(Default)]
enum Slot {
    #[default]
    Empty,
    Starting(Starting),
    Live(Worker),
}

#[derive(Default)]
struct State {
    slot: Slot,
    handshake: Handshake,
    streams: Streams,
    waiting: Waiting,
    last_used: Option<Instant>,
}

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// It is on its way; a request's answer comes to its exchange.
    Accepted,
    /// The server takes no more for now.
    Refused(Refused),
}

/// What a session is made with, besides who and what it is for.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    pub(super) slow_client_timeout: Duration,
    pub(super) stream_limits: Limits,
    pub(super) metrics: ServerMetrics,
    pub(super) tasks: TaskTracker,
    pub(super) kill: CancellationToken,
}

/// A client's conversation with a server.
pub struct Session {
    id: SessionId,
    principal: Principal,
    server: Arc<Server>,
    transport: Transport,
    surroundings: Surroundings,
    state: Mutex<State>,
    ended: CancellationToken,
    this: Weak<Self>,
}

impl Session {
    pub(super) fn new(
        id: SessionId,
        principal: Principal,
        server: Arc<Server>,
        transport: Transport,
        surroundings: Surroundings,
    ) -> Arc<Self> {
        let state = Mutex::new(State { last_used: Some(Instant::now()), ..State::default() });
        let ended = CancellationToken::new();
        Arc::new_cyclic(|this| Self {
            id,
            principal,
            server,
            transport,
            surroundings,
            state,
            ended,
            this: this.clone(),
        })
    }

    /// Its id.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// Whose it is.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The server that it talks to.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// How the client is connected.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The protocol version that was negotiated, once it has been.
    pub fn version(&self) -> Option<String> {
        match &self.state.lock().handshake {
            Handshake::Done(done) => done.version.clone(),
            Handshake::None | Handshake::Initializing => None,
        }
    }

    /// Opens the session's stream, in the place of an earlier one.
    pub fn open_stream(&self) -> Inbox {
        let (outbox, inbox) = Outbox::new(self.surroundings.stream_limits);
        let mut state = self.state.lock();
        state.last_used = Some(Instant::now());
        if self.ended.is_cancelled() {
            outbox.finish();
        }
        state.streams.open(outbox);
        inbox
    }

    /// The open stream, as the exchange that takes every answer (HTTP+SSE).
    pub fn stream(&self) -> Option<Arc<Exchange>> {
        self.state.lock().streams.current().cloned()
    }

    /// Takes one message of the client. Answers, errors among them, go to `exchange`.
    pub fn receive(&self, message: Bytes, envelope: &Envelope<'_>, exchange: &Arc<Exchange>) -> Received {
        let live = {
            let mut state = self.state.lock();
            state.last_used = Some(Instant::now());
            match &state.slot {
                Slot::Live(worker) if worker.is_alive() => Some(worker.clone()),
                _ => None,
            }
        };
        if envelope.kind == Kind::Request && envelope.method.as_deref() == Some("initialize") {
            return self.receive_initialize(message, envelope, exchange);
        }
        self.remember_initialized(&message, envelope);
        match live {
            Some(worker) => match self.send(&worker, &message, envelope, exchange) {
                Ok(()) => Received::Accepted,
                Err(refused) => Received::Refused(refused),
            },
            None => self.receive_later(message, envelope.kind, exchange),
        }
    }

    /// Answers a request that the server does not take for now.
    pub fn refuse(&self, id: &RawId, reason: Refused, exchange: &Exchange) {
        answer(exchange, Failure::refused(reason).response(id));
    }

    fn remember_initialized(&self, message: &Bytes, envelope: &Envelope<'_>) {
        if envelope.method.as_deref() == Some("notifications/initialized")
            && let Handshake::Done(done) = &mut self.state.lock().handshake
        {
            done.initialized = Some(message.clone());
        }
    }

    fn send(
        &self,
        worker: &Worker,
        message: &[u8],
        envelope: &Envelope<'_>,
        exchange: &Arc<Exchange>,
    ) -> Result<(), Refused> {
        match envelope.kind {
            Kind::Request => {
                worker.call(&Ask { message, envelope, exchange, timeout: self.server.limits.call_timeout })
            }
            Kind::Notification => worker.notify(message, envelope),
            Kind::Response => worker.answer(message, envelope),
        }
    }

    /// There is no child (yet, or any more): the message waits for one, off the caller's path.
    fn receive_later(&self, message: Bytes, kind: Kind, exchange: &Arc<Exchange>) -> Received {
        let (Some(this), Kind::Request | Kind::Notification) = (self.this.upgrade(), kind) else {
            // An answer to a child that is gone.
            return Received::Accepted;
        };
        if !self.state.lock().waiting.enter(message.len(), &self.server.limits) {
            return Received::Refused(Refused::Busy);
        }
        let exchange = Arc::clone(exchange);
        self.surroundings.tasks.spawn(async move {
            let worker = this.worker().await;
            this.state.lock().waiting.leave(message.len());
            let Ok(envelope) = parse(&message) else { return };
            let sent = match worker {
                // A fresh child has just heard `initialized` by the replay.
                Ok(_) if envelope.method.as_deref() == Some("notifications/initialized") => Ok(()),
                Ok(worker) => this.send(&worker, &message, &envelope, &exchange).map_err(Failure::refused),
                Err(failure) => Err(failure),
            };
            if let (Err(failure), Some(id)) = (sent, envelope.raw_id()) {
                answer(&exchange, failure.response(&id));
            }
        });
        Received::Accepted
    }

    fn receive_initialize(&self, message: Bytes, envelope: &Envelope<'_>, exchange: &Arc<Exchange>) -> Received {
        let (Some(id), Some(this)) = (envelope.raw_id(), self.this.upgrade()) else { return Received::Accepted };
        {
            let mut state = self.state.lock();
            if !matches!(state.handshake, Handshake::None) {
                let text = "the session is initialized already; open another one";
                answer(exchange, error_response(Some(&id), Code::InvalidRequest, text));
                return Received::Accepted;
            }
            state.handshake = Handshake::Initializing;
        }
        let exchange = Arc::clone(exchange);
        self.surroundings.tasks.spawn(async move {
            let response = this.initialize(&message, &id, &exchange).await;
            answer(&exchange, response);
        });
        Received::Accepted
    }

    /// Puts the client's `initialize` to a fresh child: its answer, or the error in its place.
    async fn initialize(&self, message: &Bytes, id: &RawId, exchange: &Arc<Exchange>) -> Bytes {
        let answered = match self.worker().await {
            Ok(worker) => self.put_initialize(&worker, message, Some(exchange)).await.map(|answer| (worker, answer)),
            Err(failure) => Err(failure),
        };
        let mut state = self.state.lock();
        match answered {
            Ok((worker, answer)) => {
                if let Some(version) = protocol_version(&answer) {
                    worker.mark_started();
                    state.handshake = Handshake::Done(Done {
                        initialize: message.clone(),
                        initialized: None,
                        version: Some(version),
                    });
                } else {
                    // The server refused: the client may try again, with another child.
                    state.handshake = Handshake::None;
                    state.slot = Slot::Empty;
                    worker.stop();
                }
                answer
            }
            Err(failure) => {
                state.handshake = Handshake::None;
                failure.response(id)
            }
        }
    }

    /// Sends `initialize` and waits for the answer. What else comes meanwhile goes on to the client.
    async fn put_initialize(
        &self,
        worker: &Worker,
        message: &[u8],
        client: Option<&Arc<Exchange>>,
    ) -> Result<Bytes, Failure> {
        let (outbox, mut inbox) = Outbox::new(self.surroundings.stream_limits);
        let exchange = Arc::new(Exchange::of_request(outbox, 1));
        let ended = || Failure::refused(Refused::Ended);
        let envelope = parse(message).map_err(|_| ended())?;
        let ask = Ask { message, envelope: &envelope, exchange: &exchange, timeout: self.server.limits.start_timeout };
        worker.call(&ask).map_err(Failure::refused)?;
        loop {
            let item = inbox.next().await.ok_or_else(ended)?;
            if item.answer {
                return Ok(item.message);
            }
            if let Some(client) = client {
                // A client that is gone already misses a log line: its answer will find out.
                let _ = client.inform(item.message);
            }
        }
    }

    /// The live worker; starts one if there is none. Whoever asks at the same time waits for the same one.
    async fn worker(&self) -> Result<Worker, Failure> {
        let mut starting = {
            let mut state = self.state.lock();
            match &state.slot {
                _ if self.ended.is_cancelled() => return Err(Failure::stopped(&self.server.name)),
                Slot::Live(worker) if worker.is_alive() => return Ok(worker.clone()),
                Slot::Starting(starting) => starting.clone(),
                Slot::Live(_) | Slot::Empty => {
                    let starting = self.start();
                    state.slot = Slot::Starting(starting.clone());
                    starting
                }
            }
        };
        match starting.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone()) {
            Some(outcome) => outcome,
            None => Err(Failure::stopped(&self.server.name)),
        }
    }

    fn start(&self) -> Starting {
        let (outcome, starting) = watch::channel(None);
        if let Some(this) = self.this.upgrade() {
            self.surroundings.tasks.spawn(async move {
                let started = this.spawn().await;
                let mut state = this.state.lock();
                state.slot = match &started {
                    Ok(worker) if this.ended.is_cancelled() => {
                        worker.stop();
                        Slot::Empty
                    }
                    Ok(worker) => Slot::Live(worker.clone()),
                    Err(_) => Slot::Empty,
                };
                drop(state);
                outcome.send_replace(Some(started));
            });
        }
        starting
    }

    /// Spawns a child, and replays the handshake if there has been one.
    async fn spawn(&self) -> Result<Worker, Failure> {
        let peer: Weak<dyn Peer> = self.this.clone();
        let spec = Spec {
            server: Arc::clone(&self.server),
            origin: Origin {
                tenant: self.principal.tenant().clone(),
                server: self.server.name.clone(),
                session: self.id.public(),
            },
            peer,
            slow_client_timeout: self.surroundings.slow_client_timeout,
            metrics: self.surroundings.metrics.clone(),
            tasks: self.surroundings.tasks.clone(),
            kill: self.surroundings.kill.clone(),
        };
        let worker = Worker::spawn(spec).await.map_err(|error| Failure::spawn(&self.server.name, &error)).inspect_err(
            |failure| tracing::warn!(server = %self.server.name, session = %self.id.public(), "{}", failure.message()),
        )?;
        let replay = match &self.state.lock().handshake {
            Handshake::Done(done) => Some(done.clone()),
            Handshake::None | Handshake::Initializing => None,
        };
        if let Some(done) = replay {
            self.surroundings.metrics.restarts.inc();
            // A session that ends meanwhile does not wait for a child that hangs.
            let replayed = tokio::select! {
                replayed = self.replay(&worker, &done) => replayed,
                () = self.ended.cancelled() => Err(Failure::stopped(&self.server.name)),
            };
            if let Err(failure) = replayed {
                worker.stop();
                return Err(failure);
            }
            tracing::info!(server = %self.server.name, session = %self.id.public(), "child started again, handshake replayed");
        }
        Ok(worker)
    }

    async fn replay(&self, worker: &Worker, done: &Done) -> Result<(), Failure> {
        let answer = self.put_initialize(worker, &done.initialize, None).await?;
        if protocol_version(&answer).is_none() {
            return Err(worker.failure().unwrap_or_else(|| Failure::refused_again(&self.server.name)));
        }
        worker.mark_started();
        if let Some(initialized) = &done.initialized
            && let Ok(envelope) = parse(initialized)
        {
            worker.notify(initialized, &envelope).map_err(Failure::refused)?;
        }
        Ok(())
    }

    /// For how long nobody has used it: no stream is open, nothing is in flight. `None` while it is in use.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        let mut state = self.state.lock();
        let busy = match &state.slot {
            Slot::Live(worker) => !worker.is_idle(),
            Slot::Starting(_) => true,
            Slot::Empty => false,
        };
        if busy || state.streams.current().is_some() {
            state.last_used = Some(Instant::now());
            return None;
        }
        state.last_used.map(|since| since.elapsed())
    }

    /// Ends the session: its stream, its child. Idempotent.
    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        self.ended.cancel();
        state.streams.close();
        if let Slot::Live(worker) = std::mem::take(&mut state.slot) {
            worker.stop();
        }
    }

    /// Whether calls are in flight.
    pub(super) fn is_busy(&self) -> bool {
        match &self.state.lock().slot {
            Slot::Live(worker) => worker.is_alive() && !worker.is_idle(),
            Slot::Starting(_) => true,
            Slot::Empty => false,
        }
    }
}

impl Peer for Session {
    fn route(&self, message: &Bytes, kind: Unsolicited, in_flight: &InFlight) -> Route {
        self.state.lock().streams.route(self.transport, message, kind, in_flight)
    }

    fn lagged(&self, stream: &Outbox) {
        // An HTTP+SSE session has only the one stream, and ends with it. A streamable one goes on without it.
        let mut state = self.state.lock();
        if state.streams.current().is_none_or(|current| current.outbox().same_as(stream)) {
            state.streams.close();
        }
    }

    fn exited(&self) {
        let mut state = self.state.lock();
        if matches!(&state.slot, Slot::Live(worker) if !worker.is_alive()) {
            state.slot = Slot::Empty;
        }
    }
}

/// Answers with an error of the gateway's own. A client that does not read loses it with its stream.
fn answer(exchange: &Exchange, message: Bytes) {
    if exchange.answer(message).is_err() {
        exchange.settle();
    }
}
