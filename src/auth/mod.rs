//! Authenticates requests: turns a credential into a principal, or refuses the request. A request without a credential
//! is only accepted if the configuration makes all callers `anonymous`.

mod api_key;
mod error;
mod jwks;
mod jwt;
mod keys;
mod metadata;
mod principal;
mod proven;
mod verdicts;

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};

pub use api_key::NewKey;
pub use error::{AuthError, AuthSetupError, Invalid};
pub use metadata::{ProtectedResource, WELL_KNOWN};
pub use principal::{Issuer, Principal};
pub use proven::Proven;

use crate::config::{Auth, Jwt, KEY_START};
use api_key::ApiKeys;
use jwt::JwtVerifier;

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Query parameters in which clients are known to send credentials.
const CREDENTIAL_PARAMETERS: [&str; 12] = [
    "access_token",
    "token",
    "key",
    "api_key",
    "apikey",
    "api-key",
    "x-api-key",
    "auth",
    "auth_token",
    "authorization",
    "bearer",
    "jwt",
];

/// Authenticates requests by the rules of one configuration. Share it in an `Arc`.
#[derive(Debug)]
pub struct Authenticator {
    anonymous: Option<Principal>,
    keys: ApiKeys,
    jwt: Option<Arc<JwtVerifier>>,
}

/// A credential that has not been checked.
#[derive(Clone, Copy)]
enum Credential<'a> {
    Bearer(&'a [u8]),
    ApiKey(&'a [u8]),
}

impl Authenticator {
    /// An authenticator for a configuration. Reads the configured key files; a JWK set behind a URL is fetched when a
    /// token first needs it.
    ///
    /// # Errors
    /// A key file cannot be read or used, or the JWT settings contradict each other.
    pub fn new(config: &Auth) -> Result<Self, AuthSetupError> {
        Self::after(None, config)
    }

    /// The authenticator of a configuration that takes the place of another one. With the same settings for JWTs, a JWK
    /// set that has been fetched stays in use.
    ///
    /// # Errors
    /// As [`Authenticator::new`].
    pub fn after(previous: Option<&Self>, config: &Auth) -> Result<Self, AuthSetupError> {
        install_crypto();
        let kept = |jwt: &Jwt| previous?.jwt.as_ref().filter(|verifier| verifier.is_for(jwt)).map(Arc::clone);
        let verifier = |jwt| kept(jwt).map_or_else(|| JwtVerifier::new(jwt).map(Arc::new), Ok);
        let anonymous =
            |tenant: &crate::config::TenantId| Principal::new(tenant.clone(), Issuer::Anonymous, "anonymous", vec![]);
        Ok(Self {
            anonymous: config.anonymous.as_ref().map(anonymous),
            keys: ApiKeys::new(&config.keys),
            jwt: config.jwt.as_ref().map(verifier).transpose()?,
        })
    }

    /// Checks the credential of a request. Returns the principal and the expiry of the credential. Waits only for a
    /// fetch of JWT keys, at most 10 s.
    ///
    /// If neither API keys nor JWTs are configured, every caller is `anonymous` and a credential in a header is
    /// ignored. Otherwise the credential must be valid.
    ///
    /// # Errors
    /// See [`AuthError`]. A request without a credential gets [`AuthError::Missing`].
    pub async fn authenticate(&self, headers: &HeaderMap, query: Option<&str>) -> Result<Proven, AuthError> {
        refuse_credentials_in(query)?;
        if let Some(anonymous) = &self.anonymous
            && self.keys.is_empty()
            && self.jwt.is_none()
        {
            return Ok(Proven::for_good(anonymous.clone()));
        }
        match (credential(headers)?, &self.anonymous) {
            (None, Some(anonymous)) => Ok(Proven::for_good(anonymous.clone())),
            (None, None) => Err(AuthError::Missing),
            (Some(Credential::ApiKey(key)), _) => self.key(key),
            (Some(Credential::Bearer(token)), _) => self.bearer(token).await,
        }
    }

    /// Whether some credential can still stand for this principal: a key, a JWT of its issuer, or none for `anonymous`.
    pub fn knows(&self, principal: &Principal) -> bool {
        match principal.issuer() {
            Issuer::Key => self.keys.has(principal),
            Issuer::Anonymous => self.anonymous.as_ref() == Some(principal),
            Issuer::Token(issuer) => self.jwt.as_ref().is_some_and(|jwt| jwt.accepts_issuer(issuer)),
        }
    }

    fn key(&self, key: &[u8]) -> Result<Proven, AuthError> {
        Ok(self.keys.find(key).cloned().map(Proven::for_good).ok_or(Invalid::UnknownKey)?)
    }

    async fn bearer(&self, token: &[u8]) -> Result<Proven, AuthError> {
        let Some(jwt) = &self.jwt else { return self.key(token) };
        if token.starts_with(KEY_START.as_bytes()) {
            return self.key(token);
        }
        // A key that somebody chose may look like anything, a JWT included.
        match self.keys.find_chosen(token) {
            Some(principal) => Ok(Proven::for_good(principal.clone())),
            None => jwt.verify(std::str::from_utf8(token).map_err(|_| Invalid::NotAToken)?).await,
        }
    }
}

/// Installs the cryptography provider for JWTs. Only the first call in a process has an effect.
pub(crate) fn install_crypto() {
    // Refused only if a provider is there already, and then that one serves.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
}

fn credential(headers: &HeaderMap) -> Result<Option<Credential<'_>>, AuthError> {
    let bearer = match single(headers, &AUTHORIZATION, "several Authorization headers: send one")? {
        Some(value) => Some(bearer_token(value)?),
        None => None,
    };
    let key = single(headers, &X_API_KEY, "several X-API-Key headers: send one")?;
    match (bearer, key) {
        (None, None) => Ok(None),
        (Some([]), _) | (_, Some([])) => Err(AuthError::Malformed("the credential is empty")),
        (Some(token), None) => Ok(Some(Credential::Bearer(token))),
        (None, Some(key)) => Ok(Some(Credential::ApiKey(key))),
        (Some(token), Some(key)) if token == key => Ok(Some(Credential::ApiKey(key))),
        (Some(_), Some(_)) => {
            Err(AuthError::Malformed("Authorization and X-API-Key hold different credentials: send one"))
        }
    }
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName, several: &'static str) -> Result<Option<&'a [u8]>, AuthError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value.map(|value| value.as_bytes().trim_ascii())),
        (_, Some(_)) => Err(AuthError::Malformed(several)),
    }
}

/// The token behind the scheme `Bearer`, which may be written in any case (RFC 9110 section 11.1).
fn bearer_token(value: &[u8]) -> Result<&[u8], AuthError> {
    match value.split_at_checked(6) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"bearer") => match rest {
            [] => Ok(rest),
            [b' ' | b'\t', token @ ..] => Ok(token.trim_ascii()),
            _ => Err(AuthError::Scheme),
        },
        _ => Err(AuthError::Scheme),
    }
}

/// Refuses a query with a parameter in which clients are known to send credentials. Logs, histories and `Referer`
/// headers keep URLs, so the owner has to learn that the credential is no longer secret.
fn refuse_credentials_in(query: Option<&str>) -> Result<(), AuthError> {
    let known = |pair: &str| {
        let name = pair.split('=').next()?;
        CREDENTIAL_PARAMETERS.into_iter().find(|known| known.eq_ignore_ascii_case(name))
    };
    let found = query.and_then(|query| query.split('&').find_map(known));
    found.map_or(Ok(()), |name| Err(AuthError::InTheQuery(name)))
}

#[cfg(test)]
mod tests;
