//! Denies system calls by seccomp. Invariant: a denied call fails as on a kernel that lacks the call, so that programs fall back
//! to another way; only calls of a foreign architecture end the program.
//!
//! `filter` compiles denials to BPF. `server` says what is denied to a server: `calls` lists the calls that are denied whatever
//! their arguments are; `sockets`, `metadata` (the properties of files) and `other_processes` deny calls by their arguments.

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
