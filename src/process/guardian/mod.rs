//! The guardian: a small process between the gateway and all children, which is this binary executed again as `sluice
//! guardian`. Invariant: no process below the guardian outlives its owner, whatever ends the owner.
//!
//! - The guardian forks all children from its main thread. A child's parent-death signal follows that thread, so it means
//!   the guardian's death.
//! - Each child is the subreaper of its own descendants (`stage.rs`), and the guardian of all. So the direct children of
//!   the guardian are leaders of process groups, or orphans that a dead leader left behind. Orphans are killed at once.
//! - The guardian sees the end of a leader before it reaps the leader, and kills the group in between: until then the group
//!   id belongs to nobody else.
//! - Where cgroups are available (`process/cgroup/`), each child is in its own, and all in that cgroup are killed with the
//!   child.
//! - When the socket to the gateway closes, the guardian kills everything below it and exits.
//! - When the guardian dies, the kernel kills the leaders by their parent-death signal. Other processes become children of
//!   the gateway, which is a subreaper too; the [`GuardianSupervisor`] kills them and starts another guardian.
//! - When gateway and guardian die at once, the next gateway with the same state directory kills what was left
//!   ([`Record`]).
//!
//! The main thread of the guardian reads nothing from `/proc` but the list of its own children, and nothing from a
//! disk. One thread answers health checks (`health`), another reads all processes (`scan_thread`). Work that fails is
//! tried again within a second.
//!
//! The socket carries small packets only (`protocol`). The gateway sends the program and its secrets directly to the
//! stage, never through the guardian.

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
pub(super) use handle::{ChildHandle, Status};
pub use process::run;
pub use record::{Record, RecordError};
pub use supervisor::{GuardianSupervisor, Neighbours};
