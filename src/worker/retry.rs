//! Calls that another child gets when this one crashed in the middle of them, where the configuration allows it for what
//! their tools say of themselves. Each is sent again once at most, under its own exchange: its client sees one answer.

use std::time::Duration;

use tokio::time::timeout;

use super::calls::{Expired, Incoming, LeaseId};
use super::delivery::deliver;
use super::error::Failure;
use super::handle::Shared;
use super::lease::Lease;
use super::orphan::Orphan;
use crate::config::Resend;
use crate::jsonrpc::{Envelope, member, parse, quoted, text};
use crate::mcp::method;

/// Pages that a child is asked for.
const PAGES: usize = 16;
/// A child that lists no tools in this time gets no call a second time.
const PATIENCE: Duration = Duration::from_secs(10);

/// Takes the calls that may be sent again out of what a crashed child has left, and asks their sessions to. Those that
/// are known not to qualify are left, and fail at once.
pub(super) fn rescue(shared: &Shared, left: &mut Expired, failure: &Failure) {
    let mut orphans: Vec<(LeaseId, Orphan)> = Vec::new();
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
        let refused = match shared.holder(peer) {
            Some(holder) => holder.resend(calls),
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

/// Notes what a message of the child says of its tools, where that can decide anything.
pub(super) fn learn(shared: &Shared, envelope: &Envelope<'_>, incoming: &Incoming) {
    if shared.server.restart.resend == Resend::Never {
        return;
    }
    match (incoming, envelope.result) {
        (Incoming::Answer(answer, _), Some(result)) if answer.call.method == method::TOOLS_LIST => {
            shared.hints.lock().note(result, answer.call.is_first_page);
        }
        (Incoming::Unsolicited(..), _) if envelope.method.as_deref() == Some(method::TOOLS_LIST_CHANGED) => {
            shared.hints.lock().clear();
        }
        _ => {}
    }
}

/// Asks a child for its list, until it has said what it has to say of a tool, or there is no more of it.
pub(super) async fn ask_for_hints(lease: &Lease, resend: Resend, tool: &str) {
    let mut cursor: Option<String> = None;
    for _ in 0..PAGES {
        let params = cursor.map_or("{}".to_owned(), |cursor| format!(r#"{{"cursor":{}}}"#, quoted(&cursor)));
        let request = format!(r#"{{"jsonrpc":"2.0","id":"tools","method":"tools/list","params":{params}}}"#);
        // The answer is noted on its way here.
        let answer = timeout(PATIENCE, lease.ask(request.as_bytes(), PATIENCE)).await;
        let Ok(Ok(answer)) = answer else { return };
        let result = parse(&answer).ok().and_then(|envelope| envelope.result);
        cursor = result.and_then(|result| Some(text(member(result, "nextCursor")?)?.into_owned()));
        if cursor.is_none() || lease.worker().may_resend(resend, tool).is_some() {
            return;
        }
    }
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
