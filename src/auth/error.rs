//! Authentication errors and their HTTP form (RFC 6750 section 3, RFC 9728 section 5.1). No message contains a part of
//! a credential.

use std::time::Duration;

use std::path::PathBuf;

use http::{HeaderValue, StatusCode};

/// The reason why a request has no principal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The request has no credential.
    #[error("no credential: send \"Authorization: Bearer <key or token>\" or \"X-API-Key: <key>\"")]
    Missing,
    /// The `Authorization` header has another scheme than `Bearer`.
    #[error("this Authorization scheme is not supported: use \"Authorization: Bearer <key or token>\"")]
    Scheme,
    /// The request has contradictory credentials, or an empty one.
    #[error("{0}")]
    Malformed(&'static str),
    /// The URL contains a credential, which logs and histories would keep.
    #[error(
        "the query parameter \"{0}\" looks like a credential, and credentials are not taken from URLs: use the \
         Authorization header"
    )]
    InTheQuery(&'static str),
    /// The credential is not valid.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// The credential is valid, but does not have the scopes that are needed.
    #[error("the credential lacks a scope: needed are {}", .required.join(" "))]
    InsufficientScope {
        /// All scopes that are needed.
        required: Vec<String>,
    },
    /// The keys for checking tokens cannot be loaded, and no cached keys can be used. They are tried again after the given
    /// time.
    #[error("the keys that tokens are checked with cannot be fetched at the moment: try again shortly")]
    KeysUnavailable(Duration),
}

/// The reason why a credential is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The API key is unknown.
    #[error("the API key is unknown")]
    UnknownKey,
    /// The credential is neither an API key nor a JWT.
    #[error("the bearer token is neither an API key of this gateway nor a JWT that it can read")]
    NotAToken,
    /// The token is longer than 16 KiB.
    #[error("the token is too long")]
    TooLong,
    /// The JWT has another purpose, or requires extensions that the gateway does not know.
    #[error("the token is of a kind that is not for access (its header has another typ, or crit)")]
    Kind,
    /// The algorithm in the header (`alg`) is not allowed, or does not fit the key.
    #[error("the token's signature algorithm is not accepted here")]
    Algorithm,
    /// The key id in the header (`kid`) belongs to no known key.
    #[error("the token is signed with a key that is not known here")]
    UnknownKid,
    /// The signature does not match.
    #[error("the token's signature is wrong")]
    Signature,
    /// The expiry time (`exp`) has passed.
    #[error("the token is expired: get a new one")]
    Expired,
    /// The start time (`nbf`) is in the future.
    #[error("the token is not valid yet: check the clocks")]
    NotYetValid,
    /// The issuer (`iss`) is not configured.
    #[error("the token's issuer (iss) is not accepted here")]
    Issuer,
    /// The audience (`aud`) does not contain the gateway.
    #[error("the token is meant for another audience (aud)")]
    Audience,
    /// The claim with this name is missing or has the wrong type. The name comes from the configuration or the RFC.
    #[error("the token's claim \"{0}\" is missing or unusable")]
    Claim(String),
}

impl AuthError {
    /// The HTTP status of the response: 400, 401, 403 or 503.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Missing | Self::Scheme | Self::Invalid(_) => StatusCode::UNAUTHORIZED,
            Self::Malformed(_) | Self::InTheQuery(_) => StatusCode::BAD_REQUEST,
            Self::InsufficientScope { .. } => StatusCode::FORBIDDEN,
            Self::KeysUnavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The time after which the caller may try again, in seconds, at least 1; `None` if the credential is at fault.
    pub fn retry_after(&self) -> Option<u64> {
        let Self::KeysUnavailable(wait) = self else { return None };
        Some((wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1))
    }

