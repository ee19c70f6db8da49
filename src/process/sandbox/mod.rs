//! What a child is kept from, with nothing but what the kernel gives every process: Landlock, seccomp, an other user,
//! no-new-privileges and empty capability sets. Invariant: [`apply`] either enforces what its [`Policy`] asks for, as
//! far as this kernel can, or fails; and what this kernel cannot is known beforehand ([`Kernel`]).
//!
//! `policy` works out in the gateway what a server's configuration amounts to; it travels to the stage, which applies
//! it to itself right before it becomes the server. `paths` knows where programs and their caches are, `crowd` what
//! is too much to open, `yard` what not to believe; `landlock` encloses a process in paths, `seccomp` takes system calls away, `identity` users and privileges. `program` encloses
//! what is no server: a program of the built-in one's.

mod crowd;
mod identity;
mod kernel;
mod landlock;
mod openness;
mod paths;
mod policy;
mod program;
mod seccomp;
mod yard;

use std::path::PathBuf;

use identity::drop_capabilities;

pub use identity::conceal;
pub use kernel::Kernel;
pub use landlock::{Enclosure, enclose};
pub use openness::{Openness, openness, unopened};
pub use paths::{DEVICES, PROGRAMS};
pub use policy::{Confinement, Local, Policy, Reach};
pub use program::enclose_in;
pub use seccomp::{Denials, KnownProgram, Metadata, Sockets};

/// Why a sandbox could not be put in force. The texts name no secret.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A path of the configuration cannot be opened by the child.
    #[error("the sandbox path {} cannot be opened: {error}; correct it, or let the server's user reach it", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The system refused a step.
    #[error("{step} was refused: {detail}")]
    Refused {
        /// What was tried.
        step: &'static str,
        /// What the system said.
        detail: String,
    },
    /// A part without which nothing is started is not there.
    #[error("this kernel lacks {0}")]
    Lacking(&'static str),
    /// A part that the configuration requires is not there.
    #[error("this kernel lacks {0}; allow it to be missing (require_sandbox = false), or use a newer kernel")]
    Required(String),
}

impl SandboxError {
    fn refused(step: &'static str) -> impl Fn(&dyn std::fmt::Display) -> Self {
        move |error| Self::Refused { step, detail: error.to_string() }
    }
}

/// Puts a policy in force on this process, for good, and on all that it starts. The process must have a single thread:
/// what the kernel keeps for each thread would hold for one of them only.
///
/// # Errors
/// A step was refused, or a required part is missing. The process must then start nothing.
pub fn apply(policy: &Policy) -> Result<(), SandboxError> {
    policy.limits.apply().map_err(|error| SandboxError::refused("a limit")(&error))?;
    if policy.confinement.is_some() {
        identity::drop_bounding_set();
    }
    if let Some(identity) = &policy.identity {
        identity.take_on().map_err(|error| SandboxError::refused("the change of user")(&error))?;
    }
    let Some(confinement) = &policy.confinement else { return Ok(()) };
    for cache in &confinement.caches {
        // By the right of its user. If that fails, the server's own error says more than could be said here.
        let _ = std::fs::create_dir_all(cache);
    }
    let failed = SandboxError::refused("no-new-privileges");
    rustix::thread::set_no_new_privs(true).map_err(|error| failed(&error))?;
    let mut enclosure = confinement.enclosure.clone();
    enclosure.read.extend(paths::own_limits());
    let landlock = enclose(&enclosure)?;
    drop_capabilities().map_err(|error| SandboxError::refused("the loss of capabilities")(&error))?;
    let seccomp = confinement.denials(landlock)?.apply();
    if seccomp.is_err() && Denials::default().apply().is_ok() {
        // It is there, and it is this that it refused.
        return seccomp;
    }
    if confinement.required {
        // The gateway has looked already; but it is here that it counts.
        let kernel = Kernel { landlock, seccomp: seccomp.is_ok() };
        match kernel.lacking().as_slice() {
            [] => {}
            lacking => return Err(SandboxError::Required(lacking.join(" and "))),
        }
    }
    Ok(())
}
