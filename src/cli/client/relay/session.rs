//! The session of `connect` with the gateway. The client's `initialize` begins it. If the gateway loses the session,
//! `connect` begins another with the same `initialize`, without the client's notice; other messages wait meanwhile.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, oneshot};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::super::error::Error;
use super::super::message::{Message, id_key};
use super::super::transport::Transport;
use crate::cli::terminal;
use crate::jsonrpc::RawId;
use crate::mcp::method;

/// The longest time for `initialize`. No other message is sent before its answer.
pub(super) const INITIALIZE_TIMEOUT: Duration = Duration::from_secs(60);
/// The shortest and the longest pause before another attempt to receive messages.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// A session that is lost within this time counts as short.
const SHORT: Duration = Duration::from_secs(10);
/// The largest number of short sessions in a row before `connect` stops renewing the session by itself.
const SHORT_SESSIONS: u32 = 3;

/// The session, and the transport that carries it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) transport: Transport,
    handshake: AsyncMutex<Handshake>,
    /// The id key of a replayed `initialize`, and the task that waits for its answer. The client must not see that
    /// answer.
    replayed: Mutex<Option<(String, oneshot::Sender<Message>)>>,
    /// The task that receives messages outside of any request.
    listening: Mutex<Option<AbortOnDropHandle<()>>>,
}

/// The messages that began the session.
#[derive(Debug, Default)]
struct Handshake {
    /// The number of the session. Several requests may report the loss of one session; only the first renews it.
    generation: u64,
    opened: bool,
    initialize: Option<Message>,
    initialized: bool,
}

impl Session {
    /// A session that has not begun. Nothing is sent yet.
    pub(super) fn new(transport: Transport) -> Self {
        let (handshake, replayed, listening) = (AsyncMutex::default(), Mutex::default(), Mutex::default());
        Self { transport, handshake, replayed, listening }
    }

    /// Opens the transport if it is not open, and waits for a renewal in progress. Returns the number of the session.
    pub(super) async fn ready(&self) -> Result<u64, Error> {
        let mut handshake = self.handshake.lock().await;
        if !handshake.opened {
            self.transport.open().await?;
            handshake.opened = true;
        }
        Ok(handshake.generation)
    }

    /// Closes the session before, if there is one, and opens the transport for the client's `initialize`, which the
    /// caller then posts. Returns the number of the new session.
    pub(super) async fn begin(&self, initialize: &Message) -> Result<u64, Error> {
        let mut handshake = self.handshake.lock().await;
        if handshake.initialize.is_some() {
            self.close().await;
        }
        let generation = handshake.generation + 1;
        *handshake = Handshake { generation, ..Handshake::default() };
        self.transport.open().await?;
        handshake.opened = true;
        handshake.initialize = Some(initialize.clone());
        Ok(generation)
    }

    /// Notes that the client has sent `notifications/initialized`, and starts to receive messages outside of requests.
    pub(super) async fn initialized(self: &Arc<Self>) {
        self.handshake.lock().await.initialized = true;
        let task = tokio::spawn(Arc::clone(self).listen());
        *self.listening.lock() = Some(AbortOnDropHandle::new(task));
    }

    /// Begins a session in place of session number `gone`. Does nothing if that session has been replaced already.
    pub(super) async fn renew(&self, gone: u64) -> Result<(), Error> {
        let mut handshake = self.handshake.lock().await;
        if handshake.generation != gone {
            return Ok(());
        }
        let Some(initialize) = &handshake.initialize else { return Err(Error::SessionGone) };
        let renewal = tokio::time::timeout(INITIALIZE_TIMEOUT, self.replay(initialize, gone, handshake.initialized));
        renewal.await.unwrap_or(Err(Error::TimedOut(INITIALIZE_TIMEOUT)))?;
        handshake.generation += 1;
        terminal::note("the gateway had ended the session; a new one has begun");
        Ok(())
    }

    /// Sends `initialize` again under an id of our own, and `notifications/initialized` if the client had sent it.
    async fn replay(&self, initialize: &Message, gone: u64, initialized: bool) -> Result<(), Error> {
        self.transport.open().await?;
        let id = RawId::new(&format!("\"sluice-renewal-{gone}\"")).ok_or(Error::SessionGone)?;
        let (sender, answer) = oneshot::channel();
        *self.replayed.lock() = Some((id_key(&id), sender));
        self.transport.post(&Message::request(id, method::INITIALIZE, &initialize.params()), None).await?;
        answer.await.map_err(|_| Error::SessionGone)?.result()?;
        if initialized {
            self.transport.post(&Message::notification(method::INITIALIZED, "{}"), None).await?;
        }
        Ok(())
    }

    /// Takes the answer to a replayed `initialize`. Returns any other message.
    pub(super) fn take_replayed(&self, key: &str, message: Message) -> Option<Message> {
        let Some((_, waiting)) = self.replayed.lock().take_if(|(replayed, _)| replayed == key) else {
            return Some(message);
        };
        // The renewal may have run out of time.
        let _ = waiting.send(message);
        None
    }

    /// Receives messages outside of requests until the gateway offers none or refuses. Renews a lost session.
    async fn listen(self: Arc<Self>) {
        let (mut pause, mut short_sessions) = (PAUSE.0, 0);
        loop {
            let gone = self.handshake.lock().await.generation;
            let began = Instant::now();
            let mut outcome = self.transport.listen().await;
            if began.elapsed() > SHORT {
                (pause, short_sessions) = (PAUSE.0, 0);
            }
            if matches!(outcome, Err(Error::SessionGone)) {
                short_sessions += 1;
                if short_sessions > SHORT_SESSIONS {
                    return terminal::note("sessions end as soon as they begin; the next request begins another");
                }
                tokio::time::sleep(pause).await;
                outcome = self.renew(gone).await;
                if outcome.is_ok() {
                    continue;
                }
                // It is the gateway that is away, not the session that is short.
                short_sessions = 0;
            }
            match outcome {
                Ok(()) => return,
                Err(Error::Refused(refusal)) if refusal.status.is_client_error() => {
                    return terminal::note(&format!("no messages but answers will come: {refusal}"));
                }
                Err(error) => terminal::note(&format!("waiting for messages: {error}")),
            }
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(PAUSE.1);
        }
    }

    /// Stops receiving messages, and ends the session.
    pub(super) async fn close(&self) {
        self.listening.lock().take();
        self.transport.close().await;
    }
}
