//! The process that a gateway runs in: its binary, who else has children there, and where children get cgroups.

use std::path::PathBuf;

use crate::process::cgroup::Subtree;
use crate::process::{Neighbours, Program};

/// The process that a gateway runs in.
#[derive(Debug)]
pub struct Host {
    /// The binary `sluice`, which is executed again as the guardian.
    pub program: Program,
    /// Whether other code of the process has children too.
    pub neighbours: Neighbours,
    /// The cgroup below which children get theirs; `None` for no cgroups.
    pub cgroups: Option<Subtree>,
}

impl Host {
    /// A process that runs this binary, and nothing but one gateway. Children get cgroups below `cgroups`.
    pub fn alone(cgroups: Option<Subtree>) -> Self {
        Self { program: Program::running(), neighbours: Neighbours::None, cgroups }
    }

    /// A process that has children of its own, such as a test, and makes no cgroups. `program` is the binary `sluice`.
    pub fn shared(program: PathBuf) -> Self {
        Self { program: program.into(), neighbours: Neighbours::Some, cgroups: None }
    }
}
