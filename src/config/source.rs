//! Merges the configuration file with the variables that override single keys of it, and knows the file and line, or
//! the variable, that each value comes from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use config::{File, FileFormat, Map, Value, ValueKind};
use toml_edit::Document;

use super::environment::Environment;
use super::files::{MAX_CONFIGURATION, cannot_read, read_text};
use super::problem::{Place, Problem};
use super::shown::{guarded, shown_value};
use super::suggest;

/// The start of the name of a variable that overrides a key.
const PREFIX: &str = "SLUICE__";
/// The tables whose keys a variable may override. The `config` crate converts names of variables to lower case, so
/// tables with free keys (servers, tenants, environments) cannot be among them.
const OVERRIDABLE: [&str; 5] = ["http", "admin", "log", "shutdown", "sessions"];

/// One step of a path: into a table, or into a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// The path of a value from the root of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct KeyPath(Vec<Step>);

impl KeyPath {
    /// The path through tables with these keys.
    pub(super) fn of(keys: &[&str]) -> Self {
        Self(keys.iter().map(|key| Step::Key((*key).to_owned())).collect())
    }

    /// The path of a key in the table at this path.
    pub(super) fn key(&self, key: &str) -> Self {
        self.step(Step::Key(key.to_owned()))
    }

    /// The path of an item, from 0, in the list at this path.
    pub(super) fn index(&self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    /// The path as text, without keys that may be secrets.
    fn shown(&self) -> String {
        let shown = |step: &Step| match step {
            Step::Key(key) => Step::Key(shown_value(key).into_owned()),
            Step::Index(index) => Step::Index(*index),
        };
        Self(self.0.iter().map(shown).collect()).to_string()
    }

    fn step(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }
}

/// The path as in TOML, with `[n]` for item n of a list, from 0.
impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
                    let dot = if at > 0 { "." } else { "" };
                    if bare { write!(f, "{dot}{key}")? } else { write!(f, "{dot}{key:?}")? }
                }
            }
        }
        Ok(())
    }
}

/// A configuration that has been merged and not yet checked.
pub(super) struct Source {
    /// The merged values.
    pub(super) tree: Map<String, Value>,
    /// The path of the file, as given.
    pub(super) path: PathBuf,
    folder: PathBuf,
    document: Document<String>,
    /// The variables that override keys, by the path of the key.
    variables: BTreeMap<String, String>,
}

impl Source {
    /// Reads the file and merges it with `environment`. Also returns a problem for each variable that overrides no key.
    ///
    /// # Errors
    /// The file cannot be read, or is not TOML.
    pub(super) fn read(path: &Path, environment: &Environment) -> Result<(Self, Vec<Problem>), Problem> {
        let text = read_text(path, MAX_CONFIGURATION).map_err(|error| {
            let text = cannot_read(&error, "a configuration file");
            Problem { place: Place::File(path.to_owned(), None), key: String::new(), text }
        })?;
        Self::of_text(path, text, environment)
    }

    /// Like [`read`](Self::read), with `text` in place of the content of the file.
    ///
    /// # Errors
    /// The text is not TOML.
    pub(super) fn of_text(
        path: &Path,
        text: String,
        environment: &Environment,
    ) -> Result<(Self, Vec<Problem>), Problem> {
        let at = |line, text: String| Problem { place: Place::File(path.to_owned(), line), key: String::new(), text };
        let document = Document::parse(text.clone()).map_err(|error| {
            let line = error.span().map(|span| line_at(&text, span.start));
            at(line, format!("not valid TOML: {}; correct the syntax here", error.message()))
        })?;
        let (overrides, refused) = overrides(environment);
        let variables = overrides.iter().map(|(key, variable, _)| (key.clone(), variable.clone())).collect();
        let file = config::Config::builder().add_source(File::from_str(document.raw(), FileFormat::Toml));
        let tree = overrides
            .iter()
            .try_fold(file, |builder, (key, _, value)| builder.set_override(key, value.as_str()))
            .and_then(|builder| config::Source::collect(&builder.build()?))
            .map_err(|error| at(None, format!("cannot be read as a configuration: {error}")))?;
        let folder = std::path::absolute(path)
            .map_err(|error| at(None, format!("its folder cannot be found: {error}; give an absolute path")))?;
        let folder = folder.parent().unwrap_or(Path::new("/")).to_owned();
        Ok((Self { tree, path: path.to_owned(), folder, document, variables }, refused))
    }

