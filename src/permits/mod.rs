//! Permits for what there is a limited number of, such as children, starts and sessions: whose claim is granted, whose
//! waits, and in which turn.
//!
//! Invariant: nobody holds more than what is left for the others. One more is granted to a tenant while the tenant
//! holds less than what is left of it, and to a principal likewise of what is left for the tenant. So one unit always
//! fits while there is any, and where nobody else may ask, one may have everything.

mod ceiling;
mod claimant;
mod counts;
mod full;
#[expect(clippy::module_inception, reason = "the type, beside its parts")]
mod permits;
mod queues;
#[cfg(test)]
mod tests;

pub use ceiling::{Ceiling, Limit};
pub use claimant::Claimant;
pub use full::{By, Full};
pub use permits::{Claim, Permits};
