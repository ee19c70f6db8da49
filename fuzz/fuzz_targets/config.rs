//! Configurations. The lines of the input before a line `---` are variables of the environment, `NAME=VALUE`; the rest
//! is the file: `mcpServers` of a desktop client if it begins with a brace, else TOML.
//!
//! Reading never panics, and says the same twice; each problem has a place that exists, a text of one line, and advice
//! that does not end in the middle; what is accepted names only what is there.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use sluice::config::{Config, Environment, Loaded, Place, Problem, Problems};

/// A file for this process, in memory where that is possible.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let folder = folder.join(format!("sluice-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder.join("sluice.toml")
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    let (variables, file) = text.split_once("---\n").unwrap_or(("", &text));
    let variables: Environment = variables.lines().filter_map(|line| line.split_once('=')).collect();
    std::fs::write(&*FILE, file).unwrap();
    let load = || match file.starts_with('{') {
        true => Config::from_mcp_servers(&FILE, &variables),
        false => Config::load(&FILE, &variables),
    };
    let (first, again) = (load(), load());
    match (&first, &again) {
        (Ok(one), Ok(other)) => {
            assert_eq!(one.warnings, other.warnings);
            accepted(one);
        }
        (Err(one), Err(other)) => {
            assert_eq!(one, other);
            refused(one, file, &variables);
        }
        _ => panic!("read twice, accepted once"),
    }
    if let Ok(Loaded { warnings, .. }) = &first {
        warnings.iter().for_each(|warning| placed(warning, file, &variables));
    }
    let _ = std::fs::remove_file(&*FILE);
    let _ = std::fs::remove_dir(FILE.parent().unwrap());
    let _ = std::fs::create_dir(FILE.parent().unwrap());
});

fn accepted(loaded: &Loaded) {
    let config = &loaded.config;
    assert!(config.default_server.as_ref().is_none_or(|server| config.servers.contains_key(server)));
    for (name, tenant) in &config.tenants {
        let servers = tenant.servers.iter().flatten();
        assert!(servers.clone().all(|server| config.servers.contains_key(server)), "{name} has a server that is none");
    }
    assert!(config.auth.keys.iter().all(|key| config.tenants.contains_key(&key.tenant)));
    assert!(config.auth.anonymous.as_ref().is_none_or(|tenant| config.tenants.contains_key(tenant)));
    assert!(config.http.max_body > 0 && config.http.max_depth > 0 && config.sessions.max > 0);
}

fn refused(problems: &Problems, file: &str, variables: &Environment) {
    assert!(!problems.list().is_empty());
    problems.list().iter().chain(problems.warnings()).for_each(|problem| placed(problem, file, variables));
    assert_eq!(problems.to_string().lines().count(), problems.list().len());
}

fn placed(problem: &Problem, file: &str, variables: &Environment) {
    match &problem.place {
        Place::File(path, line) => {
            assert_eq!(path, &*FILE);
            let lines = file.split('\n').count();
            assert!(line.is_none_or(|line| (1..=lines).contains(&line)), "{problem}: of {lines} lines");
        }
        Place::Variable(name) => assert!(variables.get(name).is_some(), "{problem}: there is no such variable"),
    }
    assert!(!problem.text.trim().is_empty());
    let shown = problem.to_string();
    assert!(!shown.contains(|c: char| c.is_control()), "{shown:?}");
}
