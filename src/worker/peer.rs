//! Who a worker talks to besides the exchanges: the session that takes what the server says unasked.

use std::sync::Weak;

use super::calls::{InFlight, Unsolicited};
use super::orphan::Orphan;
use crate::stream::{Item, Outbox};

/// Where a message goes.
#[derive(Debug)]
pub enum Route {
    /// Into this stream.
    Stream(Outbox),
    /// The peer keeps it until a stream opens.
    Kept,
    /// Nowhere: there is no stream, and no room to keep it.
    Nowhere,
}

/// A session, as its worker sees it. Called from the worker's reader: must not block.
pub trait Peer: Send + Sync {
    /// Decides where something unsolicited goes.
    fn route(&self, item: &Item, kind: Unsolicited, in_flight: &InFlight) -> Route;

    /// A request of the server is over, and is not to be shown to the client any more. Whether it was kept still: then the
    /// client never hears of it.
    fn forget(&self, number: u64) -> bool;

    /// The worker's child has crashed in the middle of these calls, which another child may get. Returns those that it
    /// does not take, to fail.
    fn resend(&self, calls: Vec<Orphan>) -> Vec<Orphan> {
        calls
    }

    /// Nothing of the session is in flight any more on a child that was replaced: it is off that one.
    fn let_go(&self) {}

    /// The worker's child has ended.
    fn exited(&self);
}

/// The peer of a child that is nobody's yet.
#[derive(Debug)]
pub enum Nobody {}

impl Nobody {
    /// A reference to no session.
    pub fn peer() -> Weak<dyn Peer> {
        Weak::<Self>::new()
    }
}

impl Peer for Nobody {
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
