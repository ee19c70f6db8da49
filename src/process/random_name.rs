//! Makes names for folders that nobody can guess.

use std::io;

use crate::text::hex;

/// Makes a name of 16 hexadecimal digits from 64 random bits.
///
/// # Errors
/// The system has no random numbers.
pub(super) fn random_name() -> io::Result<String> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(hex(&random))
}
