//! The rule for the restart of a child without a queued message: the next call then finds a child, and a client that only
//! listens goes on to hear from the server.
//!
//! Invariant: after a child of no use to the client, another is started unasked only for a client that listens or has
//! subscriptions, and after a pause.

use std::time::Duration;

use super::slot::Slot;
use super::state::State;
use crate::config::Restart;
use crate::pool::backoff;

/// The pause before the next unasked start; `None` if there is a child, or the client would not miss one.
///
/// The pause grows with this link's own useless children, besides the pauses of the circuit breaker: successful calls of
/// other sessions reset the breaker, but say nothing about this link.
pub(super) fn pause_before_restart(
    state: &State,
    is_listening: impl Fn() -> bool,
    restart: &Restart,
) -> Option<Duration> {
    let useless = state.slot.useless_in_a_row(state.useless);
    let (is_gone, lease) = match &state.slot {
        Slot::Leased(lease) => (!lease.is_alive(), Some(lease)),
        Slot::Empty => (true, None),
        Slot::Starting(_) => (false, None),
    };
    let done = state.handshake.done().filter(|_| is_gone)?;
    let has_subscriptions =
        || lease.map_or_else(|| done.negotiated.has_subscriptions(), |lease| lease.has_subscriptions());
    (useless == 0 || has_subscriptions() || is_listening()).then(|| backoff(restart, useless + 1))
}
