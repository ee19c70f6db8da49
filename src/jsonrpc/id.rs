//! A JSON-RPC id as its author wrote it: `1`, `"1"` and `1.0` are three ids, and each goes back byte for byte.

use std::fmt;

/// The raw JSON text of a request id: a string (with its quotes) or a number.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RawId(Box<str>);

impl RawId {
    /// Takes the raw JSON text of an id; `None` if it is neither a string nor a number (MCP forbids null).
    pub fn new(raw: &str) -> Option<Self> {
        match raw.as_bytes().first()? {
            b'"' | b'-' | b'0'..=b'9' => Some(Self(raw.into())),
            _ => None,
        }
    }

    /// The raw JSON text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as an unsigned integer, if it is written as one.
    pub fn as_u64(&self) -> Option<u64> {
        self.0.parse().ok()
    }
}

impl From<u64> for RawId {
    fn from(number: u64) -> Self {
        Self(number.to_string().into())
    }
}

impl fmt::Debug for RawId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
