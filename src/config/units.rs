//! Reads and shows durations and sizes with units. A shown value can be read again.

use std::time::Duration;

/// The error for a text that is not a duration or size, with at most 40 characters of the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUnit {
    /// The text is not a duration.
    #[error("\"{0}\" is not a duration; write numbers with units, such as \"500ms\", \"15s\", \"10m\" or \"1h30m\"")]
    Duration(String),
    /// The text is not a size.
    #[error(
        "\"{0}\" is not a size; write a number of bytes or one with a unit, such as \"64KiB\", \"16MiB\" or \"1GB\""
    )]
    Bytes(String),
}

/// The units of durations in milliseconds, largest first.
const TIMES: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The units of sizes in bytes. The first of them that divides a size is used to show the size.
const SIZES: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
];

/// Reads a duration: whole numbers with the units `h`, `m`, `s` and `ms`, in this order, each unit at most once.
///
/// # Errors
/// [`InvalidUnit::Duration`] for other text, such as a number without a unit or the empty text, and for more
/// milliseconds than `u64` holds.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidUnit> {
    milliseconds(text).map(Duration::from_millis).ok_or_else(|| InvalidUnit::Duration(excerpt(text)))
}

/// The milliseconds of a duration. `None` for other text.
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

/// Reads a size in bytes: a whole number, alone or with one of `B`, `KiB`, `MiB`, `GiB`, `KB`, `MB`, `GB`.
///
/// # Errors
/// [`InvalidUnit::Bytes`] for other text.
pub fn parse_bytes(text: &str) -> Result<usize, InvalidUnit> {
    let bytes = || {
        let (number, unit) = text.split_at(count(text, u8::is_ascii_digit));
        let scale = if unit.is_empty() { 1 } else { SIZES.iter().find(|(name, _)| *name == unit)?.1 };
        usize::try_from(number.parse::<u64>().ok()?.checked_mul(scale)?).ok()
    };
    bytes().ok_or_else(|| InvalidUnit::Bytes(excerpt(text)))
}

/// The number of bytes at the start of a text for which `is` holds.
fn count(text: &str, is: fn(&u8) -> bool) -> usize {
    text.bytes().take_while(is).count()
}

/// The first 40 characters of a text.
fn excerpt(text: &str) -> String {
    text.chars().take(40).collect()
}

/// A duration in the form that [`parse_duration`] reads, rounded down to milliseconds.
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

/// A size in the form that [`parse_bytes`] reads, in the largest binary unit that divides the size.
pub fn show_bytes(bytes: usize) -> String {
    let bytes = bytes as u64;
    SIZES
        .iter()
        .find(|(_, scale)| bytes > 0 && bytes.is_multiple_of(*scale))
        .map_or_else(|| format!("{bytes}B"), |(unit, scale)| format!("{}{unit}", bytes / scale))
}
