//! The pools: each leases the children of one server to callers, bounds their number, keeps spares, and replaces
//! children that are due or have crashed.
//!
//! Invariants: a server never has more than `pool.max_children` children, spares and starting ones included; a leased
//! child serves only the principals that its isolation allows; a spare has served nobody. (A caller that leaves before
//! its child has answered `initialize` has not had the child: the next caller of the same client may.)

mod breaker;
mod breaker_permit;
mod child;
mod children;
mod demand;
mod deployment;
mod exclusive;
mod holder;
mod inventory;
mod lease;
#[expect(clippy::module_inception, reason = "the type, beside its parts")]
mod pool;
mod pools;
mod recycle;
mod room;
mod shared;
mod spares;
mod start;
mod starts;
mod status;
mod surroundings;
mod wanted;

pub use breaker::backoff;
pub use children::Children;
pub use deployment::{Deployment, Deployments};
pub use pool::Pool;
pub use pools::Pools;
pub use status::WorkerStatus;
pub use surroundings::Surroundings;
pub use wanted::{Granted, Wanted};