    /// The absolute path of the file's folder. Paths in the file are relative to this folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether the value at a path comes from a variable.
    pub(super) fn is_variable(&self, path: &KeyPath) -> bool {
        self.variables.contains_key(&path.to_string())
    }

    /// A problem with the value at a path, with the place that the value comes from. The place of an absent key is its
    /// table. Values and keys in `text` that may be secrets are left out.
    pub(super) fn problem(&self, path: &KeyPath, text: String) -> Problem {
        let key = path.to_string();
        let place = match self.variables.get(&key) {
            Some(variable) => Place::Variable(variable.clone()),
            None => Place::File(self.path.clone(), Some(self.line(path))),
        };
        let mut values = Vec::new();
        texts(self.value(path), &mut values);
        // A message about a name contains the name.
        values.extend(path.0.iter().filter_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        }));
        Problem { place, key: path.shown(), text: guarded(text, values) }
    }

    /// The merged value at a path.
    fn value(&self, path: &KeyPath) -> Option<&ValueKind> {
        let mut steps = path.0.iter();
        let Some(Step::Key(first)) = steps.next() else { return None };
        let mut value = &self.tree.get(first)?.kind;
        for step in steps {
            value = match (step, value) {
                (Step::Key(key), ValueKind::Table(table)) => &table.get(key)?.kind,
                (Step::Index(index), ValueKind::Array(items)) => &items.get(*index)?.kind,
                _ => return None,
            };
        }
        Some(value)
    }

    /// The line in the file, from 1, of the value at a path, or of the nearest table around it.
    fn line(&self, path: &KeyPath) -> usize {
        let (mut here, mut offset) = (self.document.as_item(), 0);
        for step in &path.0 {
            let below = match step {
                Step::Key(key) => here
                    .as_table_like()
                    .and_then(|table| table.get_key_value(key))
                    .map(|(key, item)| (key.span(), item)),
                Step::Index(index) => here.get(*index).map(|item| (None, item)),
            };
            let Some((key, item)) = below else { break };
            offset = key.or_else(|| item.span()).map_or(offset, |span| span.start);
            here = item;
        }
        line_at(self.document.raw(), offset)
    }
}

/// Adds all strings in a value to `found`.
fn texts<'a>(value: Option<&'a ValueKind>, found: &mut Vec<&'a str>) {
    match value {
        Some(ValueKind::String(text)) => found.push(text),
        Some(ValueKind::Array(items)) => items.iter().for_each(|item| texts(Some(&item.kind), found)),
        Some(ValueKind::Table(table)) => table.values().for_each(|item| texts(Some(&item.kind), found)),
        _ => {}
    }
}

/// The line, from 1, of a byte offset.
pub(super) fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// The overrides in the environment as (path of the key, variable, value), and a problem for each other variable with
/// the prefix.
fn overrides(environment: &Environment) -> (Vec<(String, String, String)>, Vec<Problem>) {
    let (mut taken, mut refused) = (Vec::new(), Vec::new());
    for (variable, value) in environment.starting_with(PREFIX) {
        let rest = variable.strip_prefix(PREFIX).unwrap_or_default().to_lowercase();
        match rest.split_once("__") {
            Some((section, key)) if OVERRIDABLE.contains(&section) && is_word(key) => {
                taken.push((format!("{section}.{key}"), variable.to_owned(), value.to_owned()));
            }
            other => {
                let section = other.map_or(rest.as_str(), |(section, _)| section);
                let hint = suggest::nearest(section, OVERRIDABLE);
                let text = format!(
                    "not a key that a variable may set{hint}; SLUICE__SECTION__KEY sets single values of {}, everything \
                     else belongs into the file (which can refer to variables as \"env:NAME\")",
                    OVERRIDABLE.join(", ")
                );
                refused.push(Problem { place: Place::Variable(variable.to_owned()), key: String::new(), text });
            }
        }
    }
    (taken, refused)
}

/// Whether the `config` crate takes the key as one name, and not as a path.
fn is_word(key: &str) -> bool {
    !key.is_empty()
        && !key.contains("__")
        && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}
