//! Reads the `mcpServers` JSON of desktop clients (and VS Code's `servers`), taken as it is. It says which servers
//! there are and nothing else: everything else is the default, and nobody may call until the caller adds credentials.
#![expect(clippy::disallowed_types, reason = "the configuration")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::environment::Environment;
use super::files::{MAX_CONFIGURATION, careless, read_text};
use super::names::ServerName;
use super::problem::{Findings, Place, Problem, Problems};
use super::server::Server;
use super::servers::is_variable;
use super::shown::{guarded, shown_key, shown_name};
use super::source::line_at;

/// What a server gets of the gateway's environment: as from the clients that the file was written for, the means to
/// find its program and its files, and no more.
const PASSED: [&str; 2] = ["PATH", "HOME"];
/// The longest name.
const LONGEST: usize = 64;

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow, rename = "mcpServers")]
    mcp_servers: Option<BTreeMap<String, &'a RawValue>>,
    #[serde(borrow)]
    servers: Option<BTreeMap<String, &'a RawValue>>,
}

/// Reads the servers of an `mcpServers` file, and warnings about them.
///
/// # Errors
/// All problems at once.
pub(super) fn read(path: &Path, environment: &Environment) -> Result<(Vec<Server>, Vec<Problem>), Problems> {
    let whole = |line, text| Problem { place: Place::File(path.to_owned(), line), key: String::new(), text };
    let text = read_text(path, MAX_CONFIGURATION)
        .map_err(|error| whole(None, format!("cannot be read: {error}; give the path of an mcpServers file")))?;
    let text = text.trim_start_matches('\u{feff}');
    let document: Document<'_> = serde_json::from_str(text).map_err(|error| {
        let why = if error.is_data() { "not an object of the right form" } else { "not valid JSON" };
        whole(
            Some(error.line()),
            format!("{why}; write {{\"mcpServers\": {{\"NAME\": {{\"command\": …}}}}}} without comments"),
        )
    })?;
    let (group, entries) = match (document.mcp_servers, document.servers) {
        (Some(entries), _) => ("mcpServers", entries),
        (None, Some(entries)) => ("servers", entries),
        (None, None) => return Err(whole(Some(1), "there is no \"mcpServers\" in it; add it".to_owned()).into()),
    };
    let mut findings = Findings::default();
    findings.warnings.extend(careless(path, false).map(|why| whole(None, format!("not safe as it is: {why}"))));
    // Made names keep clear of all given ones, whatever the order.
    let mut names = entries.keys().filter(|name| name.parse::<ServerName>().is_ok()).cloned().collect();
    let mut servers = Vec::new();
    for (name, raw) in &entries {
        // The entry is a part of the text: its distance from the start is its place.
        let line = line_at(text, (raw.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize));
        let key = format!("{group}.{}", shown_key(name));
        let mut texts = texts(raw);
        // Messages repeat its name, and the one that is made of it.
        texts.extend([name.clone(), slug(name)]);
        let entry = Entry { file: path.to_owned(), line, key, environment, findings: &mut findings, texts };
        servers.extend(entry.read(name, raw, &mut names));
    }
    if servers.is_empty() && findings.problems.is_empty() {
        findings.problems.push(whole(Some(1), "there is no server to start in it; add one".to_owned()));
    }
    Ok((servers, findings.conclude()?))
}

/// One entry of the file, being read.
struct Entry<'a> {
    file: PathBuf,
    line: usize,
    key: String,
    environment: &'a Environment,
    findings: &'a mut Findings,
    /// All texts in it.
    texts: Vec<String>,
}

