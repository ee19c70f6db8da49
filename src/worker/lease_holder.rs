//! The holder of a lease, as a worker sees the holder: takes requests and notifications of the server, and hears of the
//! end of the child.

use std::sync::Weak;

use super::Orphan;
use super::calls::{InFlight, Unsolicited};
use crate::memory::Account;
use crate::stream::{Item, Outbox};

/// Where a holder wants a message of the server.
#[derive(Debug)]
pub enum Route {
    /// Into this stream.
    Stream(Outbox),
    /// The holder keeps the message until a stream opens.
    Kept,
    /// Nowhere: no stream is open, and the holder has no room to keep the message.
    Nowhere,
}

/// The holder of a lease, such as a session's link. The worker calls these methods while it reads the child's output,
/// so they must not block.
pub trait LeaseHolder: Send + Sync {
    /// Decides where a message of the server goes that is no answer. `in_flight` describes the holder's calls on the
    /// child.
    fn route(&self, item: &Item, kind: Unsolicited, in_flight: &InFlight) -> Route;

    /// The account for what waits for the holder's client; `None`: that of the child.
    fn account(&self) -> Option<Account> {
        None
    }

    /// Removes a kept request of the server, which the client must not answer any more. `number` is the request's id
    /// towards the client. Returns whether the request was kept: then the client has not seen it.
    fn forget(&self, number: u64) -> bool;

    /// Takes calls that the child has crashed over, for another child. Returns the calls that the holder does not take,
    /// which then fail. The default takes none.
    fn resend(&self, calls: Vec<Orphan>) -> Vec<Orphan> {
        calls
    }

    /// Whether the holder is about to send the child something. Such a child is not taken for an idle one. Called
    /// without any lock of the worker. The default is never.
    fn needs_child(&self) -> bool {
        false
    }

    /// Hears that the worker has removed this lease, because nothing of it is in flight on a retired child.
    fn let_go(&self) {}

    /// Hears that the child has ended.
    fn exited(&self);
}

/// A type without values: stands for a holder where a lease has none yet.
#[derive(Debug)]
pub enum Nobody {}

impl Nobody {
    /// A reference to no holder.
    pub fn holder() -> Weak<dyn LeaseHolder> {
        Weak::<Self>::new()
    }
}

impl LeaseHolder for Nobody {
    fn route(&self, _: &Item, _: Unsolicited, _: &InFlight) -> Route {
        match *self {}
    }

    fn forget(&self, _: u64) -> bool {
        match *self {}
    }

    fn exited(&self) {
        match *self {}
    }
}
