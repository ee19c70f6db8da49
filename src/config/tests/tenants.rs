//! `[tenants.NAME.limits]`.

use std::time::Duration;

use super::*;
use crate::config::Resources;

const START: &str = "[auth]\nanonymous='a'\n[servers.s]\ncommand='sh'\nlimits.memory='1GiB'\nlimits.cpu=2\n[servers.all]\ncommand='sh'\nisolation='shared'\n";

#[test]
fn a_tenant_has_limits_of_its_own() {
    let config = valid(&format!(
        "{START}[tenants.a]\n[tenants.b.limits]\nmemory='2GiB'\ncpu=2.5\nprocesses=10\nopen_files=64\nfile_size='1MiB'\n\
         cpu_time='1m'\nmax_children=4\n"
    ));
    assert_eq!((config.tenants["a"].limits.clone(), config.tenants["a"].max_children), (Resources::default(), None));
    let limits = Resources {
        memory: Some(2 << 30),
        millicores: Some(2500),
        cpu_time: Some(Duration::from_secs(60)),
        processes: Some(10),
        open_files: Some(64),
        file_size: Some(1 << 20),
    };
    assert_eq!((config.tenants["b"].limits.clone(), config.tenants["b"].max_children), (limits, Some(4)));
}

#[test]
fn what_contradicts_is_said() {
    let text = format!(
        "{START}[tenants.a.limits]\nmemory='512MiB'\ncpu=2\n[tenants.b]\nservers=['all']\nlimits.processes=4\n"
    );
    let warnings = load(&text).unwrap().warnings;
    let found: Vec<_> = warnings.iter().map(|warning| (place(warning), warning.text.clone())).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0].0, "11 tenants.a.limits.memory");
    assert!(
        found[0].1.contains("less than a single child of \"s\" may use (servers.s.limits.memory, 1GiB)"),
        "{found:?}"
    );
    assert_eq!(found[1].0, "15 tenants.b.limits");
    assert!(found[1].1.contains("holds for no child"), "{found:?}");
    let wrong = load(&format!("{START}[tenants.a.limits]\nmax_children=0\nprocesses=0\nmemry='1GiB'\n")).unwrap_err();
    let keys: Vec<_> = wrong.list().iter().map(place).collect();
    assert_eq!(
        keys,
        ["11 tenants.a.limits.max_children", "12 tenants.a.limits.processes", "13 tenants.a.limits.memry"]
    );
}

#[test]
fn a_budget_that_other_limits_contradict_is_warned_of() {
    let config = valid(&format!("[limits]\nmemory_budget='1GiB'\n{START}[tenants.a.limits]\nmemory_budget='100MiB'\n"));
    assert_eq!((config.memory_budget, config.tenants["a"].memory_budget), (1 << 30, Some(100 << 20)));
    let warnings = |text: &str| {
        let warnings = load(text).unwrap().warnings;
        warnings.iter().map(|warning| (place(warning), warning.text.clone())).collect::<Vec<_>>()
    };
    let few = warnings(&format!("[limits]\nmemory_budget='64MiB'\n{START}[tenants.a.limits]\nmemory_budget='8MiB'\n"));
    assert_eq!(
        [few[0].0.as_str(), &few[1].0],
        ["2 limits.memory_budget", "13 tenants.a.limits.memory_budget"],
        "{few:?}"
    );
    assert!(
        few[0].1.contains("24MiB of the 64MiB at most, which is less than servers.all.limits.stdin_queue (32MiB)"),
        "{few:?}"
    );
    assert!(few[1].1.contains("8MiB is less than http.max_body (16MiB)"), "{few:?}");
    let much =
        warnings(&format!("[limits]\nmemory_budget='1GiB'\n{START}[tenants.a.limits]\nmemory_budget='512MiB'\n"));
    assert!(much[0].1.contains("512MiB is more than one tenant can hold of limits.memory_budget (384MiB)"), "{much:?}");
}
