//! JWTs (RFC 7519) as access tokens: checks signature, `iss`, `aud`, `exp` and `nbf` by the rules of RFC 8725, and maps
//! the configured claims to a principal. A token cannot influence how, or with which keys, it is checked.
#![expect(clippy::disallowed_types, reason = "the claims of a token, which is 16 KiB long at most")]

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, get_current_timestamp};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::jwks::{JwksFile, JwksUrl};
use super::keys::{KeySet, Selection};
use super::verdicts::Verdicts;
use super::{AuthError, AuthSetupError, Invalid, Issuer, Principal, Proven};
use crate::config::{Jwt, JwtKey, min_secret};

/// The longest token, in bytes.
const MAX_TOKEN: usize = 16 * 1024;

/// The longest subject, in bytes. Subjects appear in log lines and map keys.
const MAX_SUBJECT: usize = 256;

type Claims = Map<String, Value>;

/// Checks tokens by the configured rules.
pub(super) struct JwtVerifier {
    rules: Jwt,
    /// The validation rules for each accepted algorithm.
    validations: Vec<(Algorithm, Validation)>,
    source: Source,
    verdicts: Verdicts,
}

enum Source {
    Fixed(Arc<KeySet>),
    File(Arc<JwksFile>),
    Url(Arc<JwksUrl>),
}

/// The members of the header that are read before the signature is checked. `jku`, `jwk`, `x5u` and `x5c` are ignored:
/// a token must not choose its keys.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<Value>,
}

impl JwtVerifier {
    /// A verifier for the configured rules. Reads the key file, if one is configured.
    pub(super) fn new(config: &Jwt) -> Result<Self, AuthSetupError> {
        let algorithms = config.algorithms.as_slice();
        let published = matches!(config.key, JwtKey::JwksFile(_) | JwtKey::JwksUrl(_));
        if let Some(algorithm) = algorithms.iter().find(|algorithm| published && min_secret(**algorithm) > 0) {
            return Err(AuthSetupError::Settings(format!(
                "{algorithm:?} needs a shared secret, and a JWK set has public keys only: take it out of `algorithms`"
            )));
        }
        let source = match &config.key {
            JwtKey::Secret(secret) => Source::Fixed(Arc::new(KeySet::secret(secret, algorithms)?)),
            JwtKey::Pem(path) => Source::Fixed(Arc::new(KeySet::pem(path, algorithms)?)),
            JwtKey::JwksFile(path) => Source::File(JwksFile::open(path)?),
            JwtKey::JwksUrl(url) => Source::Url(JwksUrl::new(url)?),
        };
        let validations = algorithms.iter().map(|algorithm| (*algorithm, validation(config, *algorithm))).collect();
        Ok(Self { rules: config.clone(), validations, source, verdicts: Verdicts::default() })
    }

    /// Whether this verifier does what the settings say, and reads its keys again when they change.
    pub(super) fn is_for(&self, config: &Jwt) -> bool {
        matches!(self.source, Source::File(_) | Source::Url(_)) && self.rules == *config
    }

    /// Whether tokens of this issuer (`iss`) are accepted.
    pub(super) fn accepts_issuer(&self, issuer: &str) -> bool {
        self.rules.issuers.iter().any(|accepted| accepted == issuer)
    }

    /// Checks a token. Returns its principal and its expiry.
    pub(super) async fn verify(&self, token: &str) -> Result<Proven, AuthError> {
        if token.len() > MAX_TOKEN {
            return Err(Invalid::TooLong.into());
        }
        let hash = Verdicts::hash(token);
        let now = get_current_timestamp();
        if let Some(proven) = self.verdicts.get(&hash, now) {
            return Ok(proven);
        }
        let header = read_header(token)?;
        let (algorithm, validation) = self.accepted(&header)?;
        let kid = header.kid.as_deref();
        let keys = self.keys(kid, algorithm).await?;
        let claims = match keys.select(kid, algorithm) {
            Selection::Keys(keys) => check(token, &keys, validation)?,
            Selection::Unfit => return Err(Invalid::Algorithm.into()),
            Selection::Unknown => return Err(Invalid::UnknownKid.into()),
        };
        let principal = self.principal(&claims)?;
        let missing = |scope: &String| !principal.scopes().contains(scope);
        if self.rules.required_scopes.iter().any(missing) {
            return Err(AuthError::InsufficientScope { required: self.rules.required_scopes.clone() });
        }
        let exp = claims.get("exp");
        // It has been checked, and may have a fraction: the cast keeps within bounds.
        let ends = exp.and_then(Value::as_f64).map_or(now, |exp| exp.ceil() as u64);
        let proven = Proven::until(principal, ends.saturating_add(self.rules.leeway.as_secs()));
        // An `exp` with a fraction is good, and simply not remembered.
        self.verdicts.put(hash, proven.clone(), now, exp.and_then(Value::as_u64).unwrap_or(now));
        Ok(proven)
    }

