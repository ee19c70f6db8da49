//! `sluice connect`: stdio on this side, a gateway on the other. Messages pass as the bytes they are.
//!
//! Every request gets exactly one answer: the gateway's, or an error that says why there is none; only one that the
//! client itself cancelled gets nothing. What the client wrote in order is sent in order.

mod output;
mod pending;
mod session;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::Url;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use self::output::Output;
use self::pending::{Pending, Waiting};
use self::session::{INITIALIZE_TIMEOUT, Session};
use super::access::Access;
use super::error::Error;
use super::message::{Incoming, Message, id_key};
use super::remote::{CLOSE_TIMEOUT, MAX_MESSAGE, Sent};
use super::transport::Transport;
use crate::cli::terminal;
use crate::jsonrpc::{Code, Frame, Framer, Kind, Oversized, ParseError, RawId, error_response, parse};
use crate::mcp::{Cancels, method};

/// How many requests are in flight. While there are as many, stdin is not read.
const IN_FLIGHT: usize = 256;
/// Room that is made for each read, in bytes.
const READ: usize = 64 * 1024;
/// How long a notification, or an answer of the client, may take to be accepted.
const TELL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long calls in flight may still take after the end of stdin.
const GRACE: Duration = Duration::from_secs(5);

/// What passes messages on. Cheap to share; the tasks of one `connect` all hold it.
#[derive(Debug)]
struct Relay {
    session: Arc<Session>,
    output: Output,
    pending: Mutex<Pending>,
    permits: Arc<Semaphore>,
    tasks: TaskTracker,
    /// Ends what is in flight.
    end: CancellationToken,
    limit: Duration,
}

/// Passes messages between stdio and the gateway at `url` until stdin or stdout is closed. A request may take `limit`.
///
/// # Errors
/// Where this machine cannot speak HTTP at all. What goes wrong later is answered to the client.
pub async fn relay(url: Url, access: &Access, limit: Duration) -> Result<u8, Error> {
    let (transport, incoming) = Transport::new(url, access.headers().map_err(Error::Arguments)?)?;
    let (output, writer) = Output::new(tokio::io::stdout());
    let relay = Arc::new(Relay {
        session: Arc::new(Session::new(transport)),
        output,
        pending: Mutex::default(),
        permits: Arc::new(Semaphore::new(IN_FLIGHT)),
        tasks: TaskTracker::new(),
        end: CancellationToken::new(),
        limit,
    });
    let _dispatcher = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&relay).dispatch(incoming)));
    let (code, grace) = tokio::select! {
        outcome = relay.read(tokio::io::stdin()) => match outcome {
            Ok(()) => (0, GRACE),
            Err(error) => {
                terminal::note(&format!("stdin cannot be read: {error}"));
                (70, GRACE)
            }
        },
        () = relay.output.closed() => (0, Duration::ZERO),
        _ = tokio::signal::ctrl_c() => (130, Duration::ZERO),
        () = terminated() => (143, Duration::ZERO),
    };
    relay.finish(grace).await;
    writer.finish(CLOSE_TIMEOUT).await;
    Ok(code)
}

/// Waits for SIGTERM.
async fn terminated() {
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => drop(terminate.recv().await),
        // Then the signal ends the process without our help.
        Err(_) => std::future::pending().await,
    }
}

impl Relay {
    /// Takes the client's lines until stdin ends.
    async fn read(self: &Arc<Self>, mut stdin: impl AsyncRead + Unpin) -> std::io::Result<()> {
        let mut framer = Framer::new(MAX_MESSAGE);
        loop {
            while let Some(frame) = framer.next_frame() {
                self.take(frame).await;
            }
            if stdin.read_buf(framer.room(READ)).await? == 0 {
                break;
            }
        }
        if let Some(frame) = framer.finish() {
            self.take(frame).await;
        }
        Ok(())
    }

