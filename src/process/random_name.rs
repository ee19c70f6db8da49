//! Makes names for folders that nobody can guess.

use std::io;

/// Makes a name of 16 hexadecimal digits from 64 random bits.
///
/// # Errors
/// The system has no random numbers.
pub(super) fn random_name() -> io::Result<String> {
    Ok(format!("{:016x}", getrandom::u64().map_err(io::Error::other)?))
}
