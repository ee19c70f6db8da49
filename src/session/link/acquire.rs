//! The acquisition of a child for a link: a lease from the pool and, where the child replaces another, a replay of the
//! handshake and of the negotiated state.
//!
//! Invariant: a child that has answered one `initialize` never receives a second.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use tokio::time::Instant;

use super::context::Context;
use super::handshake::Handshake;
use super::slot::{Outcome, Starting};
use crate::mcp::protocol_version;
use crate::pool::{Granted, Wanted};
use crate::worker::{Failure, Lease, LeaseHolder, Negotiated, Refused};

/// The number of draining children with work of the link above which the link gets no further child. Without this
/// bound, one client whose calls never end could fill the pool.
const MAX_BUSY: usize = 4;

/// Leases a child and, where the child replaces another, replays the handshake to it. `holder` receives what the child
/// will send, `initialize` is the client's request, and the child may inherit the capacity of one of those that it
/// `replaces`.
///
/// # Errors
/// Too many replaced children have work of the link, the pool grants no lease, the child answers `initialize` with
/// another protocol version or an error, or the child ends during the replay.
pub(super) async fn acquire(
    context: &Context,
    holder: Weak<dyn LeaseHolder>,
    initialize: Bytes,
    replaces: Vec<Arc<Lease>>,
) -> Outcome {
    until_few_drain(context).await?;
    let is_restart = context.state.lock().handshake.done().is_some();
    let (principal, caller) = (context.target.principal.clone(), Arc::clone(&context.target.label));
    let wanted = Wanted { principal, caller, initialize: Some(initialize), is_restart, replaces, holder };
    let Granted { lease, answer } = context.target.deployment.pool.lease(&wanted).await?;
    let answer = answer.unwrap_or_default();
    if is_restart {
        replay(context, &lease, &answer).await?;
    }
    Ok((lease, answer))
}

/// Waits for the outcome of a start. Fails at once when the link ends.
pub(super) async fn outcome(context: &Context, mut starting: Starting) -> Outcome {
    let outcome = context.ended.run_until_cancelled(starting.wait_for(Option::is_some)).await;
    let outcome = outcome.and_then(|outcome| outcome.ok()?.clone());
    outcome.unwrap_or_else(|| Err(context.stopped()))
}

/// Waits until at most [`MAX_BUSY`] draining children have work of the link, for `pool.queue_timeout` at most.
async fn until_few_drain(context: &Context) -> Result<(), Failure> {
    let few = async {
        while context.state.lock().busy_draining(Lease::is_idle) > MAX_BUSY {
            context.drained.notified().await;
        }
    };
    let patience = context.server().pool.queue_timeout;
    tokio::time::timeout(patience, few).await.map_err(|_| Failure::refused(Refused::Busy))
}

/// Brings a child, which has just answered `initialize` with `answer`, to the state negotiated with the child before
/// it.
async fn replay(context: &Context, lease: &Arc<Lease>, answer: &[u8]) -> Result<(), Failure> {
    let lists = check_version(context, lease, answer)?;
    let negotiated = take_negotiated(context).await;
    context.state.lock().replaying = Arc::downgrade(lease);
    // The child has as much time for the whole replay as for a start.
    let end = Instant::now() + context.server().limits.start_timeout;
    let replay = lease.replay(&negotiated, end).await;
    // Without a lease in use, other sessions may have used up the child's calls: then another child may do.
    let is_retired = lease.worker().is_retired();
    let replay = replay.map_err(|failure| if is_retired { Failure::refused(Refused::Ended) } else { failure })?;
    let ended = context.ended.clone();
    context.target.tasks.spawn(async move { ended.run_until_cancelled(replay.finish()).await });
    // To compare the lists of both children would take as long as the child takes to list them.
    for list in lists {
        let text = format!(r#"{{"jsonrpc":"2.0","method":"notifications/{list}/list_changed"}}"#);
        context.client.announce(text.into());
    }
    context.log("another child, handshake replayed");
    Ok(())
}

/// Checks that a replacement answers `initialize` with the protocol version that the client speaks. Returns the lists
/// whose changes the client expects to hear of.
fn check_version(context: &Context, lease: &Lease, answer: &[u8]) -> Result<Vec<&'static str>, Failure> {
    let server = &context.server().name;
    let Some(version) = protocol_version(answer) else {
        return Err(lease.worker().failure().unwrap_or_else(|| Failure::refused_again(server)));
    };
    match context.state.lock().handshake.done() {
        Some(done) if done.version == version => Ok(done.lists.clone()),
        Some(done) => Err(Failure::other_version(server, &done.version, &version)),
        None => Ok(Vec::new()),
    }
}

/// Takes over the negotiated state of the most recently replaced child, which grants nothing more from then on: what it
/// granted later would be lost.
async fn take_negotiated(context: &Context) -> Negotiated {
    let before = context.state.lock().draining.last().cloned();
    let latest = match before {
        Some(before) => before.hand_over().await,
        None => None,
    };
    let Handshake::Done(done) = &mut context.state.lock().handshake else { return Negotiated::default() };
    latest.into_iter().for_each(|latest| done.negotiated = latest);
    done.negotiated.clone()
}
