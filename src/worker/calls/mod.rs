//! The tables of what is in flight on one child, both ways. They rewrite ids and progress tokens. They are pure: no
//! async, no I/O and no clock, only times that are passed in; they import `jsonrpc`, `mcp`, `memory`, `stream`,
//! and of `telemetry` the reasons for drops.

mod bounded;
mod call;
mod deadline;
mod draft;
mod edit;
mod expired;
mod incoming;
mod lease_id;
mod live_tasks;
mod multiplexer;
mod notified;
mod numbers;
mod outgoing;
mod refused;
mod reported;
mod server_requests;
mod shared;
mod standing;
#[cfg(test)]
mod tests;
mod unsolicited;

pub(in crate::worker::calls) use bounded::insert_bounded;
pub use call::{Ask, Kept};
pub(in crate::worker::calls) use call::{Call, Calls};
pub(in crate::worker::calls) use deadline::DeadlineTimer;
pub(super) use draft::Draft;
pub(in crate::worker::calls) use edit::Edit;
pub(super) use edit::{answer_frame, cancellation_frame};
pub(in crate::worker::calls) use expired::Waiting;
pub(super) use expired::{Expired, Withdrawn};
pub(super) use incoming::{Answer, Incoming};
pub(super) use lease_id::LeaseId;
pub(in crate::worker::calls) use lease_id::{LeaseState, Leases};
pub(in crate::worker::calls) use live_tasks::LiveTasks;
pub(super) use multiplexer::Multiplexer;
pub(super) use notified::Notified;
pub(in crate::worker::calls) use numbers::{Number, NumberHasher, for_server_request};
pub(super) use outgoing::Outgoing;
pub use refused::Refused;
pub(super) use reported::Reported;
pub(in crate::worker::calls) use server_requests::{OpenRequest, ServerRequests, refusal};
pub use shared::Party;
#[cfg(feature = "fuzzing")]
pub use shared::is_part_of;
pub(in crate::worker::calls) use shared::{Decision, Held, Parties, Sharing};
pub(super) use shared::{Holdings, left_for};
pub(super) use standing::Standing;
pub(in crate::worker::calls) use standing::{StandingInFlight, Told};
pub use unsolicited::{InFlight, Unsolicited};
