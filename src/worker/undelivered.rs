//! Server-to-client requests that end without an answer of the client: undeliverable ones are refused to the server, expired ones
//! are withdrawn from the client.

use bytes::Bytes;

use super::calls::{Unsolicited, Withdrawn};
use super::delivery::lost;
use super::handle::Shared;
use super::lease_holder::Route;
use crate::stream::{Item, Requester};
use crate::telemetry::DropReason;

impl Shared {
    /// Refuses the requests of the child that were lost on their way to a client.
    pub(super) fn refuse_lost(&self) {
        let lost = std::mem::take(&mut *self.lost.lock());
        for number in lost {
            self.refuse_undelivered(number);
        }
    }

    /// A request of the child could not be put to its client: the child is told so, unless it is over anyway.
    pub(super) fn refuse_undelivered(&self, number: u64) {
        let refusal = self.multiplexer.lock().server_requests.undelivered(number);
        refusal.into_iter().for_each(|refusal| self.send(refusal));
        self.something_is_over();
    }

    /// Tells a client that it need not answer a request any more, or does not show it to the client at all.
    pub(super) fn withdraw(&self, withdrawn: Withdrawn, message: Bytes) {
        let Withdrawn { peer, number, in_flight } = withdrawn;
        let Some(holder) = self.holder(peer).filter(|holder| !holder.forget(number)) else { return };
        let item = Item::notification(message);
        let dropped = match holder.route(&item, Unsolicited::Notification, &in_flight) {
            Route::Stream(outbox) => outbox.push_own(item).err().map(lost),
            Route::Kept => None,
            Route::Nowhere => Some(DropReason::NoStream),
        };
        dropped.into_iter().for_each(|reason| self.metrics.dropped(reason));
    }
}

impl Requester for Shared {
    fn undelivered(&self, number: u64) {
        self.lost.lock().push(number);
        self.has_lost.notify_one();
    }
}
