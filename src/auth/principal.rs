//! The identity of a caller. A principal comes from the credential of each request, never from a session id.

use std::sync::Arc;

use crate::config::TenantId;

/// The identity of a caller: tenant, subject and scopes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Principal(Arc<Fields>);

/// The origin of a subject. Subjects of different origins are different; a JWT cannot claim to be of another origin.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Issuer {
    /// An API key.
    Key,
    /// No credential: an anonymous caller.
    Anonymous,
    /// A JWT with this `iss`.
    Token(String),
}

#[derive(Debug)]
struct Fields {
    tenant: TenantId,
    issuer: Issuer,
    subject: String,
    scopes: Vec<String>,
}

impl Principal {
    /// A principal with these attributes.
    pub fn new(tenant: TenantId, issuer: Issuer, subject: &str, scopes: Vec<String>) -> Self {
        Self(Arc::new(Fields { tenant, issuer, subject: subject.to_owned(), scopes }))
    }

    /// The holder of a key.
    #[cfg(test)]
    pub(crate) fn of_key(tenant: &str, subject: &str) -> Self {
        let tenant = tenant.parse().unwrap_or_else(|_| TenantId::fallback());
        Self::new(tenant, Issuer::Key, subject, Vec::new())
    }

    /// The tenant that the principal belongs to.
    pub fn tenant(&self) -> &TenantId {
        &self.0.tenant
    }

    /// The origin of the subject.
    pub fn issuer(&self) -> &Issuer {
        &self.0.issuer
    }

    /// The subject, unique within its issuer and tenant.
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// The parts that distinguish a principal from all others: tenant, kind of issuer, issuer, subject.
    pub fn distinction(&self) -> [&str; 4] {
        let (kind, issuer) = match self.issuer() {
            Issuer::Key => ("key", ""),
            Issuer::Anonymous => ("anonymous", ""),
            Issuer::Token(issuer) => ("token", issuer.as_str()),
        };
        [self.tenant().as_str(), kind, issuer, self.subject()]
    }

    /// The scopes that the credential grants.
    pub fn scopes(&self) -> &[String] {
        &self.0.scopes
    }
}

/// Principals are equal if tenant, issuer and subject are equal. Scopes may differ from token to token.
impl PartialEq for Principal {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.tenant == other.0.tenant && self.0.issuer == other.0.issuer && self.0.subject == other.0.subject)
    }
}

impl Eq for Principal {}

impl std::hash::Hash for Principal {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.tenant.hash(state);
        self.0.issuer.hash(state);
        self.0.subject.hash(state);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::collections::BTreeSet;

    use super::*;
    use crate::process::Owner;

    fn principal(tenant: &str, issuer: Issuer, subject: &str) -> Owner {
        Owner::principal(&Principal::new(tenant.parse().unwrap(), issuer, subject, Vec::new()))
    }

    #[test]
    fn no_two_owners_have_one_folder_and_every_name_is_one() {
        let token = |issuer: &str| Issuer::Token(issuer.to_owned());
        let owners = [
            principal("acme", Issuer::Key, "alice"),
            principal("acme", Issuer::Anonymous, "alice"),
            principal("acme", token(""), "alice"),
            principal("acme", token("key"), "alice"),
            principal("acme", token("a"), "lice"),
            principal("acme", token("al"), "ice"),
            principal("acme.alice", Issuer::Key, ""),
            principal("acme", Issuer::Key, "Alice"),
            principal("acme", Issuer::Key, "../alice"),
            principal("acme", Issuer::Key, "al/ice"),
            principal("acme", Issuer::Key, &"alice".repeat(1000)),
            principal("umbrella", Issuer::Key, "alice"),
            Owner::tenant(&"acme".parse().unwrap()),
            Owner::tenant(&"umbrella".parse().unwrap()),
            Owner::everybody(),
        ];
        let names: BTreeSet<_> = owners.iter().map(|owner| owner.name().to_lowercase()).collect();
        assert_eq!(names.len(), owners.len(), "{names:#?}");
        for name in names {
            assert!(!name.starts_with('.') && !name.contains(['/', '\0']) && name.len() < 200, "{name}");
        }
        assert_eq!(principal("acme", Issuer::Key, "alice"), principal("acme", Issuer::Key, "alice"));
    }
}
