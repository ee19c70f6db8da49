//! Children as processes: started with nothing but what is configured, read line by line, and ended as a whole group.

mod brake;
mod ceilings;
pub mod cgroup;
mod child;
mod enforcement;
mod error;
mod folder;
mod guardian;
mod held;
mod image;
mod launch;
pub mod limits;
mod lookup;
mod memory;
mod ports;
pub mod sandbox;
mod stage;
mod stderr;
mod temp;
mod tree;
mod watch;

pub use brake::Brake;
pub use ceilings::{Ceilings, Charge, Full, Place};
pub use child::{Child, Exit, Pipes, Signal};
pub use enforcement::{Enforcement, enforcement, may_call_the_gateway, run_as_root, tenant_enforcement};
pub use error::SpawnError;
pub use folder::{Folders, PrivateFolder, RemovalMetrics};
pub use guardian::{Census, Guardian, Keeper, Neighbours, Record, RecordError, run as guardian};
pub use image::Program;
pub use launch::Launch;
pub use lookup::{Lookups, hold};
pub use memory::memory_of_groups;
pub use ports::ports_within_reach;
pub use stage::run as stage;
pub use stderr::{Origin, StderrTail, drain_stderr};
pub use watch::Excess;