    async fn take(self: &Arc<Self>, frame: Frame) {
        let line = match frame {
            Frame::Line(line) => line,
            Frame::Oversized(line) => {
                let length = line.bytes;
                let reason = format!("a line of {length} bytes on stdin is longer than {MAX_MESSAGE}; it was left out");
                return self.complain_of(line, &reason).await;
            }
        };
        for message in Message::parse_all(&line) {
            match message {
                Ok(message) => self.pass(message).await,
                Err(ParseError::NotJson(error)) => {
                    self.complain(None, Code::Parse, &format!("a line on stdin is not JSON: {error}")).await;
                }
                Err(ParseError::Invalid { reason, id }) => {
                    self.complain(id.as_ref(), Code::InvalidRequest, reason).await;
                }
            }
        }
    }

    /// Answers the requests in a line that was too long; where none is known, it says so to nobody in particular.
    async fn complain_of(&self, line: Oversized, reason: &str) {
        let is_request = |(kind, id): (Kind, RawId)| (kind == Kind::Request).then_some(id);
        let requests: Vec<RawId> = line.messages.into_iter().filter_map(is_request).collect();
        for id in &requests {
            self.complain(Some(id), Code::InvalidRequest, reason).await;
        }
        if requests.is_empty() {
            self.complain(None, Code::InvalidRequest, reason).await;
        }
    }

    async fn complain(&self, id: Option<&RawId>, code: Code, reason: &str) {
        terminal::note(reason);
        self.output.write(&error_response(id, code, reason)).await;
    }

    /// Sends one message of the client. Returns when its bytes are on their way, so that the next one follows it.
    async fn pass(self: &Arc<Self>, message: Message) {
        let (Kind::Request, Some(id)) = (message.kind, message.id.clone()) else { return self.tell(&message).await };
        // The semaphore is never closed: without a permit there is nothing to do, either way.
        let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { return };
        let waiting = self.pending.lock().register(&id, self.session.transport.generation());
        let Some(waiting) = waiting else {
            let reason = "the id is that of another request, which has no answer yet";
            return self.complain(Some(&id), Code::InvalidRequest, reason).await;
        };
        let is_initialize = message.is_initialize();
        let (sent, on_its_way) = oneshot::channel();
        let task = self.tasks.spawn(Arc::clone(self).ask(message, id, waiting, sent, permit));
        // Neither can tell anything: the task answers for itself.
        if is_initialize {
            let _ = task.await;
        } else {
            let _ = on_its_way.await;
        }
    }

    /// Sees one request through: to its answer, or to an error in its place.
    async fn ask(
        self: Arc<Self>,
        message: Message,
        id: RawId,
        waiting: Waiting,
        sent: Sent,
        _permit: OwnedSemaphorePermit,
    ) {
        let limit = if message.is_initialize() { self.limit.min(INITIALIZE_TIMEOUT) } else { self.limit };
        let exchange = tokio::time::timeout(limit, self.exchange(&message, &id, waiting, sent));
        let Some(outcome) = self.end.run_until_cancelled(exchange).await else { return };
        let Err(error) = outcome.unwrap_or(Err(Error::TimedOut(limit))) else { return };
        if self.pending.lock().remove(&id_key(&id)).is_none() {
            return;
        }
        terminal::note(&format!("{}: {error}", message.method.as_deref().unwrap_or_default()));
        self.output.write(&error.answer(Some(&id))).await;
        if matches!(error, Error::TimedOut(_)) && !message.is_initialize() {
            self.tell(&Message::cancelled(&id, "no answer in time")).await;
        }
    }

    async fn exchange(&self, message: &Message, id: &RawId, mut waiting: Waiting, sent: Sent) -> Result<(), Error> {
        let key = id_key(id);
        let seen =
            if message.is_initialize() { self.session.begin(message).await? } else { self.session.ready().await? };
        match self.post_and_wait(message, &key, &mut waiting, Some(sent)).await {
            Err(Error::SessionGone) if !message.is_initialize() => {}
            outcome => return outcome,
        }
        // The gateway knew nothing of the session, so the request was not made: it is sent once more, in a new one.
        self.session.renew(seen).await?;
        self.post_and_wait(message, &key, &mut waiting, None).await
    }

