//! Locks a file or folder against other gateways (flock).

use std::fs::File;
use std::io;

use rustix::fs::FlockOperation;

/// Locks `file` without waiting. `false` if somebody else holds the lock. The lock lasts as long as the descriptor.
pub(super) fn try_lock(file: &File) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