    /// The error as a word for metrics and logs, from a fixed set.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Scheme => "scheme",
            Self::Malformed(_) => "malformed",
            Self::InTheQuery(_) => "in_the_query",
            Self::InsufficientScope { .. } => "scope",
            Self::KeysUnavailable(_) => "keys_unavailable",
            Self::Invalid(invalid) => match invalid {
                Invalid::UnknownKey => "unknown_key",
                Invalid::NotAToken => "not_a_token",
                Invalid::TooLong => "too_long",
                Invalid::Kind => "kind",
                Invalid::Algorithm => "algorithm",
                Invalid::UnknownKid => "unknown_kid",
                Invalid::Signature => "signature",
                Invalid::Expired => "expired",
                Invalid::NotYetValid => "not_yet_valid",
                Invalid::Issuer => "issuer",
                Invalid::Audience => "audience",
                Invalid::Claim(_) => "claim",
            },
        }
    }

    /// The `WWW-Authenticate` challenge. `None` if the client is not at fault.
    ///
    /// The challenge has an error code only if the request had a credential (RFC 6750 section 3.1). `resource_metadata`
    /// is the URL of the RFC 9728 document, `scope` the scopes that the resource needs; scopes that the error itself
    /// names take precedence.
    pub fn www_authenticate(&self, resource_metadata: Option<&str>, scope: Option<&str>) -> Option<HeaderValue> {
        let error = match self {
            Self::Missing | Self::Scheme => None,
            Self::Malformed(_) | Self::InTheQuery(_) => Some("invalid_request"),
            Self::Invalid(_) => Some("invalid_token"),
            Self::InsufficientScope { .. } => Some("insufficient_scope"),
            Self::KeysUnavailable(_) => return None,
        };
        let mut challenge = "Bearer realm=\"sluice\"".to_owned();
        if let Some(error) = error {
            parameter(&mut challenge, "error", error);
            parameter(&mut challenge, "error_description", &self.to_string());
        }
        match (self, scope) {
            (Self::InsufficientScope { required }, _) => parameter(&mut challenge, "scope", &required.join(" ")),
            (_, Some(scope)) => parameter(&mut challenge, "scope", scope),
            (_, None) => {}
        }
        if let Some(url) = resource_metadata {
            parameter(&mut challenge, "resource_metadata", url);
        }
        HeaderValue::try_from(challenge).ok()
    }
}

/// Appends `, name="value"`. Characters that RFC 6750 section 3 forbids between the quotes become apostrophes.
fn parameter(challenge: &mut String, name: &str, value: &str) {
    let is_allowed = |c: char| matches!(c, ' '..='~') && c != '"' && c != '\\';
    challenge.push_str(&format!(", {name}=\"{}\"", value.replace(|c| !is_allowed(c), "'")));
}

/// The reason why the configured authentication cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum AuthSetupError {
    /// A key file cannot be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// The path of the key file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A key file contains no usable key.
    #[error("{}: {problem}", .path.display())]
    Key {
        /// The path of the key file.
        path: PathBuf,
        /// The fault, and what to do about it.
        problem: String,
    },
    /// The settings of `auth.jwt` contradict each other.
    #[error("auth.jwt: {0}")]
    Settings(String),
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn challenge(error: &AuthError) -> String {
        error.www_authenticate(Some("https://h/m"), Some("mcp")).unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn an_error_code_is_given_only_where_a_credential_was() {
        let plain = "Bearer realm=\"sluice\", scope=\"mcp\", resource_metadata=\"https://h/m\"";
        assert_eq!(challenge(&AuthError::Missing), plain);
        assert_eq!(challenge(&AuthError::Scheme), plain);
        let expired = challenge(&Invalid::Expired.into());
        assert!(expired.contains("error=\"invalid_token\""), "{expired}");
        assert!(expired.contains("error_description=\"the token is expired"), "{expired}");
        assert_eq!(AuthError::KeysUnavailable(Duration::ZERO).www_authenticate(None, None), None);
    }

    #[test]
    fn missing_scopes_are_all_in_the_challenge() {
        let error = AuthError::InsufficientScope { required: vec!["mcp:read".into(), "mcp:call".into()] };
        assert_eq!(error.status(), StatusCode::FORBIDDEN);
        let text = challenge(&error);
        assert!(text.contains("error=\"insufficient_scope\""), "{text}");
        assert!(text.contains("scope=\"mcp:read mcp:call\""), "{text}");
        assert!(!text.contains("scope=\"mcp\""), "{text}");
    }

    #[test]
    fn quotes_and_line_breaks_cannot_leave_their_parameter() {
        let text = AuthError::Missing.www_authenticate(Some("x\", evil=\"\\\r\ny"), None).unwrap();
        assert_eq!(text.to_str().unwrap(), "Bearer realm=\"sluice\", resource_metadata=\"x', evil=''''y\"");
        let claim = AuthError::from(Invalid::Claim("a".into())).www_authenticate(None, None).unwrap();
        assert!(claim.to_str().unwrap().contains("claim 'a' is"), "{claim:?}");
    }

    #[test]
    fn statuses_follow_rfc_6750() {
        assert_eq!(AuthError::Missing.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(AuthError::InTheQuery("token").status(), StatusCode::BAD_REQUEST);
        assert_eq!(AuthError::Malformed("x").status(), StatusCode::BAD_REQUEST);
        assert_eq!(AuthError::from(Invalid::Signature).status(), StatusCode::UNAUTHORIZED);
        assert_eq!(AuthError::KeysUnavailable(Duration::ZERO).status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
