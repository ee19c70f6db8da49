//! Calls that another child gets when this one has crashed over them, where the configuration allows that for the hints
//! of their tools. Each is sent again once at most, and keeps its exchange: its client sees one answer.

use std::collections::BTreeMap;

use super::calls::{Expired, Incoming, LeaseId};
use super::{Failure, Orphan, Shared, deliver};
use crate::config::Resend;
use crate::jsonrpc::Envelope;
use crate::mcp::method;

/// Takes the calls that may be sent again out of what a crashed child has left, and offers them to the holders of their
/// leases. Calls that a holder does not take fail with `failure`. Calls of tools that are known not to qualify stay in
/// `left`.
pub(super) fn rescue(shared: &Shared, left: &mut Expired, failure: &Failure) {
    let may_qualify = |tool: &str| shared.hints.lock().allow(shared.server.resend(tool), tool) != Some(false);
    let mut orphans: BTreeMap<LeaseId, Vec<Orphan>> = BTreeMap::new();
    for mut call in std::mem::take(&mut left.calls) {
        match call.kept.take().filter(|kept| may_qualify(&kept.tool)) {
            Some(kept) => {
                let orphan = Orphan { kept, id: call.original, exchange: call.exchange, failure: failure.clone() };
                orphans.entry(call.peer).or_default().push(orphan);
            }
            None => left.calls.push(call),
        }
    }
    for (lease, calls) in orphans {
        let refused = match shared.holders.get(lease) {
            Some(holder) => holder.resend(calls),
            None => calls,
        };
        for orphan in refused {
            deliver(&shared.metrics, &orphan.exchange, orphan.failure.response(&orphan.id));
        }
    }
}

/// Notes the hints in a page of `tools/list`, and forgets all hints when the list changes. Does nothing where
/// `restart.resend` is `never`.
pub(super) fn learn<M>(shared: &Shared, envelope: &Envelope<'_>, incoming: &Incoming<M>) {
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
