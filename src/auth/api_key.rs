//! API keys: made from 256 random bits, found by a public prefix, and compared as hashes in constant time. The gateway
//! stores only hashes. The work for a check does not depend on the secret part of the key.

use std::collections::{HashMap, HashSet};
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use super::{Issuer, Principal};
use crate::config::{ApiKey, KEY_START, TenantId};
use crate::text::hex;

/// A new key. The secret can be shown only now.
#[derive(Debug)]
pub struct NewKey {
    /// The text that the client sends: `slk_<prefix>_<secret>`.
    pub wire: SecretString,
    /// The entry for the configuration, with the hash of the key.
    pub entry: ApiKey,
}

impl NewKey {
    /// Makes a key with 256 random bits. The prefix is used as the subject if `subject` is `None`, so that two keys are
    /// two principals.
    ///
    /// # Errors
    /// The operating system provides no randomness.
    pub fn generate(tenant: TenantId, subject: Option<String>, scopes: Vec<String>) -> Result<Self, getrandom::Error> {
        let (mut public, mut secret) = ([0u8; 5], [0u8; 32]);
        getrandom::fill(&mut public)?;
        getrandom::fill(&mut secret)?;
        let prefix = hex(&public);
        let wire = format!("{KEY_START}{prefix}_{}", URL_SAFE_NO_PAD.encode(secret));
        let subject = subject.unwrap_or(prefix);
        let entry = ApiKey::from_plain(&wire, tenant, subject, scopes);
        Ok(Self { wire: wire.into(), entry })
    }
}

/// The API keys of the configuration.
pub(super) struct ApiKeys {
    /// The keys by prefix.
    by_prefix: HashMap<String, Vec<Stored>>,
    /// The keys without a prefix.
    unnamed: Vec<Stored>,
    /// The entry that is compared if the prefix of a key is unknown, so that the response time does not reveal which
    /// prefixes exist. No input with this hash is known.
    absent: Stored,
    /// The principals of all keys.
    principals: HashSet<Principal>,
}

struct Stored {
    sha256: Hash,
    principal: Option<Principal>,
}

/// A SHA-256 hash in words: fewer of them than bytes are compared.
type Hash = [u64; 4];

/// The words of a hash.
fn words(hash: &[u8; 32]) -> Hash {
    let (words, _) = hash.as_chunks::<8>();
    let mut all = words.iter().copied().map(u64::from_le_bytes);
    std::array::from_fn(|_| all.next().unwrap_or_default())
}

impl ApiKeys {
    /// The keys in the given entries of the configuration.
    pub(super) fn new(entries: &[ApiKey]) -> Self {
        let (mut by_prefix, mut unnamed) = (HashMap::<String, Vec<Stored>>::new(), Vec::new());
        let mut principals = HashSet::new();
        for entry in entries {
            let principal = Principal::new(entry.tenant.clone(), Issuer::Key, &entry.subject, entry.scopes.clone());
            principals.insert(principal.clone());
            let stored = Stored { sha256: words(&entry.sha256), principal: Some(principal) };
            match entry.prefix.as_str() {
                "" => unnamed.push(stored),
                prefix => by_prefix.entry(prefix.to_owned()).or_default().push(stored),
            }
        }
        Self { by_prefix, unnamed, absent: Stored { sha256: [0; 4], principal: None }, principals }
    }

    /// Whether no key is configured.
    pub(super) fn is_empty(&self) -> bool {
        self.by_prefix.is_empty() && self.unnamed.is_empty()
    }

    /// Whether a key stands for this principal.
    pub(super) fn has(&self, principal: &Principal) -> bool {
        self.principals.contains(principal)
    }

    /// Like `find`, for a text that may be a JWT: returns at once if all configured keys have a prefix.
    pub(super) fn find_chosen(&self, key: &[u8]) -> Option<&Principal> {
        if self.unnamed.is_empty() { None } else { self.find(key) }
    }

