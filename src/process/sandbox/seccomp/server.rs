//! Collects the system calls that are denied to a sandboxed server.

use seccompiler::BackendError;

use super::filter::{Answer, Denials, Is, number};
use super::metadata::refuse_privileged_modes;
use super::sockets::{Sockets, refuse_sockets};
use super::{calls, other_processes};
use crate::config::Allowance;

/// The denials for a server, except for what `allow` permits. `sockets` says which sockets the server may make. Changes
/// of file properties are not among them; see [`deny_metadata`](super::deny_metadata).
///
/// # Errors
/// The rules cannot be expressed.
pub fn server_denials(allow: &[Allowance], sockets: Sockets) -> Result<Denials, BackendError> {
    let mut denials = Denials::default();
    denials.always(calls::ADMINISTRATION).always(calls::ONLY_HERE);
    if !allow.contains(&Allowance::Debug) {
        denials.always(calls::DEBUG);
    }
    if !allow.contains(&Allowance::SharedMemory) {
        denials.always(calls::SHARED);
    }
    if !allow.contains(&Allowance::IoUring) {
        denials.unknown(calls::IO_URING);
    }
    denials.unknown(calls::ASYNCHRONOUS);
    other_processes::refuse_changes(&mut denials)?;
    refuse_namespaces(&mut denials, allow)?;
    refuse_sockets(&mut denials, sockets)?;
    refuse_privileged_modes(&mut denials)?;
    Ok(denials)
}

/// Denies new namespaces, unless they are allowed.
fn refuse_namespaces(denials: &mut Denials, allow: &[Allowance]) -> Result<(), BackendError> {
    if allow.contains(&Allowance::Namespaces) {
        return Ok(());
    }
    for flag in calls::NAMESPACES {
        for call in [libc::SYS_clone, libc::SYS_unshare] {
            denials.when(Answer::Refused, call, &[(0, Is::With(number(flag)))])?;
        }
    }
    // Its flags are in memory, where a filter cannot look. The C library falls back to clone.
    denials.unknown(&[libc::SYS_clone3]);
    Ok(())
}
