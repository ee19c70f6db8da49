//! Reads the `mcpServers` JSON of desktop clients, or the `servers` of VS Code, unchanged. Such a file only describes
//! servers; all other settings are the defaults.
#![expect(clippy::disallowed_types, reason = "the configuration")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::environment::Environment;
use super::files::{MAX_CONFIGURATION, cannot_read, read_text};
use super::names::ServerName;
use super::problem::{Findings, Place, Problem};
use super::server::{CHILD_PATH, Server};
use super::servers::{is_variable, not_found};
use super::shown::{guarded, shown_name, shown_value};
use super::source::line_at;

/// The variables of the gateway that every server gets, as from the desktop clients.
const PASSED: [&str; 2] = ["PATH", "HOME"];
/// The longest name of a server, in characters.
const LONGEST: usize = 64;

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow, rename = "mcpServers")]
    mcp_servers: Option<BTreeMap<String, &'a RawValue>>,
    #[serde(borrow)]
    servers: Option<BTreeMap<String, &'a RawValue>>,
}

/// Reads the servers of a file, and adds problems and warnings about them to `findings`. Variables come from
/// `environment`.
///
/// # Errors
/// The file is not of the right form.
pub(super) fn read(path: &Path, environment: &Environment, findings: &mut Findings) -> Result<Vec<Server>, Problem> {
    let whole = |line, text| Problem { place: Place::File(path.to_owned(), line), key: String::new(), text };
    let text =
        read_text(path, MAX_CONFIGURATION).map_err(|error| whole(None, cannot_read(&error, "an mcpServers file")))?;
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
        (None, None) => return Err(whole(Some(1), "there is no \"mcpServers\" in it; add it".to_owned())),
    };
    let before = findings.problems.len();
    // Made names keep clear of all given ones, whatever the order.
    let mut names = entries.keys().filter(|name| name.parse::<ServerName>().is_ok()).cloned().collect();
    let mut servers = Vec::new();
    for (name, raw) in &entries {
        // The entry is a part of the text: its distance from the start is its place.
        let line = line_at(text, (raw.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize));
        let key = format!("{group}.{}", shown_value(name));
        let value = serde_json::from_str(raw.get()).unwrap_or_default();
        // Messages repeat its name, and the one that is made of it.
        let mut texts = vec![name.clone(), slug(name)];
        collect_texts(&value, &mut texts);
        let entry = Entry { file: path.to_owned(), line, key, environment, findings: &mut *findings, texts };
        servers.extend(entry.read(name, &value, &mut names));
    }
    if servers.is_empty() && findings.problems.len() == before {
        let text = match entries.is_empty() {
            true => "there is no server to start in it; add one",
            false => "there is no server to start in it: all are disabled; remove \"disabled\" from one",
        };
        findings.problems.push(whole(Some(1), text.to_owned()));
    }
    Ok(servers)
}

/// One entry of the file, while it is read.
struct Entry<'a> {
    file: PathBuf,
    line: usize,
    /// The path of the entry.
    key: String,
    environment: &'a Environment,
    findings: &'a mut Findings,
    /// All strings in the entry, and its names. Messages leave out those that may be secrets.
    texts: Vec<String>,
}

