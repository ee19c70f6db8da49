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
mod payer;
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

#[cfg(feature = "fuzzing")]
pub use calls::is_part_of;
pub use calls::{Ask, InFlight, Kept, Party, Refused, Unsolicited};
pub(in crate::worker) use deadlines::keep_watch;
pub use delivery::deliver;
pub(in crate::worker) use delivery::lost;
pub use error::Failure;
pub use guard::DropGuard;
pub use handle::Worker;
pub(in crate::worker) use health::{Health, HealthAction};
pub(in crate::worker) use hints::Hints;
pub(in crate::worker) use holders::Holders;
pub use lease::Lease;
pub use lease_holder::{LeaseHolder, Nobody, Route};
pub use negotiated::Negotiated;
pub use opening::{Audience, CompatibilityKey, Opening};
pub use orphan::Orphan;
pub use payer::Payer;
pub use phase::{Due, Phase};
pub use replay::Replay;
pub(in crate::worker) use retry::{learn, rescue};
pub(in crate::worker) use sandbox_hint::SandboxHint;
pub(in crate::worker) use shared::{End, Shared};
pub use spec::Spec;
pub(in crate::worker) use stdin::{Queued, StdinQueue};
pub(in crate::worker) use stdout::read_stdout;
pub use supervisor::spawn;
