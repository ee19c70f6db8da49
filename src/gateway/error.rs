//! Errors that keep a gateway from starting.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::auth::AuthSetupError;
use crate::process::RecordError;

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error("cannot listen on {address} ({key}): {error}{}", hint(error))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The configuration key of the address.
        key: &'static str,
        /// The error of the operating system.
        error: io::Error,
    },
    /// Key files could not be read or used.
    #[error(transparent)]
    Auth(#[from] AuthSetupError),
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] RecordError),
    /// The guardian, which starts all children, could not be started.
    #[error("cannot start the guardian ({} guardian): {error}", program.display())]
    Guardian {
        /// The program that was to become the guardian.
        program: PathBuf,
        /// The error of the operating system.
        error: io::Error,
    },
    /// The task that was to put a configuration in force did not come to its end.
    #[error("the configuration could not be put in force: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// What to do about an address that cannot be bound; empty where nothing is known.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another program listens there: stop it, or choose another port",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need privileges: choose a higher one",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        _ => "",
    }
}
