//! Reads `[servers.NAME]` and `[limits]`. The environment of a child is made here; only `TMPDIR` is set later, to its
//! private temporary folder.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use super::names::ServerName;
use super::pool;
use super::program::SELF;
use super::sandbox::{Sandbox, SandboxMode};
use super::section::Section;
use super::server::{CHILD_PATH, ChildLimits, Isolation, PoolMode, Server, TempLimits};
use super::shown::shown_name;
use super::{resources, sandbox, tools};

const MS: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
const TEN_MINUTES: Duration = Duration::from_secs(600);
const KIB: usize = 1 << 10;
const GIB: usize = 1 << 30;

/// Reads all servers. A server with an invalid name is a problem, and left out. `limits` and `sandbox` hold for a
/// server that says nothing else.
pub(super) fn read(
    root: &mut Section<'_>,
    limits: &ChildLimits,
    sandbox: &Sandbox,
) -> BTreeMap<ServerName, Arc<Server>> {
    let servers = root.tables("servers", |name, section| match name.parse::<ServerName>() {
        Ok(name) => Some((name.clone(), Arc::new(server(name, section, limits, sandbox)))),
        Err(error) => {
            section.reading.problem(&section.path, error.to_string());
            section.ignore();
            None
        }
    });
    servers.into_iter().flatten().collect()
}

fn server(name: ServerName, s: &mut Section<'_>, limits: &ChildLimits, sandbox: &Sandbox) -> Server {
    if s.is_present() && !s.has("command") {
        s.problem("command", "missing; give the program to start, such as command = \"npx\"");
    }
    let isolation = s.choice("isolation", Isolation::Session, &Isolation::WORDS);
    let mut server = Server {
        command: s.nonempty("command").unwrap_or_default(),
        args: s.strings("args"),
        cwd: folder(s, "cwd"),
        workspace: folder(s, "workspace"),
        env: child_environment(s),
        isolation,
        limits: s.table("limits", |section| read_limits(section, limits)),
        sandbox: sandbox::read(s, sandbox),
        pool: s.table("pool", |section| pool::read(section, isolation)),
        restart: s.table("restart", pool::read_restart),
        tools: tools::read(s),
        keep_children: s.flag("keep_children").unwrap_or(false),
        ..Server::new(name, "", Vec::new())
    };
    if server.command.contains('/') {
        server.command = s.reading.source.folder().join(&server.command).to_string_lossy().into_owned();
    }
    workspace(s, &server);
    without_cwd(s, &server);
    if !server.command.is_empty() && server.program().is_none() {
        let elsewhere = s.reading.environment.get("PATH").and_then(|path| server.program_in(path));
        let hint = format!("install it, write its full path, or give PATH in env (\"{SELF}\" is this program itself)");
        s.warning("command", not_found(&server, elsewhere, &hint));
    }
    server
}

/// The text of the warning that there is no program with the name of `command`, with advice: `hint` if nothing better
/// is known. `elsewhere` is the program of that name in the gateway's `PATH`.
pub(super) fn not_found(server: &Server, elsewhere: Option<PathBuf>, hint: &str) -> String {
    if server.file().is_some_and(|file| file.exists()) {
        let hint = "make it one (chmod +x), or give the program that runs it as command";
        return format!("\"{}\" is not an executable file; {hint}", server.command);
    }
    let has_arguments = server.command.contains(char::is_whitespace);
    let is_path = server.command.contains('/');
    let hint = match elsewhere {
        Some(path) => format!("it is {}: write that, or pass_env = [\"PATH\"]", path.display()),
        None if has_arguments => "write the program alone: its arguments belong into args".to_owned(),
        None if is_path => "correct the path, or install the program".to_owned(),
        None => hint.to_owned(),
    };
    match is_path {
        true => format!("there is no file \"{}\"; {hint}", server.command),
        false => format!("\"{}\" is not found in the child's PATH; {hint}", server.command),
    }
}

/// Warns of relative paths in the arguments of a sandboxed server without `cwd` and `workspace`: its children start in
/// another folder than the gateway.
fn without_cwd(section: &Section<'_>, server: &Server) {
    if server.cwd.is_some() || server.workspace.is_some() || server.sandbox.mode == SandboxMode::None {
        return;
    }
    for (index, arg) in server.args.iter().enumerate() {
        let path = std::path::Path::new(arg);
        if arg.contains(['/', '.']) && !arg.starts_with('-') && path.is_relative() && path.exists() {
            let text = "is a file here, but the child does not start here; write an absolute path, or set cwd";
            section.reading.warning(&section.path.key("args").index(index), text);
        }
    }
}

