//! Session ids: 256 random bits. An id is not a credential; its randomness is a second barrier, as nobody can guess
//! one.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The number of leading characters of an id that logs show.
const PUBLIC: usize = 8;

/// The id of a session, in visible ASCII (Streamable HTTP, "Session Management"). `Debug` shows the first 8 characters
/// only.
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

    /// The whole id, to be shown to the session's own client only.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 8 characters, which logs may show.
    pub fn public(&self) -> Arc<str> {
        self.0.get(..PUBLIC).unwrap_or_default().into()
    }
}

/// A table of sessions is asked for what a client sent, whatever that is.
impl Borrow<str> for SessionId {
    fn borrow(&self) -> &str {
        &self.0
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
    use std::collections::HashMap;

    #[test]
    fn ids_are_distinct_are_found_by_their_text_and_hide_in_logs() {
        let (a, b) = (SessionId::random().unwrap(), SessionId::random().unwrap());
        assert_ne!(a, b);
        assert!(!format!("{a:?}").contains(a.as_str()));
        let known = HashMap::from([(a.clone(), ())]);
        assert!(known.contains_key(a.as_str()) && !known.contains_key(b.as_str()) && !known.contains_key(""));
    }
}
