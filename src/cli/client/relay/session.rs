//! The session of `connect`: begun by the client's `initialize`, and begun anew, unseen by the client, when the gateway
//! has lost it. While that goes on nothing else is sent.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::super::error::Error;
use super::super::message::{Message, id_key};
use super::{INITIALIZE_TIMEOUT, Relay};
use crate::cli::terminal;
use crate::jsonrpc::RawId;
use crate::mcp::method;

/// The shortest and the longest pause before the gateway is tried again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// A session that is gone sooner than this was never good.
const SHORT: Duration = Duration::from_secs(10);
/// How many such sessions in a row there may be.
const SHORT_SESSIONS: u32 = 3;

/// What a session was begun with.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    /// Counts the sessions, so that one that is gone is renewed once, however many requests it took along.
    generation: u64,
    opened: bool,
    initialize: Option<Message>,
    initialized: bool,
}

impl Relay {
    /// Opens the transport if need be, waits while the session is renewed, and tells which session it is.
    pub(super) async fn ready(&self) -> Result<u64, Error> {
        let mut handshake = self.handshake.lock().await;
        if !handshake.opened {
            self.transport.open().await?;
            handshake.opened = true;
        }
        Ok(handshake.generation)
    }

    /// Opens the transport for the client's `initialize`; a session that there was is closed.
    pub(super) async fn begin(&self, initialize: &Message) -> Result<u64, Error> {
        let mut handshake = self.handshake.lock().await;
        if handshake.initialize.is_some() {
            self.listening.lock().take();
            self.transport.close().await;
        }
        let generation = handshake.generation + 1;
        *handshake = Handshake { generation, ..Handshake::default() };
        self.transport.open().await?;
        handshake.opened = true;
        handshake.initialize = Some(initialize.clone());
        Ok(generation)
    }

    /// The client has the answer to `initialize`: from now on messages may come that belong to no request.
    pub(super) async fn initialized(self: &Arc<Self>) {
        self.handshake.lock().await.initialized = true;
        let task = tokio::spawn(Arc::clone(self).listen());
        *self.listening.lock() = Some(AbortOnDropHandle::new(task));
    }

    /// Begins a new session in place of the session `gone`, unless somebody has done so already.
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

    async fn replay(&self, initialize: &Message, gone: u64, initialized: bool) -> Result<(), Error> {
        self.transport.open().await?;
        let id = RawId::new(&format!("\"sluice-renewal-{gone}\"")).ok_or(Error::SessionGone)?;
        let (sender, answer) = oneshot::channel();
        *self.own.lock() = Some((id_key(&id), sender));
        self.transport.post(&Message::request(id, method::INITIALIZE, &initialize.params()), None).await?;
        answer.await.map_err(|_| Error::SessionGone)?.result()?;
        if initialized {
            self.transport.post(&Message::notification(method::INITIALIZED, "{}"), None).await?;
        }
        Ok(())
    }

    /// Keeps open what messages come on that belong to no request, in a new session if need be.
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
}
