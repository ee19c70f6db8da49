//! Children as processes: started with nothing but what is configured, read line by line, and ended as a whole group.

mod child;
mod error;
mod guardian;
mod launch;
mod memory;
mod stage;
mod stderr;
mod tree;

pub use child::{Child, Exit, Pipes, Signal};
pub use error::SpawnError;
pub use guardian::{Census, Guardian, Keeper, Neighbours, run as guardian};
pub use launch::Launch;
pub use memory::memory_of_groups;
pub use stage::run as stage;
pub use stderr::{Origin, StderrTail, drain_stderr};