    /// Posts a request and waits until it has been answered to the client, or is not waited for any more.
    async fn post_and_wait(
        &self,
        message: &Message,
        key: &str,
        waiting: &mut Waiting,
        sent: Option<Sent>,
    ) -> Result<(), Error> {
        if !self.pending.lock().stamp(key, self.session.transport.generation()) {
            return Ok(());
        }
        let post = self.session.transport.post(message, sent);
        tokio::pin!(post);
        tokio::select! {
            outcome = &mut post => {
                outcome?;
                if !self.pending.lock().accept(key) {
                    return Err(Error::Lost("the gateway closed the stream".to_owned()));
                }
                // Whoever drops the other end has answered, or the client has cancelled.
                let _ = waiting.await;
                Ok(())
            }
            answered = &mut *waiting => match answered {
                // The connection can be used again when its rest has been read.
                Ok(()) => post.await.or(Ok(())),
                Err(_) => Ok(()),
            },
        }
    }

    /// Sends what has no answer.
    async fn tell(self: &Arc<Self>, message: &Message) {
        let method = message.method.as_deref().unwrap_or("an answer");
        let cancelled = cancelled(message);
        if let Some(id) = &cancelled {
            // Before the gateway hears of that, and ends the call without an answer.
            self.pending.lock().cancel(&id_key(id));
        }
        let outcome = tokio::time::timeout(TELL_TIMEOUT, self.deliver(message)).await;
        match outcome.unwrap_or(Err(Error::TimedOut(TELL_TIMEOUT))) {
            Ok(()) if method == method::INITIALIZED => self.session.initialized().await,
            Ok(()) => {}
            Err(error) => terminal::note(&format!("{method} was not passed on: {error}")),
        }
        if let Some(id) = &cancelled {
            self.pending.lock().remove(&id_key(id));
        }
    }

    async fn deliver(&self, message: &Message) -> Result<(), Error> {
        let seen = self.session.ready().await?;
        match self.session.transport.post(message, None).await {
            // An answer belongs to a question of the session that is gone; a notification may be of use in the next.
            Err(Error::SessionGone) if message.kind == Kind::Notification => {
                self.session.renew(seen).await?;
                self.session.transport.post(message, None).await
            }
            outcome => outcome,
        }
    }

    /// Hands what the gateway sends to the client, in the order in which it came.
    async fn dispatch(self: Arc<Self>, mut incoming: mpsc::Receiver<Incoming>) {
        while let Some(incoming) = incoming.recv().await {
            match incoming {
                Incoming::Message(message) if message.kind == Kind::Response => self.answer(message).await,
                Incoming::Message(message) => self.output.write(&message.text).await,
                Incoming::Lost { generation, error } => {
                    let lost = self.pending.lock().lose(generation);
                    for id in lost {
                        self.output.write(&error.answer(Some(&id))).await;
                    }
                }
            }
        }
    }

    async fn answer(&self, message: Message) {
        let key = message.id.as_ref().map(id_key).unwrap_or_default();
        let Some(message) = self.session.take_replayed(&key, message) else { return };
        let answered = self.pending.lock().remove(&key);
        match answered {
            Some(answered) => {
                self.output.write(&message.text).await;
                let _ = answered.send(());
            }
            None => terminal::note("an answer came that nothing waits for; it was left out"),
        }
    }

    /// Lets calls in flight end, answers for those that do not, and closes the session.
    async fn finish(&self, grace: Duration) {
        self.tasks.close();
        // What is not done by then is ended next.
        let _ = tokio::time::timeout(grace, self.tasks.wait()).await;
        self.end.cancel();
        self.tasks.wait().await;
        let stopped = Error::Lost("stopped before the answer came".to_owned());
        let left = self.pending.lock().drain();
        for id in left {
            self.output.write(&stopped.answer(Some(&id))).await;
        }
        self.session.close().await;
    }
}

/// The id of the request that a message of the client cancels. Such a request needs no answer.
fn cancelled(message: &Message) -> Option<RawId> {
    RawId::new(Cancels::read(&parse(&message.text).ok()?).request()?)
}
