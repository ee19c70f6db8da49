//! Why a request has no principal, and how that is told over HTTP (RFC 6750 section 3, RFC 9728 section 5.1). No message
//! ever holds a part of a credential.

use std::path::PathBuf;

use http::{HeaderValue, StatusCode};

/// Why a request has no principal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No credential at all.
    #[error("no credential: send \"Authorization: Bearer <key or token>\" or \"X-API-Key: <key>\"")]
    Missing,
    /// An `Authorization` header of another scheme.
    #[error("this Authorization scheme is not supported: use \"Authorization: Bearer <key or token>\"")]
    Scheme,
    /// Credentials that contradict each other, or an empty one.
    #[error("{0}")]
    Malformed(&'static str),
    /// A credential in the URL, where logs and histories keep it.
    #[error(
        "the query parameter \"{0}\" looks like a credential, and credentials are not taken from URLs: use the \
         Authorization header"
    )]
    InTheQuery(&'static str),
    /// A credential that does not hold.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// A good credential that may not do this.
    #[error("the credential lacks a scope: needed are {}", .required.join(" "))]
    InsufficientScope {
        /// All the scopes that are needed.
        required: Vec<String>,
    },
    /// The keys that tokens are checked with cannot be had, and none are cached.
    #[error("the keys that tokens are checked with cannot be fetched at the moment: try again shortly")]
    KeysUnavailable,
}

/// Why a credential does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// No such API key.
    #[error("the API key is unknown")]
    UnknownKey,
    /// Neither an API key nor a JWT.
    #[error("the bearer token is neither an API key of this gateway nor a JWT that it can read")]
    NotAToken,
    /// Longer than any token has reason to be.
    #[error("the token is too long")]
    TooLong,
    /// A JWT for another purpose, or with extensions that must be understood.
    #[error("the token is of a kind that is not for access (its header has another typ, or crit)")]
    Kind,
    /// The header's `alg` is not on the list, or does not fit the key.
    #[error("the token's signature algorithm is not accepted here")]
    Algorithm,
    /// The header's `kid` names no known key.
    #[error("the token is signed with a key that is not known here")]
    UnknownKid,
    /// The signature is wrong.
    #[error("the token's signature is wrong")]
    Signature,
    /// `exp` has passed.
    #[error("the token is expired: get a new one")]
    Expired,
    /// `nbf` is still to come.
    #[error("the token is not valid yet: check the clocks")]
    NotYetValid,
    /// `iss` is not on the list.
    #[error("the token's issuer (iss) is not accepted here")]
    Issuer,
    /// `aud` names others only.
    #[error("the token is meant for another audience (aud)")]
    Audience,
    /// A claim is not there or of the wrong type; its name comes from the configuration or the RFC.
    #[error("the token's claim \"{0}\" is missing or unusable")]
    Claim(String),
}

impl AuthError {
    /// The HTTP status: 400, 401, 403 or 503.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Missing | Self::Scheme | Self::Invalid(_) => StatusCode::UNAUTHORIZED,
            Self::Malformed(_) | Self::InTheQuery(_) => StatusCode::BAD_REQUEST,
            Self::InsufficientScope { .. } => StatusCode::FORBIDDEN,
            Self::KeysUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// A word for metrics and logs, out of a fixed set.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Scheme => "scheme",
            Self::Malformed(_) => "malformed",
            Self::InTheQuery(_) => "in_the_query",
            Self::InsufficientScope { .. } => "scope",
            Self::KeysUnavailable => "keys_unavailable",
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

    /// The `WWW-Authenticate` challenge; `None` where the fault is not the client's.
    ///
    /// An error code is there only if a credential was (RFC 6750 section 3.1). `resource_metadata` is the URL of the
    /// RFC 9728 document, `scope` what the resource needs; a missing scope that the error knows of goes before it.
    pub fn www_authenticate(&self, resource_metadata: Option<&str>, scope: Option<&str>) -> Option<HeaderValue> {
        let error = match self {
            Self::Missing | Self::Scheme => None,
            Self::Malformed(_) | Self::InTheQuery(_) => Some("invalid_request"),
            Self::Invalid(_) => Some("invalid_token"),
            Self::InsufficientScope { .. } => Some("insufficient_scope"),
            Self::KeysUnavailable => return None,
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

/// Appends `, name="value"`. What RFC 6750 section 3 does not allow between the quotes becomes an apostrophe.
fn parameter(challenge: &mut String, name: &str, value: &str) {
    challenge.push_str(", ");
    challenge.push_str(name);
    challenge.push_str("=\"");
    challenge.extend(value.chars().map(|c| if matches!(c, ' '..='~') && c != '"' && c != '\\' { c } else { '\'' }));
    challenge.push('"');
}

/// Why the gateway cannot check credentials as it is configured to.
#[derive(Debug, thiserror::Error)]
pub enum AuthSetupError {
    /// A key file cannot be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A key file is of no use.
    #[error("{}: {problem}", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// The settings of `auth.jwt` do not fit each other.
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
        assert_eq!(AuthError::KeysUnavailable.www_authenticate(None, None), None);
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
        assert_eq!(AuthError::KeysUnavailable.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
