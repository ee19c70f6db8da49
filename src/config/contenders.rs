//! Who may ask for the same: whether a tenant, or a principal of a tenant, has others beside it.

use std::collections::{BTreeMap, BTreeSet};

use super::model::Config;
use super::names::{ServerName, TenantId};

/// Whether others may ask for what one principal asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rivals {
    /// Other tenants may.
    pub tenants: bool,
    /// Other principals of the same tenant may.
    pub principals: bool,
}

/// The tenants and principals that may ask for something, as one configuration has them. By default nobody has rivals.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contenders {
    /// The number of tenants that have credentials.
    tenants: usize,
    /// The number of those that may use each server.
    of_servers: BTreeMap<ServerName, usize>,
    /// The tenants that have several principals.
    with_several: BTreeSet<TenantId>,
}

impl Contenders {
    /// Reads the credentials and the tenants of a configuration. Any tenant can have several principals if JWTs are
    /// accepted.
    pub fn of(config: &Config) -> Self {
        let mut subjects: BTreeMap<&TenantId, BTreeSet<&str>> = BTreeMap::new();
        for key in &config.auth.keys {
            subjects.entry(&key.tenant).or_default().insert(&key.subject);
        }
        let (has_tokens, anonymous) = (config.auth.jwt.is_some(), config.auth.anonymous.as_ref());
        let principals = |tenant: &TenantId| {
            let of_keys = subjects.get(tenant).map_or(0, BTreeSet::len);
            of_keys + usize::from(anonymous == Some(tenant)) + if has_tokens { 2 } else { 0 }
        };
        let asking: Vec<_> = config.tenants.iter().filter(|(name, _)| principals(name) > 0).collect();
        let may_use = |server: &ServerName| {
            let may = |allowed: &Option<Vec<_>>| allowed.as_ref().is_none_or(|servers| servers.contains(server));
            asking.iter().filter(|(_, tenant)| may(&tenant.servers)).count()
        };
        Self {
            tenants: asking.len(),
            of_servers: config.servers.keys().map(|server| (server.clone(), may_use(server))).collect(),
            with_several: config.tenants.keys().filter(|name| principals(name) > 1).cloned().collect(),
        }
    }

    /// The rivals of a principal of this tenant for what all tenants share.
    pub fn for_all(&self, tenant: &TenantId) -> Rivals {
        Rivals { tenants: self.tenants > 1, principals: self.with_several.contains(tenant) }
    }

    /// The rivals of a principal of this tenant for what a server has. For a server that is configured no more, all
    /// tenants count.
    pub fn for_server(&self, server: &ServerName, tenant: &TenantId) -> Rivals {
        let tenants = self.of_servers.get(server).copied().unwrap_or(self.tenants);
        Rivals { tenants: tenants > 1, ..self.for_all(tenant) }
    }

    /// The rivals of a principal of this tenant for what the tenant has.
    pub fn in_tenant(&self, tenant: &TenantId) -> Rivals {
        Rivals { tenants: false, ..self.for_all(tenant) }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::config::{ApiKey, Server, Tenant};

    #[test]
    fn only_who_can_ask_is_a_rival() {
        let server = |name: &str| Server::new(name.parse().unwrap(), "nothing", Vec::new());
        let mut config = Config::for_servers([server("all"), server("one")]);
        let (acme, other): (TenantId, TenantId) = ("acme".parse().unwrap(), "other".parse().unwrap());
        let (all, one): (ServerName, ServerName) = ("all".parse().unwrap(), "one".parse().unwrap());
        let (alone, tenants) = (Rivals::default(), Rivals { tenants: true, principals: false });
        assert_eq!(
            Contenders::of(&config).for_all(&TenantId::fallback()),
            alone,
            "anonymous callers are one principal"
        );
        config.auth.anonymous = None;
        let key =
            |tenant: &TenantId, subject: &str| ApiKey::from_plain("k", tenant.clone(), subject.to_owned(), vec![]);
        config.auth.keys = vec![key(&acme, "ann"), key(&acme, "ann")];
        let servers = Some(vec![all.clone()]);
        config.tenants.insert(other.clone(), Tenant { servers, ..Tenant::default() });
        config.tenants.insert(acme.clone(), Tenant::default());
        assert_eq!(Contenders::of(&config).for_all(&acme), alone, "nobody has a credential of the others");
        config.auth.keys.push(key(&other, "eve"));
        let contenders = Contenders::of(&config);
        assert_eq!((contenders.for_all(&acme), contenders.for_server(&all, &acme)), (tenants, tenants));
        assert_eq!((contenders.for_server(&one, &acme), contenders.in_tenant(&acme)), (alone, alone));
        config.auth.keys.push(key(&acme, "bob"));
        let contenders = Contenders::of(&config);
        assert_eq!(contenders.in_tenant(&acme), Rivals { tenants: false, principals: true });
        assert_eq!(contenders.for_all(&acme), Rivals { tenants: true, principals: true });
        assert_eq!(contenders.for_all(&other), tenants);
    }
}
