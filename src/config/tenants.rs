//! Reads `[tenants.NAME]`: the servers that a tenant may use, and its limits.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::model::Tenant;
use super::names::{ServerName, TenantId};
use super::section::Section;
use super::server::{Isolation, Resources, Server};
use super::suggest::no_server;
use super::units::show_bytes;
use super::{memory, resources};

const MILLION: usize = 1_000_000;

/// Reads all tenants. A tenant with an invalid name is a problem, and left out.
pub(super) fn read(root: &mut Section<'_>, servers: &BTreeMap<ServerName, Arc<Server>>) -> BTreeMap<TenantId, Tenant> {
    let tenants = root.tables("tenants", |name, section| {
        let names = allowed(section, servers);
        let max_sessions = section.optional_count("max_sessions", 1..=MILLION);
        let (max_children, memory_budget, limits) = section.table("limits", |s| {
            let max_children = s.optional_count("max_children", 1..=MILLION);
            let memory_budget = memory::read_part(s);
            let limits = resources::read(s, &Resources::default());
            let may_use = |server: &&Arc<Server>| names.as_ref().is_none_or(|names| names.contains(&server.name));
            doubtful(s, &limits, &servers.values().filter(may_use).collect::<Vec<_>>());
            (max_children, memory_budget, limits)
        });
        let name = name.parse().map_err(|error: super::InvalidName| {
            section.reading.problem(&section.path, error.to_string());
        });
        Some((name.ok()?, Tenant { servers: names, max_sessions, max_children, memory_budget, limits }))
    });
    tenants.into_iter().flatten().collect()
}

/// The servers that the tenant may use. `None` if the key is absent.
fn allowed(section: &mut Section<'_>, servers: &BTreeMap<ServerName, Arc<Server>>) -> Option<Vec<ServerName>> {
    let path = section.path.key("servers");
    let texts = section.optional_strings("servers")?;
    let named = |(index, text): (usize, &String)| {
        let found = servers.keys().find(|name| name.as_str() == text).cloned();
        if found.is_none() {
            section.reading.problem(&path.index(index), no_server(text, servers));
        }
        found
    };
    Some(texts.iter().enumerate().filter_map(named).collect())
}

/// Warns of limits that apply to no child of the tenant, and of limits below those of one child of a server in
/// `servers`.
fn doubtful(section: &Section<'_>, limits: &Resources, servers: &[&Arc<Server>]) {
    if section.is_present() && !servers.is_empty() && servers.iter().all(|server| server.isolation == Isolation::Shared)
    {
        let text = "holds for no child: all servers of this tenant are shared, and those belong to nobody; limit them";
        section.reading.warning(&section.path, text);
    }
    type Key = (&'static str, fn(&Resources) -> Option<usize>, fn(usize) -> String);
    let keys: [Key; 3] = [
        ("memory", |limits| limits.memory, show_bytes),
        ("processes", |limits| limits.processes, |count| count.to_string()),
        ("cpu", |limits| limits.millicores, |share| format!("{}", share as f64 / 1000.0)),
    ];
    for (key, of, show) in keys {
        let larger = |server: &&Arc<Server>| {
            let one = of(&server.limits.resources).filter(|one| of(limits).is_some_and(|all| *one > all))?;
            Some((server.name.clone(), show(one)))
        };
        if let Some((server, one)) = servers.iter().find_map(larger) {
            let text = format!(
                "is less than a single child of {server:?} may use (servers.{server}.limits.{key}, {one}); raise it, or lower \
                 that"
            );
            section.warning(key, text);
        }
    }
}
