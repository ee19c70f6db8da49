//! Puts a sandbox policy in force on the calling process.

use super::error::SandboxError;
use super::identity::{drop_bounding_set, drop_capabilities};
use super::kernel::Kernel;
use super::landlock::enclose;
use super::policy::Policy;
use super::seccomp::Denials;
use super::system_paths::own_limits;

/// Puts `policy` in force on this process and all that it starts, irrevocably. Makes missing cache folders on the way.
/// The process must have a single thread, because the kernel keeps parts of the sandbox for each thread.
///
/// # Errors
/// A step was refused, or a required part is missing. The process must then start nothing.
pub fn apply(policy: &Policy) -> Result<(), SandboxError> {
    policy.limits.apply().map_err(SandboxError::refused("a limit"))?;
    if policy.confinement.is_some() {
        drop_bounding_set();
    }
    if let Some(identity) = &policy.identity {
        identity.take_on().map_err(SandboxError::refused("the change of user"))?;
    }
    let Some(confinement) = &policy.confinement else { return Ok(()) };
    for cache in &confinement.caches {
        // By the right of its user. If that fails, the server's own error says more than could be said here.
        let _ = std::fs::create_dir_all(cache);
    }
    rustix::thread::set_no_new_privs(true).map_err(SandboxError::refused("no-new-privileges"))?;
    let mut enclosure = confinement.enclosure.clone();
    enclosure.read.extend(own_limits());
    let landlock = enclose(&enclosure)?;
    drop_capabilities().map_err(SandboxError::refused("the loss of capabilities"))?;
    let seccomp = confinement.denials(landlock)?.apply();
    if seccomp.is_err() && Denials::default().apply().is_ok() {
        // It is there, and it is this that it refused.
        return seccomp;
    }
    if confinement.required {
        // The gateway has looked already; but it is here that it counts.
        let kernel = Kernel { landlock, seccomp: seccomp.is_ok() };
        let lacking = kernel.lacking();
        if !lacking.is_empty() {
            return Err(SandboxError::Required(lacking.join(" and ")));
        }
    }
    Ok(())
}
