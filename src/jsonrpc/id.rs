//! A JSON-RPC id as its sender wrote the id: `1`, `"1"` and `1.0` are three different ids, and each is returned byte
//! for byte.

use std::fmt;

use super::members::is_id;

/// The longest id, in bytes, that is stored without an allocation.
const SHORT: usize = 22;

/// The raw JSON text of a request id: a string with quotes, or a number.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RawId(Text);

/// The text of an id. The length decides the variant, so equal ids compare equal.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Text {
    Short { length: u8, bytes: [u8; SHORT] },
    Long(Box<str>),
}

impl RawId {
    /// The id with this raw JSON text. `None` if the text begins like neither a string nor a number (MCP forbids null).
    pub fn new(raw: &str) -> Option<Self> {
        is_id(raw).then(|| Self::of(raw))
    }

    fn of(raw: &str) -> Self {
        let mut bytes = [0; SHORT];
        match (bytes.get_mut(..raw.len()), u8::try_from(raw.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(raw.as_bytes());
                Self(Text::Short { length, bytes })
            }
            _ => Self(Text::Long(raw.into())),
        }
    }

    /// The raw JSON text; a string has its quotes.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            // The bytes were copied from a text, so they are valid.
            Text::Short { length, bytes } => {
                std::str::from_utf8(bytes.get(..usize::from(*length)).unwrap_or_default()).unwrap_or_default()
            }
            Text::Long(text) => text,
        }
    }

    /// The id as an unsigned integer. `None` for a string, and for a number that is written in another way, such as
    /// `1.0`.
    pub fn as_u64(&self) -> Option<u64> {
        self.as_str().parse().ok()
    }
}

impl From<u64> for RawId {
    fn from(number: u64) -> Self {
        Self::of(std::str::from_utf8(decimal(number, &mut [0; 20])).unwrap_or_default())
    }
}

impl fmt::Debug for RawId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Writes the decimal digits of `number` to the end of `digits` and returns them.
pub(super) fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut start = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        start -= 1;
        if number == 0 {
            break;
        }
    }
    digits.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_id_is_kept_as_it_is_written_whatever_its_length() {
        for length in [1, 20, 21, 22, 1024] {
            let raw = format!("\"{}\"", "é".repeat(length / 2));
            let id = RawId::new(&raw).unwrap();
            assert_eq!((id.as_str(), &id), (raw.as_str(), &RawId::new(&raw).unwrap()));
        }
        assert_eq!(RawId::from(u64::MAX).as_u64(), Some(u64::MAX));
        assert_ne!(RawId::new("1"), RawId::new("1.0"));
        assert_eq!([RawId::new("null"), RawId::new("{}"), RawId::new("")], [const { None }; 3]);
    }

    #[test]
    fn numbers_are_written_in_digits() {
        for number in [0, 7, 10, 99_999_999_999_999, u64::MAX] {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string().as_bytes());
        }
    }
}
