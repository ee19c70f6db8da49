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
//!   a subreaper too, and the [`GuardianSupervisor`] there kills it and starts another guardian.
//! - When both die at once, the next gateway with the same state directory ends what was left ([`Record`]).
//!
//! Its main thread reads no more of `/proc` than the list of its own children, and no disk: a thread says that it is there when
//! the gateway asks (`beat`), another looks at all processes (`scan_thread`). What fails in one look is done in the next.
//!
//! Over the socket go small packets only (`protocol.rs`). What a child is to execute, its secrets with it, goes from the
//! gateway to the stage directly, and never through the guardian.

mod census;
mod handle;
mod health;
mod process;
mod protocol;
mod record;
mod scan_thread;
mod stages;
mod supervisor;

pub use census::Census;
pub use handle::Guardian;
pub(super) use handle::{ChildHandle, Limiter, Status};
pub use process::run;
pub use record::{Record, RecordError};
pub use supervisor::{GuardianSupervisor, Neighbours};
