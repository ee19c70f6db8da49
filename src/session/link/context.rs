//! What every part of a link works with: the server, the pool, the client, and the state under its mutex.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::Client;
use super::queue::Pending;
use super::state::State;
use crate::auth::Principal;
use crate::config::Server;
use crate::memory::Account;
use crate::pool::Deployment;
use crate::stream::Exchange;
use crate::telemetry::Cause;
use crate::worker::{Failure, deliver};

/// The interval at which queued calls are checked for their time-outs.
const TICK: Duration = Duration::from_millis(500);

/// The log lines of one kind that all links to a server may write in a period.
const LOGGED: u32 = 20;

/// What a link is made for: whose calls go to which server.
pub struct Target {
    /// The server, its children and its metrics. The pool goes on for as long as a link, or a response that is
    /// still being read, needs it.
    pub deployment: Arc<Deployment>,
    /// The caller.
    pub principal: Principal,
    /// The account of the caller's tenant, for what the link keeps of its client and for its client.
    pub account: Account,
    /// The name of the conversation in the log, such as the public part of a session id.
    pub label: Arc<str>,
    /// The tracker of all tasks that the link spawns.
    pub tasks: TaskTracker,
}

/// The parts of a link that its jobs (dispatch, acquisition, restart) work on.
pub(super) struct Context {
    /// Whose calls go to which server.
    pub(super) target: Target,
    /// The receiver of the child's requests and notifications, except for progress, which goes where the answer of its
    /// call goes.
    pub(super) client: Arc<dyn Client>,
    /// The changing state.
    pub(super) state: Mutex<State>,
    /// Cancelled under the lock of `state` when the link ends.
    pub(super) ended: CancellationToken,
    /// Notified when the link has left a draining child.
    pub(super) drained: Notify,
}

impl Context {
    /// The parts of a new link without a child.
    pub(super) fn new(target: Target, client: Arc<dyn Client>) -> Self {
        let mut state = State::default();
        state.touch();
        let (ended, drained) = (CancellationToken::new(), Notify::new());
        Self { target, client, state: Mutex::new(state), ended, drained }
    }

    /// The configuration of the server.
    pub(super) fn server(&self) -> &Server {
        &self.target.deployment.server
    }

    /// Delivers an answer of the gateway's own.
    pub(super) fn answer(&self, exchange: &Exchange, message: Bytes) {
        deliver(&self.target.deployment.metrics, exchange, message);
    }

    /// Answers those of the messages that are requests with a failure.
    pub(super) fn fail(&self, messages: &[Pending], failure: &Failure) {
        for pending in messages {
            let response = pending.response(failure);
            response.into_iter().for_each(|response| self.answer(&pending.exchange, response));
        }
    }

    /// The failure of everything that a link had in flight or queued when it ended.
    pub(super) fn stopped(&self) -> Failure {
        Failure::stopped(&self.server().name)
    }

    /// Logs an event of this link, at most [`LOGGED`] times in a period for each server.
    pub(super) fn log(&self, event: &'static str) {
        let server = &self.server().name;
        if Cause::info(event, server.to_string()).is_news(LOGGED) {
            tracing::info!(%server, session = %self.target.label, "{event}");
        }
    }

    /// Awaits `work`, and fails as soon as the link ends.
    pub(super) async fn unless_ended<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        self.ended.run_until_cancelled(work).await.unwrap_or_else(|| Err(self.stopped()))
    }

    /// Awaits `work` that queued calls wait for. Meanwhile, queued calls whose time-outs have passed are failed.
    pub(super) async fn failing_overdue<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(TICK) => {
                    let overdue = self.state.lock().queue.take_overdue();
                    for pending in overdue {
                        let (server, after) = (self.server(), pending.timeout.unwrap_or_default());
                        self.fail(&[pending], &Failure::waited(&server.name, after, server.timeout_key(after)));
                    }
                }
            }
        }
    }
}
