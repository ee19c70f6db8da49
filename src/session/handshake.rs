//! What the client has told its child: kept, so that a child that takes its place hears the same.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::jsonrpc::Envelope;
use crate::worker::Lists;

/// Subscriptions that are remembered for one session.
const SUBSCRIPTIONS: usize = 1024;

const INITIALIZED: &str = "notifications/initialized";

/// Where the handshake of a session stands.
#[derive(Debug, Clone, Default)]
pub(super) enum Handshake {
    /// The client has not sent `initialize`.
    #[default]
    None,
    /// `initialize` is in flight. The client's `notifications/initialized` may have come already: some send both in one go.
    Initializing(Option<Bytes>),
    /// `initialize` was answered.
    Done(Box<Done>),
}

impl Handshake {
    /// Remembers what a child must hear again. Whether there is a child, or will be.
    pub(super) fn note(&mut self, message: &Bytes, envelope: &Envelope<'_>) -> bool {
        match self {
            Self::None => return false,
            Self::Initializing(initialized) if envelope.method.as_deref() == Some(INITIALIZED) => {
                *initialized = Some(message.clone());
            }
            Self::Initializing(_) => {}
            Self::Done(done) => done.note(message, envelope),
        }
        true
    }
}

/// A handshake that can be replayed.
#[derive(Debug, Clone)]
pub(super) struct Done {
    /// The client's `initialize` request, as it came.
    pub(super) initialize: Bytes,
    /// The client's `notifications/initialized`, if it has come.
    pub(super) initialized: Option<Bytes>,
    /// What was negotiated.
    pub(super) version: String,
    /// What the lists were like, as far as the client asked for them.
    pub(super) lists: Lists,
    level: Option<Bytes>,
    subscriptions: BTreeMap<String, Bytes>,
}

impl Done {
    pub(super) fn new(initialize: Bytes, version: String, initialized: Option<Bytes>) -> Self {
        Self { initialize, version, initialized, lists: Lists::default(), level: None, subscriptions: BTreeMap::new() }
    }

    /// Remembers what a child must hear again.
    fn note(&mut self, message: &Bytes, envelope: &Envelope<'_>) {
        match envelope.method.as_deref() {
            Some(INITIALIZED) => self.initialized = Some(message.clone()),
            Some("logging/setLevel") => self.level = Some(message.clone()),
            Some("resources/subscribe") => {
                if let Some(uri) = uri(envelope)
                    && self.subscriptions.len() < SUBSCRIPTIONS
                {
                    self.subscriptions.insert(uri, message.clone());
                }
            }
            Some("resources/unsubscribe") => {
                uri(envelope).and_then(|uri| self.subscriptions.remove(&uri));
            }
            _ => {}
        }
    }

    /// Whether the client waits to hear of resources.
    pub(super) fn has_subscriptions(&self) -> bool {
        !self.subscriptions.is_empty()
    }

    /// The requests that made the child what the client wanted it to be.
    pub(super) fn wishes(&self) -> impl Iterator<Item = &Bytes> {
        self.level.iter().chain(self.subscriptions.values())
    }
}

fn uri(envelope: &Envelope<'_>) -> Option<String> {
    let params: serde_json::Value = serde_json::from_str(envelope.params?).ok()?;
    params.get("uri")?.as_str().map(str::to_owned)
}
