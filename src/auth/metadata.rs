//! The OAuth 2.0 protected resource metadata document (RFC 9728 section 2), which tells a client without a token where
//! to get one. Each endpoint has its own document, whose `resource` is exactly the URL that the client uses.

use serde::Serialize;

use crate::config::Jwt;

/// The path prefix of the documents; the path of the endpoint follows (RFC 9728 section 3.1).
pub const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// The document of one endpoint, to be serialized as `application/json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProtectedResource {
    resource: String,
    authorization_servers: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    scopes_supported: Vec<String>,
    bearer_methods_supported: [&'static str; 1],
    resource_name: String,
}

impl ProtectedResource {
    /// The document for the endpoint with the absolute URL `resource`. `None` if no authorization server is configured.
    pub fn new(jwt: &Jwt, resource: &str, resource_name: &str) -> Option<Self> {
        if jwt.authorization_servers.is_empty() {
            return None;
        }
        // A resource must not list offline_access: refresh tokens are between the client and its authorization server.
        let scopes = jwt.required_scopes.iter().filter(|scope| *scope != "offline_access");
        Some(Self {
            resource: canonical(resource),
            authorization_servers: jwt.authorization_servers.clone(),
            scopes_supported: scopes.cloned().collect(),
            bearer_methods_supported: ["header"],
            resource_name: resource_name.to_owned(),
        })
    }
}

/// The canonical form of a resource URL: scheme and host in lower case, no fragment, no trailing slash.
fn canonical(resource: &str) -> String {
    match reqwest::Url::parse(resource) {
        Ok(mut url) => {
            url.set_fragment(None);
            url.as_str().trim_end_matches('/').to_owned()
        }
        Err(_) => resource.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::config::JwtKey;

    fn jwt(servers: &[&str]) -> Jwt {
        Jwt {
            required_scopes: vec!["mcp".into(), "offline_access".into()],
            authorization_servers: servers.iter().map(|s| (*s).to_owned()).collect(),
            ..Jwt::new(
                JwtKey::JwksUrl("https://id.example/jwks".into()),
                jsonwebtoken::Algorithm::RS256,
                "https://id.example",
                "sluice",
            )
        }
    }

    #[test]
    fn the_document_is_as_rfc_9728_wants_it() {
        let document =
            ProtectedResource::new(&jwt(&["https://id.example"]), "HTTPS://Gw.Example/servers/a/mcp/#x", "a").unwrap();
        assert_eq!(
            serde_json::to_value(document).unwrap(),
            serde_json::json!({
                "resource": "https://gw.example/servers/a/mcp",
                "authorization_servers": ["https://id.example"],
                "scopes_supported": ["mcp"],
                "bearer_methods_supported": ["header"],
                "resource_name": "a",
            })
        );
    }

    #[test]
    fn there_is_none_without_an_authorization_server() {
        assert_eq!(ProtectedResource::new(&jwt(&[]), "https://gw.example/mcp", "a"), None);
    }
}