impl Entry<'_> {
    fn at(&self, key: &str, text: impl Into<String>) -> Problem {
        let key = if key.is_empty() { self.key.clone() } else { format!("{}.{}", self.key, shown_key(key)) };
        let text = guarded(text.into(), self.texts.iter().map(String::as_str));
        Problem { place: Place::File(self.file.clone(), Some(self.line)), key, text }
    }

    fn problem(&mut self, key: &str, text: impl Into<String>) {
        let problem = self.at(key, text);
        self.findings.problems.push(problem);
    }

    fn warning(&mut self, key: &str, text: impl Into<String>) {
        let warning = self.at(key, text);
        self.findings.warnings.push(warning);
    }

    fn read(mut self, name: &str, raw: &RawValue, names: &mut BTreeSet<String>) -> Option<Server> {
        let Ok(Value::Object(entry)) = serde_json::from_str(raw.get()) else {
            self.problem("", "not an object; write {\"command\": …, \"args\": […]}");
            return None;
        };
        if entry.get("disabled").and_then(Value::as_bool) == Some(true) {
            self.warning("", "disabled in the file: it is not served");
            return None;
        }
        let kind = entry.get("type").and_then(Value::as_str).unwrap_or("stdio");
        if kind != "stdio" || ["url", "serverUrl"].iter().any(|key| entry.contains_key(*key)) {
            self.problem("", "a remote server already, not one on stdio: clients can use its URL; remove it here");
            return None;
        }
        if entry.contains_key("envFile") {
            self.warning("envFile", "not read; put what the server needs into env");
        }
        let command = self.command(&entry);
        let args = self.args(&entry);
        let env = self.env(&entry);
        let cwd = self.cwd(&entry);
        let name = self.name(name, names)?;
        let server = Server { cwd, env, ..Server::new(name, command?, args) };
        if server.program().is_none() {
            self.warning("command", format!("\"{}\" is not found in the child's PATH; install it", server.command));
        }
        Some(server)
    }

    fn command(&mut self, entry: &Map<String, Value>) -> Option<String> {
        match entry.get("command") {
            Some(Value::String(text)) if !text.trim().is_empty() => self.expand("command", text),
            Some(_) => {
                self.problem("command", "not a text, or empty; give the program to start");
                None
            }
            None => {
                self.problem("command", "missing; give the program to start");
                None
            }
        }
    }

    fn args(&mut self, entry: &Map<String, Value>) -> Vec<String> {
        let items = match entry.get("args") {
            None | Some(Value::Null) => return Vec::new(),
            Some(Value::Array(items)) => items,
            Some(_) => {
                self.problem("args", "not a list; write [\"…\", \"…\"]");
                return Vec::new();
            }
        };
        let mut args = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let key = format!("args[{index}]");
            match item.as_str() {
                Some(text) => args.extend(self.expand(&key, text)),
                None => self.problem(&key, "not a text; put it in quotes"),
            }
        }
        args
    }

    fn env(&mut self, entry: &Map<String, Value>) -> BTreeMap<String, SecretString> {
        let passed = PASSED.into_iter().filter_map(|name| Some((name.to_owned(), self.environment.get(name)?.into())));
        let mut env: BTreeMap<String, SecretString> = passed.collect();
        env.entry("PATH".to_owned()).or_insert_with(|| super::server::CHILD_PATH.into());
        let given = match entry.get("env") {
            None | Some(Value::Null) => return env,
            Some(Value::Object(given)) => given,
            Some(_) => {
                self.problem("env", "not an object; write {\"NAME\": \"value\"}");
                return env;
            }
        };
        for (name, value) in given {
            let key = format!("env.{name}");
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Bool(flag) => flag.to_string(),
                Value::Null => continue,
                _ => {
                    self.problem(&key, "not a text; put it in quotes");
                    continue;
                }
            };
            if !is_variable(name) {
                self.problem(&key, "not the name of a variable; use a name without '=' and spaces");
            } else if let Some(text) = self.expand(&key, &text) {
                env.insert(name.clone(), text.into());
            }
        }
        env
    }

    fn cwd(&mut self, entry: &Map<String, Value>) -> Option<PathBuf> {
        let text = match entry.get("cwd") {
            None | Some(Value::Null) => return None,
            Some(Value::String(text)) => self.expand("cwd", text)?,
            Some(_) => {
                self.problem("cwd", "not a text; put it in quotes");
                return None;
            }
        };
        let path = self.file.parent().unwrap_or(Path::new("")).join(text);
        if !path.is_dir() {
            self.problem("cwd", format!("there is no folder {}; make it or correct the path", path.display()));
        }
        std::path::absolute(path).ok()
    }

    /// A name for URLs: the given one, or one made of it that is not taken.
    fn name(&mut self, given: &str, names: &mut BTreeSet<String>) -> Option<ServerName> {
        if let Ok(name) = given.parse() {
            return Some(name);
        }
        let slug = slug(given);
        let mut name = slug.clone();
        for number in 2.. {
            if names.insert(name.clone()) {
                break;
            }
            name = format!("{}-{number}", slug.get(..LONGEST - 8).unwrap_or(&slug));
        }
        self.warning("", format!("{given:?} cannot stand in a URL: served as /servers/{name}/"));
        name.parse().map_err(|error: super::InvalidName| self.problem("", error.to_string())).ok()
    }

    /// Expands `${NAME}`, `${NAME:-default}` and `${env:NAME}`. What else looks like one of the clients' own variables
    /// is a problem; the rest, such as a shell's `${#x}`, is left as it stands.
    fn expand(&mut self, key: &str, text: &str) -> Option<String> {
        if text.contains('\0') {
            self.problem(key, "holds a NUL character; remove it");
            return None;
        }
        let mut expanded = String::new();
        let mut rest = text;
        while let Some((before, inside, after)) = rest.split_once("${").and_then(|(before, tail)| {
            let (inside, after) = tail.split_once('}')?;
            Some((before, inside, after))
        }) {
            expanded.push_str(before);
            rest = after;
            let (name, default) =
                inside.split_once(":-").map_or((inside, None), |(name, default)| (name, Some(default)));
            let name = name.strip_prefix("env:").unwrap_or(name);
            match name.split_once(':').map_or(name, |(scope, _)| scope) {
                scope if scope == name && is_identifier(name) => match self.environment.get(name).or(default) {
                    Some(value) => expanded.push_str(value),
                    None => {
                        self.problem(
                            key,
                            format!(
                                "the variable {} is not set in the gateway's environment; set it",
                                shown_name(name)
                            ),
                        );
                        return None;
                    }
                },
                "input" | "command" | "workspaceFolder" => {
                    self.problem(
                        key,
                        format!("${{{inside}}} is known to the editor only; write the value, or ${{env:NAME}}"),
                    );
                    return None;
                }
                _ => expanded.push_str(&format!("${{{inside}}}")),
            }
        }
        expanded.push_str(rest);
        Some(expanded)
    }
}

/// The texts in an entry, whatever it holds.
fn texts(raw: &RawValue) -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::String(text) => found.push(text.clone()),
            Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            Value::Object(members) => members.values().for_each(|item| collect(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    if let Ok(value) = serde_json::from_str(raw.get()) {
        collect(&value, &mut found);
    }
    found
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Lower case, with `-` for runs of what cannot stand in a URL.
fn slug(name: &str) -> String {
    let kept = name.to_ascii_lowercase();
    let words =
        kept.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.')).filter(|word| !word.is_empty());
    let slug: String = words.collect::<Vec<_>>().join("-").chars().take(LONGEST).collect();
    let slug = slug.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    if slug.is_empty() { "server".to_owned() } else { slug.to_owned() }
}
