//! Who calls. A principal comes from a credential on every request, never from a session id.

use std::sync::Arc;

use crate::config::TenantId;

/// Who calls: tenant, subject and scopes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Principal(Arc<Fields>);

/// Where a subject comes from: it keeps those of different origins apart. A JWT cannot name itself one of the others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Issuer {
    /// An API key.
    Key,
    /// Nobody: whoever calls without a credential.
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
    /// A principal.
    pub fn new(tenant: TenantId, issuer: Issuer, subject: &str, scopes: Vec<String>) -> Self {
        Self(Arc::new(Fields { tenant, issuer, subject: subject.to_owned(), scopes }))
    }

    /// The tenant that it acts for.
    pub fn tenant(&self) -> &TenantId {
        &self.0.tenant
    }

    /// Where the subject comes from.
    pub fn issuer(&self) -> &Issuer {
        &self.0.issuer
    }

    /// The subject, unique within its issuer and tenant.
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// What it may do.
    pub fn scopes(&self) -> &[String] {
        &self.0.scopes
    }
}

/// Two principals are the same if tenant, issuer and subject are; scopes may change from token to token.
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
