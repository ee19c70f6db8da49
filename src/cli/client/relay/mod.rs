//! `sluice connect`: passes messages, byte for byte, between a client on stdio and a gateway.
//!
//! Every request gets exactly one answer, from the gateway or an error of `connect`, unless the client cancels the
//! request. Messages of the client are sent in their order.

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
use crate::jsonrpc::{Code, Frame, Framer, Kind, ParseError, RawId, error_response, parse};
use crate::mcp::{Cancels, method};

/// The largest number of requests in flight. Stdin is not read while there are as many.
const IN_FLIGHT: usize = 256;
/// The size of one read from stdin, in bytes.
const READ: usize = 64 * 1024;
/// The longest time for the gateway to accept a notification, or an answer of the client.
const TELL_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest time for requests in flight after the end of stdin.
const GRACE: Duration = Duration::from_secs(5);

/// The state that all tasks of one `connect` share.
#[derive(Debug)]
struct Relay {
    session: Arc<Session>,
    output: Output,
    pending: Mutex<Pending>,
    /// One permit for each request in flight.
    permits: Arc<Semaphore>,
    tasks: TaskTracker,
    /// Ends the requests in flight.
    end: CancellationToken,
    /// The longest time for one request.
    limit: Duration,
}

/// Passes messages between stdio and the gateway at `url` until stdin or stdout is closed, or a signal comes. A request
/// may take `limit`. Returns the exit code.
///
/// # Errors
/// The key or the HTTP client cannot be set up. Later errors are answers to the client.
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

/// Waits for SIGTERM; for ever if the signal cannot be watched.
async fn terminated() {
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => drop(terminate.recv().await),
        // Then the signal ends the process without our help.
        Err(_) => std::future::pending().await,
    }
}

impl Relay {
    /// Reads the lines of the client and passes them on until stdin ends.
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

    /// Passes on the messages in a line. A line that is not JSON-RPC gets an error, and so does each request in a line
    /// that is too long, or the line itself if no request in it is known.
    async fn take(self: &Arc<Self>, frame: Frame) {
        let line = match frame {
            Frame::Line(line) => line,
            Frame::Oversized(line) => {
                let length = line.bytes;
                let reason = format!("a line of {length} bytes on stdin is longer than {MAX_MESSAGE}; it was left out");
                let requests = line.messages.into_iter().filter(|(kind, _)| *kind == Kind::Request);
                let mut ids: Vec<_> = requests.map(|(_, id)| Some(id)).collect();
                if ids.is_empty() {
                    ids.push(None);
                }
                for id in ids {
                    self.complain(id.as_ref(), Code::InvalidRequest, &reason).await;
                }
                return;
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

    /// Sends an error to the client, and writes the reason to stderr.
    async fn complain(&self, id: Option<&RawId>, code: Code, reason: &str) {
        terminal::note(reason);
        self.output.write(&error_response(id, code, reason)).await;
    }

    /// Sends a message of the client. Returns when the message has been written, so that the next one comes after it,
    /// and for `initialize` when it has been answered.
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

    /// Sends a request and waits until the client has its answer. Answers with an error if none comes in time.
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

    /// Sends a request and waits for its answer. If the gateway has lost the session, sends the request again in a new
    /// one.
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

    /// Posts a request and waits until the client has the answer, or has cancelled the request.
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

    /// Sends a notification, or an answer of the client. A failure is only written to stderr.
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

    /// Posts a message that needs no answer. If the gateway has lost the session, posts a notification again in a new
    /// session.
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

    /// Passes the messages of the gateway on to the client, in their order. Requests on a lost stream get an error.
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

    /// Passes an answer on to the client if the request has none yet, or to the session for a replayed `initialize`.
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

    /// Waits for requests in flight, at most for `grace`, answers the others with an error, and ends the session.
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

/// The id of the request that a message cancels. `None` for other messages.
fn cancelled(message: &Message) -> Option<RawId> {
    RawId::new(Cancels::read(&parse(&message.text).ok()?).request()?)
}
