//! A worker is a supervised child with its multiplexer: calls go in under the worker's own ids, and each answer comes
//! back to the exchange that asked, or to nobody.

mod calls;
mod deadlines;
mod delivery;
mod error;
mod guard;
mod handle;
mod health;
mod hints;
mod holders;
mod lease;
mod lease_holder;
mod negotiated;
mod opening;
mod orphan;
mod phase;
mod replay;
mod retiring;
mod retry;
mod sandbox_hint;
mod shared;
mod spec;
mod stdin;
mod stdout;
mod supervisor;
#[cfg(test)]
mod tests;

pub use calls::{Ask, InFlight, Kept, Refused, Unsolicited};
use deadlines::keep_watch;
pub use delivery::deliver;
use delivery::lost;
pub use error::Failure;
pub use guard::DropGuard;
pub use handle::Worker;
use health::{Health, HealthAction};
use hints::Hints;
use holders::Holders;
pub use lease::Lease;
pub use lease_holder::{LeaseHolder, Nobody, Route};
pub use negotiated::Negotiated;
pub use opening::{CompatibilityKey, Opening};
pub use orphan::Orphan;
pub use phase::{Due, Phase};
pub use replay::Replay;
use retry::{learn, rescue};
use sandbox_hint::SandboxHint;
use shared::{End, Shared};
pub use spec::Spec;
use stdin::{Queued, StdinQueue};
use stdout::read_stdout;
pub use supervisor::spawn;
