//! Session ids: 256 random bits. An id is not a credential, yet nobody can guess another's.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Characters of an id that are shown in logs.
const PUBLIC: usize = 8;
/// Characters of an id.
const LENGTH: usize = 43;

/// A session's id, in visible ASCII (Streamable HTTP, "Session Management"). Logs show its first characters only.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionId(Arc<str>);

impl SessionId {
    /// A new id.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self(URL_SAFE_NO_PAD.encode(bytes).into()))
    }

    /// Reads what a client sent; `None` if it has not the shape of an id.
    pub fn parse(text: &str) -> Option<Self> {
        let shaped = text.len() == LENGTH && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        shaped.then(|| Self(text.into()))
    }

    /// The whole id, for the client it belongs to.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part that may stand in logs.
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
