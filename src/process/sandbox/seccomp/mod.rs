//! Denies system calls by seccomp. Invariant: a denied call returns an error that programs are prepared for, or success
//! without an effect; only a call of a foreign architecture ends the program.
//!
//! `filter` compiles denials to BPF. `server` collects what is denied to a server: `calls` lists the calls that are
//! denied whatever their arguments are; `sockets`, `metadata` (properties of files) and `other_processes` deny calls by
//! their arguments.

mod calls;
mod filter;
mod metadata;
mod other_processes;
mod server;
mod sockets;

pub use filter::Denials;
pub use metadata::{KnownProgram, Metadata, deny_metadata, deny_unseen_modes};
pub(super) use other_processes::only_own_group;
pub use server::server_denials;
pub use sockets::Sockets;
