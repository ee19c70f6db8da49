//! Session ids: 256 random bits. An id is not a credential; its randomness is a second barrier, as nobody can guess one.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The number of leading characters of an id that logs show.
const PUBLIC: usize = 8;
/// The number of characters of an id: 256 bits in base64 without padding.
const LENGTH: usize = 43;

/// The id of a session, in visible ASCII (Streamable HTTP, "Session Management"). `Debug` shows the first 8 characters only.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionId(Arc<str>);

impl SessionId {
    /// Generates a new id.
    ///
    /// # Errors
    /// The operating system supplies no random numbers.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self(URL_SAFE_NO_PAD.encode(bytes).into()))
    }

    /// Parses an id that a client sent. `None` if the length or a character is wrong; whether such a session exists is not
    /// checked.
    pub fn parse(text: &str) -> Option<Self> {
        let shaped = text.len() == LENGTH && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        shaped.then(|| Self(text.into()))
    }

    /// The whole id, to be shown to the session's own client only.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 8 characters, which logs may show.
    pub fn public(&self) -> Arc<str> {
        self.0.get(..PUBLIC).unwrap_or_default().into()
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…", self.public())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn ids_are_distinct_parse_back_and_hide_in_logs() {
        let (a, b) = (SessionId::random().unwrap(), SessionId::random().unwrap());
        assert_ne!(a, b);
        assert_eq!(SessionId::parse(a.as_str()), Some(a.clone()));
        assert!(!format!("{a:?}").contains(a.as_str()));
        for wrong in ["", "toString", &"x".repeat(44), &"é".repeat(21)] {
            assert_eq!(SessionId::parse(wrong), None);
        }
    }
}
