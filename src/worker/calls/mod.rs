//! The tables of what is in flight on one child, both ways. They rewrite ids and progress tokens. They are pure: no async, no I/O
//! and no clock, only times that are passed in; they import `jsonrpc`, `mcp`, `stream`, and of `telemetry` the reasons for drops.

mod abandoned;
mod asked;
mod call;
mod cancel;
mod deadline;
mod draft;
mod draining;
mod edit;
mod fair_share;
mod incoming;
mod lease_id;
mod live_tasks;
mod numbers;
mod outgoing;
mod owners;
mod refused;
mod reported;
mod server_requests;
mod standing;
mod standing_requests;
mod subscriptions;
mod table;
mod tasks;
#[cfg(test)]
mod tests;
mod unsolicited;
mod uri;

pub use call::{Ask, Kept};
pub(super) use cancel::{Expired, Withdrawn};
pub(super) use draft::Draft;
pub(super) use edit::{answer_frame, cancellation_frame};
pub(super) use incoming::{Answer, Incoming};
pub(super) use lease_id::LeaseId;
pub(super) use outgoing::Outgoing;
pub use refused::Refused;
pub(super) use reported::Reported;
pub(super) use server_requests::Notified;
pub(super) use table::Multiplexer;
pub use unsolicited::{InFlight, Unsolicited};