impl Entry<'_> {
    /// A problem with a key of the entry, or with the whole entry for the empty key.
    fn at(&self, key: &str, text: impl Into<String>) -> Problem {
        let key = if key.is_empty() { self.key.clone() } else { format!("{}.{}", self.key, shown_value(key)) };
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

    /// The server that the entry describes. `None` with a problem, or with a warning if the entry is disabled. `names`
    /// are the names in use.
    fn read(mut self, name: &str, value: &Value, names: &mut BTreeSet<String>) -> Option<Server> {
        let Value::Object(entry) = value else {
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
        let command = self.command(entry);
        let args = self.args(entry);
        let env = self.env(entry);
        let cwd = self.cwd(entry);
        let name = self.name(name, names)?;
        let server = Server { cwd, env, ..Server::new(name, command?, args) };
        if server.program().is_none() {
            self.warning("command", not_found(&server, None, "install it"));
        }
        Some(server)
    }

    fn command(&mut self, entry: &Map<String, Value>) -> Option<String> {
        let what = match entry.get("command") {
            Some(Value::String(text)) if !text.trim().is_empty() => return self.expand("command", text),
            Some(_) => "not a text, or empty",
            None => "missing",
        };
        self.problem("command", format!("{what}; give the program to start"));
        None
    }

    fn args(&mut self, entry: &Map<String, Value>) -> Vec<String> {
        match entry.get("args") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) => {
                let text = |(index, item)| self.text(&format!("args[{index}]"), item);
                items.iter().enumerate().filter_map(text).collect()
            }
            Some(_) => {
                self.problem("args", "not a list; write [\"…\", \"…\"]");
                Vec::new()
            }
        }
    }

    /// The whole environment of a child: `PATH` and `HOME` of the gateway, and the variables of `env`.
    fn env(&mut self, entry: &Map<String, Value>) -> BTreeMap<String, SecretString> {
        let passed = PASSED.into_iter().filter_map(|name| Some((name.to_owned(), self.environment.get(name)?.into())));
        let mut env: BTreeMap<String, SecretString> = passed.collect();
        env.entry("PATH".to_owned()).or_insert_with(|| CHILD_PATH.into());
        let given = match entry.get("env") {
            None | Some(Value::Null) => return env,
            Some(Value::Object(given)) => given,
            Some(_) => {
                self.problem("env", "not an object; write {\"NAME\": \"value\"}");
                return env;
            }
        };
        for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
            let key = format!("env.{name}");
            if !is_variable(name) {
                self.problem(&key, "not the name of a variable; use a name without '=' and spaces");
                continue;
            }
            let text = match value {
                Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
                _ => self.text(&key, value),
            };
            if let Some(text) = text {
                env.insert(name.clone(), text.into());
            }
        }
        env
    }

    /// The absolute working directory. A relative path is relative to the folder of the file.
    fn cwd(&mut self, entry: &Map<String, Value>) -> Option<PathBuf> {
        let text = self.text("cwd", entry.get("cwd").filter(|value| !value.is_null())?)?;
        let path = self.file.parent().unwrap_or(Path::new("")).join(text);
        if !path.is_dir() {
            self.problem("cwd", format!("there is no folder {}; make it or correct the path", path.display()));
        }
        std::path::absolute(path).ok()
    }

    /// The name for URLs: the given name, or with a warning one that is made of it and is not in use.
    fn name(&mut self, given: &str, names: &mut BTreeSet<String>) -> Option<ServerName> {
        if let Ok(name) = given.parse() {
            return Some(name);
        }
        let slug = slug(given);
        let numbered = (2..).map(|number| format!("{}-{number}", slug.get(..LONGEST - 8).unwrap_or(&slug)));
        let name = std::iter::once(slug.clone()).chain(numbered).find(|name| names.insert(name.clone()))?;
        self.warning("", format!("{given:?} cannot stand in a URL: served as /servers/{name}/"));
        name.parse().map_err(|error: super::InvalidName| self.problem("", error.to_string())).ok()
    }

    /// The expanded string at a key. Another kind of value is a problem.
    fn text(&mut self, key: &str, value: &Value) -> Option<String> {
        match value {
            Value::String(text) => self.expand(key, text),
            _ => {
                self.problem(key, "not a text; put it in quotes");
                None
            }
        }
    }

    /// Replaces `${NAME}`, `${NAME:-default}` and `${env:NAME}`. A missing variable is a problem, and so is a variable
    /// of the clients, such as `${input:x}`. Other text, such as the `${#x}` of a shell, stays.
    fn expand(&mut self, key: &str, text: &str) -> Option<String> {
        if text.contains('\0') {
            self.problem(key, "holds a NUL character; remove it");
            return None;
        }
        let (mut expanded, mut rest) = (String::new(), text);
        while let Some((before, tail)) = rest.split_once("${")
            && let Some((inside, after)) = tail.split_once('}')
        {
            expanded.push_str(before);
            rest = after;
            let (name, default) =
                inside.split_once(":-").map_or((inside, None), |(name, default)| (name, Some(default)));
            let name = name.strip_prefix("env:").unwrap_or(name);
            let scope = name.split(':').next().unwrap_or_default();
            if is_identifier(name) {
                let Some(value) = self.environment.get(name).or(default) else {
                    let name = shown_name(name);
                    self.problem(key, format!("the variable {name} is not set in the gateway's environment; set it"));
                    return None;
                };
                expanded.push_str(value);
            } else if ["input", "command", "workspaceFolder"].contains(&scope) {
                let text = format!("${{{inside}}} is known to the editor only; write the value, or ${{env:NAME}}");
                self.problem(key, text);
                return None;
            } else {
                expanded.push_str(&format!("${{{inside}}}"));
            }
        }
        Some(expanded + rest)
    }
}

/// Adds all strings in a value to `found`.
fn collect_texts(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| collect_texts(item, found)),
        Value::Object(members) => members.values().for_each(|item| collect_texts(item, found)),
        _ => {}
    }
}

/// Whether a text has the form of the name of a variable in a shell.
fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The name in lower case, with `-` for each run of characters that cannot stand in a URL, cut after 64 characters.
/// `server` if no letter or digit remains.
fn slug(name: &str) -> String {
    let kept = name.to_ascii_lowercase();
    let words =
        kept.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.')).filter(|word| !word.is_empty());
    let slug: String = words.collect::<Vec<_>>().join("-").chars().take(LONGEST).collect();
    let slug = slug.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    if slug.is_empty() { "server".to_owned() } else { slug.to_owned() }
}
