//! The keys for checking JWTs. A key is only used with the algorithms of its type, so that a public key cannot be used
//! as a shared secret (RFC 8725 section 3.1).

use std::path::Path;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::AuthSetupError;
use crate::config::min_secret;
use crate::jsonrpc::elements;

/// The largest key file or JWK set, in bytes.
pub(super) const MAX_BYTES: usize = 1024 * 1024;

/// The largest number of keys in a set.
const MAX_KEYS: usize = 100;

/// The largest number of keys tried for a token without a key id.
const MAX_TRIED: usize = 4;

/// The shortest RSA modulus, in characters of base64url: 2048 bits (RFC 7518 section 3.3).
const MIN_MODULUS: usize = 342;

/// A set of keys. Immutable: a newer set replaces it as a whole.
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Vec<VerifyingKey>,
    /// Whether the set is the single key of the configuration, which is used for any `kid`.
    only: bool,
}

#[derive(Debug)]
struct VerifyingKey {
    kid: Option<String>,
    kind: Kind,
    /// The algorithm (`alg`) that the set declares for the key.
    declared: Option<Algorithm>,
    key: DecodingKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Secret,
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// The result of looking for the keys for a token.
pub(super) enum Selection<'a> {
    /// Candidate keys. If any key of the set made the signature, it is one of these.
    Keys(Vec<&'a DecodingKey>),
    /// The set has the key, but not for this algorithm.
    Unfit,
    /// The set does not have the key.
    Unknown,
}

impl Kind {
    fn algorithms(self) -> &'static [Algorithm] {
        use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
        match self {
            Self::Secret => &[HS256, HS384, HS512],
            Self::Rsa => &[RS256, RS384, RS512, PS256, PS384, PS512],
            Self::P256 => &[ES256],
            Self::P384 => &[ES384],
            Self::Ed25519 => &[EdDSA],
        }
    }
}

impl KeySet {
    /// A set with the shared secret of the configuration.
    pub(super) fn secret(secret: &SecretString, algorithms: &[Algorithm]) -> Result<Self, AuthSetupError> {
        let bytes = secret.expose_secret().as_bytes();
        let least = algorithms.iter().copied().map(min_secret).max().unwrap_or_default();
        if bytes.len() < least {
            return Err(AuthSetupError::Settings(format!(
                "the secret has {} bytes and needs at least {least}: make one with `openssl rand -base64 {least}`",
                bytes.len()
            )));
        }
        Self::single(Kind::Secret, DecodingKey::from_secret(bytes), algorithms)
    }

    /// A set with the public key in a PEM file.
    pub(super) fn pem(path: &Path, algorithms: &[Algorithm]) -> Result<Self, AuthSetupError> {
        let bytes = read_bounded(path)?;
        let (kind, key) = pem_key(&bytes)
            .map_err(|problem| AuthSetupError::Key { path: path.to_owned(), problem: problem.to_owned() })?;
        Self::single(kind, key, algorithms)
    }

    fn single(kind: Kind, key: DecodingKey, algorithms: &[Algorithm]) -> Result<Self, AuthSetupError> {
        if let Some(other) = algorithms.iter().find(|algorithm| !kind.algorithms().contains(algorithm)) {
            return Err(AuthSetupError::Settings(format!(
                "the algorithm {other:?} does not fit the key, which is for {:?}: change `algorithms` or the key",
                kind.algorithms()
            )));
        }
        Ok(Self { keys: vec![VerifyingKey { kid: None, kind, declared: None, key }], only: true })
    }

    /// The usable keys of a JWK set (RFC 7517 section 5). Unusable keys (encryption, shared secrets, unknown types) are
    /// ignored, as the RFC wants. The error says why the text is not a JWK set.
    pub(super) fn jwks(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Document<'a> {
            #[serde(borrow)]
            keys: &'a RawValue,
        }
        let document: Document<'_> = serde_json::from_slice(bytes).map_err(|error| {
            format!(
                "not a JWK set (an object with the array \"keys\"): line {}, column {}",
                error.line(),
                error.column()
            )
        })?;
        let keys = document.keys.get();
        if !keys.starts_with('[') {
            return Err("not a JWK set (an object with the array \"keys\"): \"keys\" is no array".to_owned());
        }
        if elements(keys).nth(MAX_KEYS).is_some() {
            return Err(format!("more than {MAX_KEYS} keys, which is the most that are taken"));
        }
        let parsed = elements(keys).filter_map(|key| serde_json::from_str::<Jwk>(key.ok()?).ok());
        Ok(Self { keys: parsed.filter_map(|jwk| VerifyingKey::from_jwk(&jwk)).collect(), only: false })
    }

    /// Whether the set has no usable key.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys for a token with this key id and algorithm.
    pub(super) fn select(&self, kid: Option<&str>, algorithm: Algorithm) -> Selection<'_> {
        let named = |key: &&VerifyingKey| self.only || kid.is_none() || key.kid.as_deref() == kid;
        let fits = |key: &&VerifyingKey| key.fits(algorithm);
        let keys: Vec<_> = self.keys.iter().filter(named).filter(fits).map(|key| &key.key).take(MAX_TRIED).collect();
        if !keys.is_empty() {
            Selection::Keys(keys)
        } else if self.keys.iter().any(|key| named(&key)) {
            Selection::Unfit
        } else {
            Selection::Unknown
        }
    }
}

