//! Reads `[tenants.NAME]`: who pays, for what, and how much of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::model::Tenant;
use super::names::{ServerName, TenantId};
use super::resources;
use super::section::Section;
use super::server::{Isolation, Resources, Server};
use super::suggest::no_server;
use super::units::show_bytes;

const MILLION: usize = 1_000_000;

/// Reads `[tenants.*]`.
pub(super) fn read(
    sections: Vec<(String, Section<'_>)>,
    servers: &BTreeMap<ServerName, Arc<Server>>,
) -> BTreeMap<TenantId, Tenant> {
    let mut tenants = BTreeMap::new();
    for (name, mut section) in sections {
        let names = allowed(&mut section, servers);
        let max_sessions = section.optional_count("max_sessions", 1..=MILLION);
        let mut s = section.section("limits");
        let max_children = s.optional_count("max_children", 1..=MILLION);
        let limits = resources::read(&mut s, &Resources::default());
        let theirs = |server: &&Arc<Server>| names.as_ref().is_none_or(|names| names.contains(&server.name));
        doubtful(&s, &limits, &servers.values().filter(theirs).collect::<Vec<_>>());
        s.finish();
        match name.parse::<TenantId>() {
            Ok(name) => {
                tenants.insert(name, Tenant { servers: names, max_sessions, max_children, limits });
            }
            Err(error) => section.reading.problem(&section.path, error.to_string()),
        }
        section.finish();
    }
    tenants
}

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

/// Warns of limits that do something else than it seems.
fn doubtful(section: &Section<'_>, limits: &Resources, servers: &[&Arc<Server>]) {
    if section.is_present() && !servers.is_empty() && servers.iter().all(|server| server.isolation == Isolation::Shared)
    {
        let text = "holds for no child: all servers of this tenant are shared, and those belong to nobody; limit them";
        section.reading.warning(&section.path, text);
    }
    let count = |count: usize| count.to_string();
    let share = |millicores: usize| format!("{}", millicores as f64 / 1000.0);
    for (key, of, show) in [
        (
            "memory",
            (|limits| limits.memory) as fn(&Resources) -> Option<usize>,
            &show_bytes as &dyn Fn(usize) -> String,
        ),
        ("processes", |limits| limits.processes, &count),
        ("cpu", |limits| limits.millicores, &share),
    ] {
        let larger =
            |server: &&&Arc<Server>| of(limits).zip(of(&server.limits.resources)).is_some_and(|(all, one)| one > all);
        if let Some(server) = servers.iter().find(larger)
            && let Some(one) = of(&server.limits.resources)
        {
            let text = format!(
                "is less than a single child of {0:?} may use (servers.{0}.limits.{key}, {1}); raise it, or lower that",
                server.name,
                show(one)
            );
            section.warning(key, text);
        }
    }
}