    /// The principal of a key that a client sent. The time depends only on the public prefix of the key.
    pub(super) fn find(&self, key: &[u8]) -> Option<&Principal> {
        let hash = words(&Sha256::digest(key).into());
        let named = ApiKey::prefix_of(key).and_then(|prefix| self.by_prefix.get(prefix)).map(Vec::as_slice);
        let named = named.unwrap_or(std::slice::from_ref(&self.absent));
        // No early end: every candidate is compared, and the place of the match is kept without a branch.
        let mut place = u32::MAX;
        for (at, stored) in (0u32..).zip(named.iter().chain(&self.unnamed)) {
            let same: Choice = hash.as_slice().ct_eq(&stored.sha256);
            place.conditional_assign(&at, same);
        }
        let place = usize::try_from(place).ok()?;
        named.iter().chain(&self.unnamed).nth(place)?.principal.as_ref()
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeys").field("prefixes", &self.by_prefix.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use secrecy::ExposeSecret as _;

    use super::*;

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    #[test]
    fn a_generated_key_has_its_form_and_is_found() {
        let new = NewKey::generate(tenant("acme"), Some("ci".into()), vec!["mcp".into()]).unwrap();
        let wire = new.wire.expose_secret();
        let (prefix, secret) = wire.strip_prefix("slk_").unwrap().split_once('_').unwrap();
        assert_eq!(prefix, new.entry.prefix);
        assert_eq!(prefix.len(), 10);
        assert_eq!(URL_SAFE_NO_PAD.decode(secret).unwrap().len(), 32);
        let keys = ApiKeys::new(std::slice::from_ref(&new.entry));
        let principal = keys.find(wire.as_bytes()).unwrap();
        assert_eq!((principal.tenant(), principal.subject()), (&tenant("acme"), "ci"));
        assert_eq!(principal.scopes(), ["mcp"]);
    }

    #[test]
    fn two_keys_without_a_subject_are_two_principals() {
        let one = NewKey::generate(tenant("acme"), None, vec![]).unwrap();
        let two = NewKey::generate(tenant("acme"), None, vec![]).unwrap();
        let keys = ApiKeys::new(&[one.entry, two.entry]);
        let find = |new: &SecretString| keys.find(new.expose_secret().as_bytes()).unwrap().clone();
        assert_ne!(find(&one.wire), find(&two.wire));
    }

    #[test]
    fn a_key_that_differs_anywhere_is_unknown() {
        let new = NewKey::generate(tenant("acme"), None, vec![]).unwrap();
        let keys = ApiKeys::new(std::slice::from_ref(&new.entry));
        let wire = new.wire.expose_secret().to_owned();
        for at in 0..wire.len() {
            let mut other = wire.clone().into_bytes();
            other.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1);
            assert!(keys.find(&other).is_none(), "byte {at}");
        }
        for other in [format!("{wire}x"), wire[..wire.len() - 1].to_owned(), String::new(), "slk_".into()] {
            assert!(keys.find(other.as_bytes()).is_none());
        }
    }

    #[test]
    fn keys_of_one_prefix_and_keys_without_one_are_told_apart() {
        let entries = [
            ApiKey::from_plain("slk_aa_one", tenant("a"), "1".into(), vec![]),
            ApiKey::from_plain("slk_aa_two", tenant("b"), "2".into(), vec![]),
            ApiKey::from_plain("secret123", tenant("c"), "3".into(), vec![]),
            ApiKey::from_plain("slk_not quite", tenant("d"), "4".into(), vec![]),
            ApiKey::from_plain("sésame", tenant("e"), "5".into(), vec![]),
        ];
        assert_eq!(entries.each_ref().map(|e| e.prefix.as_str()), ["aa", "aa", "", "", ""]);
        let keys = ApiKeys::new(&entries);
        for (wire, subject) in
            [("slk_aa_one", "1"), ("slk_aa_two", "2"), ("secret123", "3"), ("slk_not quite", "4"), ("sésame", "5")]
        {
            assert_eq!(keys.find(wire.as_bytes()).unwrap().subject(), subject);
        }
        assert!(keys.find(b"slk_aa_three").is_none());
        assert!(keys.find(b"secret124").is_none());
    }

    #[test]
    fn nothing_matches_the_placeholder_or_an_empty_set() {
        let keys = ApiKeys::new(&[]);
        assert!(keys.is_empty());
        assert!(keys.find(b"slk_aa_one").is_none());
        assert!(keys.find(b"").is_none());
    }

    #[test]
    fn a_new_key_is_not_printed_by_debug() {
        let new = NewKey::generate(tenant("acme"), None, vec![]).unwrap();
        let secret = new.wire.expose_secret().splitn(3, '_').nth(2).unwrap().to_owned();
        let shown = format!("{new:?} {:?}", ApiKeys::new(std::slice::from_ref(&new.entry)));
        assert!(!shown.contains(&secret), "{shown}");
    }
}