impl VerifyingKey {
    fn fits(&self, algorithm: Algorithm) -> bool {
        self.kind.algorithms().contains(&algorithm) && self.declared.is_none_or(|declared| declared == algorithm)
    }

    fn from_jwk(jwk: &Jwk) -> Option<Self> {
        let kind = match &jwk.algorithm {
            AlgorithmParameters::RSA(rsa) if rsa.n.len() >= MIN_MODULUS => Kind::Rsa,
            AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => Kind::P256,
            AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P384 => Kind::P384,
            AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => Kind::Ed25519,
            // A shared secret has no place in a published set.
            _ => return None,
        };
        let common = &jwk.common;
        let signs = common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
        let verifies = common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
        if !signs || !verifies {
            return None;
        }
        let declared = match common.key_algorithm {
            Some(declared) => Some(Algorithm::try_from(declared).ok()?),
            None => None,
        };
        let key = DecodingKey::from_jwk(jwk).ok()?;
        Some(Self { kid: common.key_id.clone(), kind, declared, key })
    }
}

/// Decodes a public key from PEM (`PUBLIC KEY` or `RSA PUBLIC KEY`).
fn pem_key(pem: &[u8]) -> Result<(Kind, DecodingKey), &'static str> {
    let text = String::from_utf8_lossy(pem);
    if text.contains("PRIVATE KEY-----") {
        return Err("this is a private key: give the public one (`openssl pkey -in FILE -pubout`)");
    }
    if text.contains("CERTIFICATE-----") {
        return Err("this is a certificate: give its public key (`openssl x509 -in FILE -pubkey -noout`)");
    }
    if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
        return match Jwk::from_decoding_key(&key, None).map(|jwk| jwk.algorithm) {
            Ok(AlgorithmParameters::RSA(rsa)) if rsa.n.len() >= MIN_MODULUS => Ok((Kind::Rsa, key)),
            Ok(_) => Err("the RSA key is too short: it needs at least 2048 bits"),
            Err(_) => Err("not a usable RSA key"),
        };
    }
    if let Ok(key) = DecodingKey::from_ec_pem(pem) {
        // The length of an uncompressed point tells the curve.
        return match key.try_get_as_bytes().map(<[u8]>::len) {
            Ok(65) => Ok((Kind::P256, key)),
            Ok(97) => Ok((Kind::P384, key)),
            _ => Err("the curve is not supported: use P-256 or P-384"),
        };
    }
    match DecodingKey::from_ed_pem(pem) {
        Ok(key) => Ok((Kind::Ed25519, key)),
        Err(_) => Err("not a public key in PEM (-----BEGIN PUBLIC KEY-----) of type RSA, EC or Ed25519"),
    }
}

