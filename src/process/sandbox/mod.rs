//! The sandbox of a child, made of what the kernel offers to every process: Landlock, seccomp, another user,
//! no-new-privileges and empty capability sets. Invariant: [`apply`] either enforces all of its [`Policy`] that this
//! kernel supports, or fails; [`Kernel`] tells beforehand which parts the kernel lacks.
//!
//! The gateway computes a `policy` from the server's configuration; the stage receives the policy and applies it to
//! itself right before it executes the server. `infer` guesses which paths a server needs, `system_paths` lists those
//! of every server, and `exposure` tells the operator what is open. The rest is enforcement: `landlock` restricts
//! paths, `seccomp` system calls, `identity` users and privileges. `command` restricts a single command that the
//! built-in server runs.

mod apply;
mod command;
mod error;
mod exposure;
mod identity;
mod infer;
mod kernel;
mod landlock;
mod policy;
mod seccomp;
mod system_paths;

pub use apply::apply;
pub use command::enclose_in;
pub use error::SandboxError;
pub use exposure::{Exposure, exposure, unopened_cwd};
pub use identity::conceal;
#[cfg(feature = "fuzzing")]
pub use infer::{UntrustedPaths, in_arguments};
pub use kernel::Kernel;
pub use policy::{Policy, Reach};
pub use system_paths::PROGRAMS;
