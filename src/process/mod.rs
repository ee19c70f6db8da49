//! Child processes: the gateway starts them through a guardian with the environment and privileges that the
//! configuration gives, watches their resources, reads their stderr, and ends each with its whole process group.

mod brake;
mod ceilings;
pub mod cgroup;
mod child;
mod descriptors;
mod enforcement;
mod error;
mod exit;
mod folder;
mod guardian;
mod image;
mod launch;
pub mod limits;
mod lookup;
mod pinned_folder;
mod ports;
mod proc;
mod random_name;
pub mod sandbox;
mod stage;
mod stderr;
mod temp_mount;
mod usage;
mod workspace;

pub use brake::Brake;
pub use ceilings::{Ceilings, Charge, watch_folders, watch_usage};
pub use child::{Child, Pipes};
pub use enforcement::{Enforcement, enforcement, may_call_the_gateway, run_as_root, tenant_enforcement};
pub use error::SpawnError;
pub use exit::{Exit, Signal};
pub use folder::{Folders, PrivateFolder, RemovalMetrics};
pub use guardian::{Census, Guardian, GuardianSupervisor, Neighbours, Record, RecordError, run as guardian};
pub use image::Program;
pub use launch::Launch;
pub use lookup::{Lookups, hold};
pub use ports::ports_within_reach;
pub use stage::run as stage;
pub use stderr::{Origin, StderrTail, drain_stderr};
pub use usage::{Excess, memory_of_groups};
pub use workspace::Owner;
