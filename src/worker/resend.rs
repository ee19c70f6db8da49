//! Calls that another child gets when this one crashed in the middle of them, where the configuration allows it for what
//! their tools say of themselves. Each is sent again once at most, under its own exchange: its client sees one answer.

use std::sync::Arc;

use bytes::Bytes;

use super::error::Failure;
use super::handle::Shared;
use super::hints::ask_for_hints;
use super::lease::{Lease, deliver};
use super::multiplexer::{Expired, PeerId};
use crate::config::Resend;
use crate::jsonrpc::RawId;
use crate::stream::Exchange;

/// What is kept of a call in flight, to send it again.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The client's message.
    pub message: Bytes,
    /// The tool that is called.
    pub tool: Arc<str>,
}

/// A call whose child has crashed.
#[derive(Debug)]
pub struct Orphan {
    /// What to send.
    pub kept: Kept,
    /// The client's id of it.
    pub id: RawId,
    /// Where its answer goes.
    pub exchange: Arc<Exchange>,
    /// What it fails with, if it is not sent again.
    pub failure: Failure,
}

/// Takes the calls that may be sent again out of what a crashed child has left, and asks their sessions to. Those that
/// are known not to qualify are left, and fail at once.
pub(super) fn rescue(shared: &Shared, left: &mut Expired, failure: &Failure) {
    let mut orphans: Vec<(PeerId, Orphan)> = Vec::new();
    for mut call in std::mem::take(&mut left.calls) {
        match call.kept.take().filter(|kept| may_qualify(shared, &kept.tool)) {
            Some(kept) => {
                let orphan = Orphan { kept, id: call.original, exchange: call.exchange, failure: failure.clone() };
                orphans.push((call.peer, orphan));
            }
            None => left.calls.push(call),
        }
    }
    while let Some((peer, _)) = orphans.first() {
        let peer = *peer;
        let (of_peer, others) = orphans.into_iter().partition(|(owner, _)| *owner == peer);
        orphans = others;
        let calls = Vec::into_iter(of_peer).map(|(_, orphan)| orphan).collect();
        let refused = match shared.peer(peer) {
            Some(peer) => peer.resend(calls),
            None => calls,
        };
        for orphan in refused {
            deliver(&shared.metrics, &orphan.exchange, orphan.failure.response(&orphan.id));
        }
    }
}

fn may_qualify(shared: &Shared, tool: &str) -> bool {
    shared.hints.lock().allow(shared.server.resend(tool), tool) != Some(false)
}

impl Lease {
    /// Whether a call of a tool may be put to this child, though another one may have run it already. What the child that
    /// crashed said of the tool is not enough: this one has to say it too, and is asked if it has not been.
    pub async fn takes_again(&self, resend: Resend, tool: &str) -> bool {
        if self.worker().may_resend(resend, tool).is_none() {
            ask_for_hints(self, resend, tool).await;
        }
        self.worker().may_resend(resend, tool) == Some(true)
    }
}
