//! A worker is a supervised child with its multiplexer: calls go in under the worker's own ids, and each answer comes
//! back to the exchange that asked, or to nobody.

mod alarm;
mod asking;
#[cfg(test)]
mod dice;
mod error;
mod guard;
mod handle;
mod hints;
mod lease;
mod multiplexer;
mod opening;
mod peer;
mod phase;
mod pulse;
mod queue;
mod reader;
mod resend;
mod retiring;
mod sandbox_hint;
mod supervisor;
mod terms;

pub use error::{Failure, Refused};
pub use guard::DropGuard;
pub use handle::Worker;
pub use lease::{Lease, deliver};
pub use multiplexer::Ask;
pub use opening::{Fingerprint, Opening};
pub use peer::{InFlight, Nobody, Peer, Route, Unsolicited};
pub use phase::Phase;
pub use resend::{Kept, Orphan};
pub use retiring::Due;
pub use supervisor::{Spec, spawn};
pub use terms::{Replay, Terms};
