//! The guardian: one small process, this binary executed again as `sluice guardian`, between the gateway and every
//! child. Invariant: no process below it outlives its owner, by whatever means the owner ends.
//!
//! - It forks all children from its main thread: so their parent-death signal means its death, and no other thread's.
//! - Each child is the subreaper of its own descendants (`stage.rs`), and the guardian of all. So directly below the
//!   guardian are leaders, and otherwise only what a leader left behind when it died: that is killed at sight. Nobody
//!   has to find out whose it was.
//! - A leader's end is seen before it is reaped, and its group killed in between: the group's id cannot pass to another.
//! - Where cgroups can be had (`process/cgroup/`), each child is in one of its own, and everything in it is killed with it.
//! - When the socket to the gateway closes, the guardian kills all that is below it, and goes.
//! - When the guardian itself dies, the leaders get their parent-death signal, the rest comes to the gateway, which is
//!   a subreaper too, and the [`Keeper`] there kills it and starts another guardian.
//! - When both die at once, the next gateway with the same state directory ends what was left ([`Record`]).
//!
//! Its main thread reads no more of `/proc` than the list of its own children, and no disk: a thread says that it is there when
//! the gateway asks (`beat`), another looks at all processes (`survey`). What fails in one look is done in the next.
//!
//! Over the socket go small packets only (`link.rs`). What a child is to execute, its secrets with it, goes from the
//! gateway to the stage directly, and never through the guardian.

mod beat;
mod handle;
mod keeper;
mod link;
mod nursery;
mod record;
mod stages;
mod survey;

pub use handle::{Census, Guardian};
pub(super) use handle::{Limiter, Status, Ward};
pub use keeper::{Keeper, Neighbours};
pub use nursery::run;
pub use record::{Record, RecordError};
