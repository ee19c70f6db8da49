//! Durations and sizes as people write them, in both directions: what is shown can be read again.

use std::time::Duration;

/// Why a text is not a duration or a size. The message says how to write one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUnit {
    /// Not a duration.
    #[error("\"{0}\" is not a duration; write numbers with units, such as \"500ms\", \"15s\", \"10m\" or \"1h30m\"")]
    Duration(String),
    /// Not a size.
    #[error(
        "\"{0}\" is not a size; write a number of bytes or one with a unit, such as \"64KiB\", \"16MiB\" or \"1GB\""
    )]
    Bytes(String),
}

/// Milliseconds in a unit, largest first.
const TIMES: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Bytes in a unit. The binary ones are largest first, for showing.
const SIZES: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
];

/// Reads a duration: numbers with the units `h`, `m`, `s` and `ms`, in that order, each at most once.
///
/// # Errors
/// Anything else, the bare number and the empty text included, is [`InvalidUnit::Duration`].
pub fn parse_duration(text: &str) -> Result<Duration, InvalidUnit> {
    milliseconds(text).map(Duration::from_millis).ok_or_else(|| InvalidUnit::Duration(excerpt(text)))
}

fn milliseconds(text: &str) -> Option<u64> {
    let mut units = TIMES.iter();
    let mut total = 0_u64;
    let mut rest = text;
    loop {
        let (number, tail) = rest.split_at(count(rest, u8::is_ascii_digit));
        let (unit, tail) = tail.split_at(count(tail, u8::is_ascii_alphabetic));
        // The iterator goes on where it stopped: a unit that comes twice, or too late, is not found.
        let (_, scale) = units.find(|(name, _)| *name == unit)?;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(*scale)?)?;
        rest = tail;
        if rest.is_empty() {
            return Some(total);
        }
    }
}

/// Reads a size in bytes: a number, alone or with one of `B`, `KiB`, `MiB`, `GiB`, `KB`, `MB`, `GB`.
///
/// # Errors
/// Anything else is [`InvalidUnit::Bytes`].
pub fn parse_bytes(text: &str) -> Result<usize, InvalidUnit> {
    let bytes = || {
        let (number, unit) = text.split_at(count(text, u8::is_ascii_digit));
        let scale = if unit.is_empty() { 1 } else { SIZES.iter().find(|(name, _)| *name == unit)?.1 };
        usize::try_from(number.parse::<u64>().ok()?.checked_mul(scale)?).ok()
    };
    bytes().ok_or_else(|| InvalidUnit::Bytes(excerpt(text)))
}

fn count(text: &str, is: fn(&u8) -> bool) -> usize {
    text.bytes().take_while(is).count()
}

/// A wrong value is quoted, but not at any length.
fn excerpt(text: &str) -> String {
    text.chars().take(40).collect()
}

/// A duration in the form that [`parse_duration`] reads. What is below a millisecond is cut off.
pub fn show_duration(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, scale) in TIMES {
        if left / scale > 0 {
            text.push_str(&format!("{}{unit}", left / scale));
            left %= scale;
        }
    }
    text
}

/// A size in the form that [`parse_bytes`] reads, in the largest unit that divides it.
pub fn show_bytes(bytes: usize) -> String {
    let bytes = bytes as u64;
    SIZES
        .iter()
        .find(|(_, scale)| bytes > 0 && bytes.is_multiple_of(*scale))
        .map_or_else(|| format!("{bytes}B"), |(unit, scale)| format!("{}{unit}", bytes / scale))
}