    /// Checks the header without a key. Returns the algorithm and its validation rules.
    fn accepted(&self, header: &Header) -> Result<(Algorithm, &Validation), Invalid> {
        let (algorithm, validation) = header
            .alg
            .parse()
            .ok()
            .and_then(|alg: Algorithm| self.validations.iter().find(|(accepted, _)| *accepted == alg))
            .ok_or(Invalid::Algorithm)?;
        // Explicit types keep tokens for other purposes out (RFC 8725 section 3.11, RFC 9068 section 4); extensions
        // that must be understood are not (RFC 7515 section 4.1.11).
        let typ = header.typ.as_deref().unwrap_or("jwt").to_ascii_lowercase();
        let typ = typ.strip_prefix("application/").unwrap_or(&typ);
        if header.crit.is_some() || !matches!(typ, "jwt" | "at+jwt") {
            return Err(Invalid::Kind);
        }
        Ok((*algorithm, validation))
    }

    async fn keys(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Arc<KeySet>, AuthError> {
        match &self.source {
            Source::Fixed(keys) => Ok(Arc::clone(keys)),
            Source::File(file) => file.get().await,
            Source::Url(url) => url.get(|keys| !matches!(keys.select(kid, algorithm), Selection::Unknown)).await,
        }
    }

    fn principal(&self, claims: &Claims) -> Result<Principal, Invalid> {
        let unusable = |claim: &str| Invalid::Claim(claim.to_owned());
        let issuer = claims.get("iss").and_then(Value::as_str).ok_or_else(|| unusable("iss"))?;
        let find = |path: &str| find(claims, path);
        let tenant = find(&self.rules.tenant_claim)?.and_then(Value::as_str);
        let tenant = tenant.and_then(|name| name.parse().ok()).ok_or_else(|| unusable(&self.rules.tenant_claim))?;
        let subject = find(&self.rules.subject_claim)?.and_then(Value::as_str);
        let subject = subject
            .filter(|subject| (1..=MAX_SUBJECT).contains(&subject.len()) && !subject.contains(char::is_control))
            .ok_or_else(|| unusable(&self.rules.subject_claim))?;
        let scopes = scopes(find(&self.rules.scope_claim)?).ok_or_else(|| unusable(&self.rules.scope_claim))?;
        Ok(Principal::new(tenant, Issuer::Token(issuer.to_owned()), subject, scopes))
    }
}

impl fmt::Debug for JwtVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtVerifier").field("key", &self.rules.key).finish_non_exhaustive()
    }
}

fn validation(config: &Jwt, algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    validation.set_issuer(&config.issuers);
    validation.set_audience(&config.audiences);
    validation.validate_nbf = true;
    validation.leeway = config.leeway.as_secs();
    validation
}

fn read_header(token: &str) -> Result<Header, Invalid> {
    let (header, rest) = token.split_once('.').ok_or(Invalid::NotAToken)?;
    if rest.split('.').count() != 2 {
        return Err(Invalid::NotAToken);
    }
    let json = URL_SAFE_NO_PAD.decode(header).map_err(|_| Invalid::NotAToken)?;
    serde_json::from_slice(&json).map_err(|_| Invalid::NotAToken)
}

/// Checks the signature and the registered claims with the first of `keys` that verifies the signature.
fn check(token: &str, keys: &[&DecodingKey], validation: &Validation) -> Result<Claims, Invalid> {
    for key in keys {
        match decode::<Claims>(token, key, validation) {
            Ok(data) => return Ok(data.claims),
            Err(error) => match error.into_kind() {
                ErrorKind::InvalidSignature => {}
                ErrorKind::ExpiredSignature => return Err(Invalid::Expired),
                ErrorKind::ImmatureSignature => return Err(Invalid::NotYetValid),
                ErrorKind::InvalidIssuer => return Err(Invalid::Issuer),
                ErrorKind::InvalidAudience => return Err(Invalid::Audience),
                ErrorKind::InvalidAlgorithm => return Err(Invalid::Algorithm),
                ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => {
                    return Err(Invalid::Claim(claim));
                }
                _ => return Err(Invalid::NotAToken),
            },
        }
    }
    Err(Invalid::Signature)
}

/// The claim at a dotted path. Each dot may separate an object from its member or be part of a name, because names may
/// be URLs. A path that leads to different values is an error: a party that can add claims in one form must not
/// override claims in the other.
fn find<'a>(claims: &'a Claims, path: &str) -> Result<Option<&'a Value>, Invalid> {
    let mut found = Vec::new();
    readings(claims, path, &mut found);
    match found.split_first() {
        None => Ok(None),
        Some((first, others)) if others.iter().all(|other| other == first) => Ok(Some(first)),
        Some(_) => Err(Invalid::Claim(path.to_owned())),
    }
}

/// Collects all claims that a dotted path may mean, at most one per object along the path.
fn readings<'a>(claims: &'a Claims, path: &str, found: &mut Vec<&'a Value>) {
    found.extend(claims.get(path));
    for (at, _) in path.match_indices('.') {
        let (name, rest) = (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default());
        if let Some(Value::Object(inner)) = claims.get(name) {
            readings(inner, rest, found);
        }
    }
}

/// The scopes in a claim: a string with spaces (RFC 8693 section 4.2) or an array of strings. Empty if the claim is
/// absent, `None` if it has another type.
fn scopes(claim: Option<&Value>) -> Option<Vec<String>> {
    match claim {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::String(text)) => Some(text.split_whitespace().map(str::to_owned).collect()),
        Some(Value::Array(all)) => all.iter().map(|scope| scope.as_str().map(str::to_owned)).collect(),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests;
