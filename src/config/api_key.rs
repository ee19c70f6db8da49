//! API keys as the configuration stores them: a public prefix, by which the entry is found, and a hash.

use sha2::{Digest as _, Sha256};

use super::model::ApiKey;
use super::names::TenantId;

/// The start of every generated key.
pub const KEY_START: &str = "slk_";

/// The longest prefix, in bytes.
pub(super) const LONGEST: usize = 128;

impl ApiKey {
    /// The entry for a key in plain text. A key that is not of the form `slk_<prefix>_<secret>` gets an empty prefix.
    /// The hashes of all such keys are compared for each request, so there should be few.
    pub fn from_plain(plain: &str, tenant: TenantId, subject: String, scopes: Vec<String>) -> Self {
        let prefix = Self::prefix_of(plain.as_bytes()).unwrap_or_default().to_owned();
        Self { prefix, sha256: Sha256::digest(plain.as_bytes()).into(), tenant, subject, scopes }
    }

    /// The prefix of a key `slk_<prefix>_<secret>`. `None` if the key has another form.
    pub fn prefix_of(key: &[u8]) -> Option<&str> {
        let (prefix, secret) = std::str::from_utf8(key).ok()?.strip_prefix(KEY_START)?.split_once('_')?;
        (is_prefix(prefix) && !secret.is_empty()).then_some(prefix)
    }
}

/// Whether a text can be a prefix: 1 to 128 ASCII letters and digits.
pub(super) fn is_prefix(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
}
