//! What sessions that share a child have in common: who may have caused a message of the child, who hears of the
//! message, and the standing requests of all sessions as one.

mod abandoned_calls;
mod owners;
mod parties;
mod sharing;
mod standing_requests;
mod subscriptions;
mod uri;

pub use parties::Party;
pub(in crate::worker::calls) use parties::{Held, Parties};
pub(in crate::worker) use parties::{Holdings, left_for};
pub(super) use sharing::Sharing;
pub(super) use standing_requests::Decision;
#[cfg(feature = "fuzzing")]
pub use uri::is_part_of;