/// The path of an existing folder, relative to the folder of the file. An absent folder is a problem.
fn folder(section: &mut Section<'_>, key: &str) -> Option<PathBuf> {
    let text = section.nonempty(key)?;
    let path = section.reading.source.folder().join(text);
    if !path.is_dir() {
        section.problem(key, format!("there is no folder {}; make it or correct the path", path.display()));
    }
    Some(path)
}

/// Adds problems for settings that contradict `workspace`, and notes the folder as one of the gateway's own.
fn workspace(section: &Section<'_>, server: &Server) {
    let Some(path) = &server.workspace else { return };
    section.reading.owns(&section.path.key("workspace"), path.clone(), true);
    if section.has("cwd") {
        let text = "is where its children start, and so is cwd; keep one of the two: workspace for what they may change, cwd \
                    for what they only read";
        section.problem("workspace", text);
    }
    if server.isolation != Isolation::Shared && server.pool.mode != PoolMode::Ondemand {
        let text = "is of each tenant or principal, and a child that is started in advance is nobody's yet; choose pool.mode = \
                    \"ondemand\", or remove it";
        section.problem("workspace", text);
    }
}

/// The environment of a child: the variables of `env`, those that `pass_env` copies, and a default `PATH`.
fn child_environment(section: &mut Section<'_>) -> BTreeMap<String, SecretString> {
    let reading = section.reading;
    let mut environment = BTreeMap::from([("PATH".to_owned(), CHILD_PATH.into())]);
    let passed = section.strings("pass_env");
    for (index, name) in passed.iter().enumerate() {
        let path = section.path.key("pass_env").index(index);
        if !is_variable(name) {
            reading.problem(&path, "not the name of a variable; write one, such as \"HOME\"");
        } else if let Some(value) = reading.environment.get(name) {
            environment.insert(name.clone(), value.into());
            if looks_secret(name) {
                reading.from_variables.borrow_mut().push(path);
            }
        } else {
            let text = format!(
                "the variable {} is not set (in UTF-8) in the gateway's environment: the child goes without",
                shown_name(name)
            );
            reading.warning(&path, text);
        }
    }
    for (name, text) in section.texts("env") {
        let path = section.path.key("env").key(&name);
        if !is_variable(&name) {
            reading.problem(&path, "not the name of a variable; use a name without '=' and spaces");
        } else if passed.contains(&name) {
            reading.problem(&path, "is in pass_env too; keep one of the two");
        }
        match reading.resolve(&path, &text) {
            Ok(value) => {
                if value.is_plain && looks_secret(&name) && !text.is_empty() {
                    let text = "looks like a secret in the file; better refer to it: \"env:NAME\" or \"file:PATH\" \
                                (or say that it is none: \"literal:…\")";
                    reading.warning(&path, text);
                }
                environment.insert(name, value.secret);
            }
            Err(text) => reading.problem(&path, text),
        }
    }
    environment
}

/// Whether a text can be the name of an environment variable.
pub(super) fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0', ' ', '\n'])
}

/// Whether the name of a variable contains a word such as TOKEN or PASSWORD.
fn looks_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "API_KEY", "APIKEY", "PRIVATE_KEY", "CREDENTIAL"]
        .iter()
        .any(|word| name.contains(word))
}

/// Reads `[limits]` or `[servers.NAME.limits]`. `default` has the limits for absent keys.
pub(super) fn read_limits(s: &mut Section<'_>, default: &ChildLimits) -> ChildLimits {
    ChildLimits {
        start_timeout: s.duration("start_timeout", default.start_timeout, MS..=TEN_MINUTES * 6),
        call_timeout: s.duration("call_timeout", default.call_timeout, MS..=DAY),
        cancel_grace: s.optional_duration("cancel_grace", MS..=DAY).or(default.cancel_grace),
        harakiri: s.optional_duration("harakiri", MS..=DAY).or(default.harakiri),
        ping_interval: s.duration_or_off("ping_interval", default.ping_interval, MS..=DAY),
        ping_timeout: s.duration("ping_timeout", default.ping_timeout, MS..=TEN_MINUTES),
        stdin_grace: s.duration("stdin_grace", default.stdin_grace, Duration::ZERO..=TEN_MINUTES),
        term_grace: s.duration("term_grace", default.term_grace, Duration::ZERO..=TEN_MINUTES),
        max_line: s.bytes("max_line", default.max_line, KIB..=GIB),
        max_in_flight: s.count("max_in_flight", default.max_in_flight, 1..=1_000_000),
        stdin_queue: s.bytes("stdin_queue", default.stdin_queue, KIB..=GIB),
        stderr_tail: s.count("stderr_tail", default.stderr_tail, 0..=1_000),
        resources: resources::read(s, &default.resources),
        temp: TempLimits {
            size: s.optional_bytes("temp_size", 1 << 20..=1 << 40).or(default.temp.size),
            files: s.count("temp_files", default.temp.files, 16..=1_000_000_000),
        },
    }
}
