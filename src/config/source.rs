//! The layers of a configuration: the file, and over it the scalar keys that the environment may override. It knows
//! for every key where its value comes from, so that a problem can say so.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use config::{File, FileFormat, Map, Value, ValueKind};
use toml_edit::{Document, Item, TableLike};

use super::environment::Environment;
use super::files::{MAX_CONFIGURATION, read_text};
use super::problem::{Place, Problem};
use super::shown::{guarded, shown_key};
use super::suggest;

/// What a variable that overrides a key starts with.
const PREFIX: &str = "SLUICE__";
/// The sections that the environment may override. None has tables below it: the `config` crate lower-cases the names
/// of variables, so an overridden map of environment variables, tenants or servers would get a second, wrong key.
const OVERRIDABLE: [&str; 5] = ["http", "admin", "log", "shutdown", "sessions"];

/// A step from the root of the configuration to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// The way from the root of the configuration to a key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct KeyPath(Vec<Step>);

impl KeyPath {
    pub(super) fn of(keys: &[&str]) -> Self {
        Self(keys.iter().map(|key| Step::Key((*key).to_owned())).collect())
    }

    pub(super) fn key(&self, key: &str) -> Self {
        self.step(Step::Key(key.to_owned()))
    }

    pub(super) fn index(&self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    /// As it is displayed, without keys that may be a secret.
    fn shown(&self) -> String {
        let shown = self.0.iter().map(|step| match step {
            Step::Key(key) => Step::Key(shown_key(key).into_owned()),
            Step::Index(index) => Step::Index(*index),
        });
        Self(shown.collect()).to_string()
    }

    fn step(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }
}

/// As it would be written in TOML, with `[n]` for the n-th entry of a list (from 0).
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

/// The merged layers, and where each value comes from.
pub(super) struct Source {
    /// The merged tree.
    pub(super) tree: Map<String, Value>,
    path: PathBuf,
    folder: PathBuf,
    document: Document<String>,
    /// Which variable overrides a key.
    variables: BTreeMap<String, String>,
}

impl Source {
    /// Reads and merges the layers. Overrides that are not allowed are returned beside it.
    ///
    /// # Errors
    /// The one problem that makes all others unreadable: no file, or a file that is not TOML.
    pub(super) fn read(path: &Path, environment: &Environment) -> Result<(Self, Vec<Problem>), Problem> {
        let at = |line, text: String| Problem { place: Place::File(path.to_owned(), line), key: String::new(), text };
        let text = read_text(path, MAX_CONFIGURATION)
            .map_err(|error| at(None, format!("cannot be read: {error}; give the path of a configuration file")))?;
        let document = Document::parse(text.clone()).map_err(|error| {
            let line = error.span().map(|span| line_at(&text, span.start));
            at(line, format!("not valid TOML: {}; correct the syntax here", error.message()))
        })?;
        let (overrides, refused) = overrides(environment);
        let variables = overrides.iter().map(|(key, variable, _)| (key.clone(), variable.clone())).collect();
        let source = config::Environment::with_prefix("SLUICE")
            .prefix_separator("__")
            .separator("__")
            .source(Some(overrides.into_iter().map(|(_, variable, value)| (variable, value)).collect()));
        let tree = config::Config::builder()
            .add_source(File::from_str(document.raw(), FileFormat::Toml))
            .add_source(source)
            .build()
            .and_then(|merged| config::Source::collect(&merged))
            .map_err(|error| at(None, format!("cannot be read as a configuration: {error}")))?;
        let folder = std::path::absolute(path)
            .map_err(|error| at(None, format!("its folder cannot be found: {error}; give an absolute path")))?;
        let folder = folder.parent().unwrap_or(Path::new("/")).to_owned();
        Ok((Self { tree, path: path.to_owned(), folder, document, variables }, refused))
    }

    /// The folder of the file, absolute: what relative paths in the file are relative to.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether the value of a key comes from the environment.
    pub(super) fn is_variable(&self, path: &KeyPath) -> bool {
        self.variables.contains_key(&path.to_string())
    }

    /// A problem with a key, at the place where its value comes from. For a key that is not there: where its table is.
    pub(super) fn problem(&self, path: &KeyPath, text: String) -> Problem {
        let key = path.to_string();
        let place = match self.variables.get(&key) {
            Some(variable) => Place::Variable(variable.clone()),
            None => Place::File(self.path.clone(), Some(self.line(path))),
        };
        let mut values = Vec::new();
        texts(self.value(path), &mut values);
        // A name may be said to be none.
        values.extend(path.0.iter().filter_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        }));
        Problem { place, key: path.shown(), text: guarded(text, values) }
    }

    /// The value of a key, as it was merged.
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

    /// The line of a key or, failing that, of the nearest table around it.
    fn line(&self, path: &KeyPath) -> usize {
        let mut here = Here::Table(self.document.as_table());
        let mut offset = 0;
        for step in &path.0 {
            let Some((start, below)) = here.descend(step) else { break };
            offset = start.unwrap_or(offset);
            here = below;
        }
        line_at(self.document.raw(), offset)
    }
}

/// The texts in a value.
fn texts<'a>(value: Option<&'a ValueKind>, found: &mut Vec<&'a str>) {
    match value {
        Some(ValueKind::String(text)) => found.push(text),
        Some(ValueKind::Array(items)) => items.iter().for_each(|item| texts(Some(&item.kind), found)),
        Some(ValueKind::Table(table)) => table.values().for_each(|item| texts(Some(&item.kind), found)),
        _ => {}
    }
}

/// A place in the document that keys or indices lead on from.
enum Here<'a> {
    Table(&'a dyn TableLike),
    Item(&'a Item),
    Value(&'a toml_edit::Value),
}

impl<'a> Here<'a> {
    /// Where the step leads, and the offset at which that begins.
    fn descend(&self, step: &Step) -> Option<(Option<usize>, Here<'a>)> {
        let start = |span: Option<std::ops::Range<usize>>| span.map(|span| span.start);
        match step {
            Step::Key(key) => {
                let table = match self {
                    Here::Table(table) => *table,
                    Here::Item(item) => item.as_table_like()?,
                    Here::Value(value) => value.as_inline_table()?,
                };
                let (key, item) = table.get_key_value(key)?;
                Some((start(key.span()).or_else(|| start(item.span())), Here::Item(item)))
            }
            Step::Index(index) => match self {
                Here::Item(Item::ArrayOfTables(tables)) => {
                    let table = tables.get(*index)?;
                    Some((start(table.span()), Here::Table(table)))
                }
                Here::Item(Item::Value(toml_edit::Value::Array(values)))
                | Here::Value(toml_edit::Value::Array(values)) => {
                    let value = values.get(*index)?;
                    Some((start(value.span()), Here::Value(value)))
                }
                _ => None,
            },
        }
    }
}

/// The line, from 1, of a byte offset.
pub(super) fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// The overrides in the environment as (key, variable, value), and those that are refused.
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

/// Whether a key has nothing in it that the `config` crate would take for a path.
fn is_word(key: &str) -> bool {
    !key.is_empty()
        && !key.contains("__")
        && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}