/// Reads a regular file of at most [`MAX_BYTES`] bytes.
pub(super) fn read_bounded(path: &Path) -> Result<Vec<u8>, AuthSetupError> {
    crate::config::read_bounded(path, MAX_BYTES)
        .map_err(|source| AuthSetupError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_types, reason = "tests")]
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]
    use serde_json::json;

    use super::*;

    const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/keys");

    fn pem(name: &str, algorithms: &[Algorithm]) -> Result<KeySet, String> {
        KeySet::pem(&Path::new(FIXTURES).join(name), algorithms).map_err(|error| error.to_string())
    }

    fn jwk(name: &str, kid: &str, algorithm: Algorithm) -> serde_json::Value {
        let bytes = std::fs::read(Path::new(FIXTURES).join(name)).unwrap();
        let (_, key) = pem_key(&bytes).unwrap();
        let mut jwk = Jwk::from_decoding_key(&key, Some(algorithm)).unwrap();
        jwk.common.key_id = Some(kid.to_owned());
        serde_json::to_value(jwk).unwrap()
    }

    #[test]
    fn a_pem_key_is_for_the_algorithms_of_its_type_only() {
        assert!(pem("rsa.pub.pem", &[Algorithm::RS256, Algorithm::PS512]).is_ok());
        assert!(pem("p256.pub.pem", &[Algorithm::ES256]).is_ok());
        assert!(pem("p384.pub.pem", &[Algorithm::ES384]).is_ok());
        assert!(pem("ed25519.pub.pem", &[Algorithm::EdDSA]).is_ok());
        for (name, algorithm) in [
            ("rsa.pub.pem", Algorithm::HS256),
            ("rsa.pub.pem", Algorithm::ES256),
            ("p256.pub.pem", Algorithm::ES384),
            ("ed25519.pub.pem", Algorithm::RS256),
        ] {
            let error = pem(name, &[algorithm]).unwrap_err();
            assert!(error.contains(&format!("{algorithm:?} does not fit the key")), "{error}");
        }
    }

    #[test]
    fn files_that_are_no_public_keys_are_refused_with_advice() {
        assert!(pem("rsa.pem", &[Algorithm::RS256]).unwrap_err().contains("-pubout"));
        assert!(pem("README.md", &[Algorithm::RS256]).unwrap_err().contains("BEGIN PUBLIC KEY"));
        assert!(pem("absent.pem", &[Algorithm::RS256]).unwrap_err().contains("absent.pem"));
    }

    #[test]
    fn a_short_secret_is_refused_and_not_shown() {
        let error = KeySet::secret(&"tooshort".into(), &[Algorithm::HS256]).unwrap_err().to_string();
        assert!(error.contains("8 bytes") && !error.contains("tooshort"), "{error}");
        let secret = "0123456789abcdef0123456789abcdef";
        assert!(KeySet::secret(&secret.into(), &[Algorithm::RS256]).is_err());
        let set = KeySet::secret(&secret.into(), &[Algorithm::HS256]).unwrap();
        assert!(!format!("{set:?}").contains("0123456789"), "{set:?}");
    }

    #[test]
    fn a_set_keeps_what_is_of_use_and_leaves_out_the_rest() {
        let mut encryption = jwk("rsa.pub.pem", "enc", Algorithm::RS256);
        encryption["use"] = json!("enc");
        let mut signing_only = jwk("p384.pub.pem", "sign", Algorithm::ES384);
        signing_only["key_ops"] = json!(["sign"]);
        let set = json!({"keys": [
            jwk("rsa.pub.pem", "r", Algorithm::RS256),
            jwk("p256.pub.pem", "e", Algorithm::ES256),
            encryption,
            signing_only,
            {"kty": "oct", "kid": "o", "k": "AAAA", "alg": "HS256"},
            {"kty": "RSA", "kid": "weak", "n": "AQAB", "e": "AQAB"},
            {"kty": "EC", "kid": "p521", "crv": "P-521", "x": "AA", "y": "AA"},
            {"kty": "new", "kid": "n"},
            {"kid": 7},
            "nonsense",
        ]});
        let set = KeySet::jwks(set.to_string().as_bytes()).unwrap();
        assert_eq!(set.keys.iter().filter_map(|key| key.kid.as_deref()).collect::<Vec<_>>(), ["r", "e"]);
        assert!(matches!(set.select(Some("r"), Algorithm::RS256), Selection::Keys(keys) if keys.len() == 1));
        // Declared for RS256 only, and never for a shared secret.
        assert!(matches!(set.select(Some("r"), Algorithm::PS256), Selection::Unfit));
        assert!(matches!(set.select(Some("r"), Algorithm::HS256), Selection::Unfit));
        assert!(matches!(set.select(Some("o"), Algorithm::HS256), Selection::Unknown));
        assert!(matches!(set.select(None, Algorithm::ES256), Selection::Keys(keys) if keys.len() == 1));
    }

    #[test]
    fn what_is_no_set_says_so_without_its_content() {
        for text in ["", "<html>sorry</html>", "{}", "[]", "{\"keys\": {}}"] {
            let error = KeySet::jwks(text.as_bytes()).unwrap_err();
            assert!(error.contains("not a JWK set") && !error.contains("sorry"), "{error}");
        }
        let many = json!({"keys": vec![json!({}); MAX_KEYS + 1]}).to_string();
        assert!(KeySet::jwks(many.as_bytes()).unwrap_err().contains("more than 100 keys"));
        assert!(KeySet::jwks(b"{\"keys\": []}").unwrap().is_empty());
    }

    #[test]
    fn a_token_that_names_no_key_is_tried_with_a_few_at_most() {
        let keys: Vec<_> = (0..20).map(|n| jwk("p256.pub.pem", &n.to_string(), Algorithm::ES256)).collect();
        let set = KeySet::jwks(json!({ "keys": keys }).to_string().as_bytes()).unwrap();
        match set.select(None, Algorithm::ES256) {
            Selection::Keys(keys) => assert_eq!(keys.len(), MAX_TRIED),
            _ => panic!("no keys"),
        }
    }
}
