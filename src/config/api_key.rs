//! API keys as they are stored: a public prefix, by which an entry is found, and a hash.

use sha2::{Digest as _, Sha256};

use super::model::ApiKey;
use super::names::TenantId;

/// What every generated key starts with.
pub const KEY_START: &str = "slk_";

/// The longest prefix or subject.
pub(super) const LONGEST: usize = 128;

impl ApiKey {
    /// The entry for a key. One that is not `slk_<prefix>_<secret>` has an empty prefix and is found by its hash alone,
    /// so keep those few.
    pub fn from_plain(plain: &str, tenant: TenantId, subject: String, scopes: Vec<String>) -> Self {
        let prefix = Self::prefix_of(plain.as_bytes()).unwrap_or_default().to_owned();
        Self { prefix, sha256: Sha256::digest(plain.as_bytes()).into(), tenant, subject, scopes }
    }

    /// The public part of `slk_<prefix>_<secret>`; `None` if the key has another form.
    pub fn prefix_of(key: &[u8]) -> Option<&str> {
        let (prefix, secret) = std::str::from_utf8(key).ok()?.strip_prefix(KEY_START)?.split_once('_')?;
        (is_prefix(prefix) && !secret.is_empty()).then_some(prefix)
    }
}

/// Whether a text can stand between `slk_` and the next underscore.
pub(super) fn is_prefix(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
}
