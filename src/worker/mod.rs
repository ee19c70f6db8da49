//! A worker is a supervised child with its multiplexer: calls go in under the worker's own ids, and each answer comes
//! back to the exchange that asked, or to nobody.

mod error;
mod multiplexer;
mod peer;
mod queue;
mod reader;
mod supervisor;

pub use error::{Failure, Refused};
pub use multiplexer::Ask;
pub use peer::{InFlight, Peer, Route, Unsolicited};
pub use supervisor::{Spec, Worker};
