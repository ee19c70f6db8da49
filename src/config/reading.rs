//! The state while one configuration is read: its sources, and the problems, warnings and own files of the gateway
//! found so far.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use super::chosen_key::ChosenKey;
use super::environment::Environment;
use super::files::careless;
use super::own::OwnFile;
use super::problem::{Findings, Problem};
use super::reference::{Resolved, resolve};
use super::source::{KeyPath, Source};

/// The state that all readers of one configuration share.
pub(super) struct Reading<'a> {
    pub(super) source: &'a Source,
    /// The gateway's environment.
    pub(super) environment: &'a Environment,
    pub(super) findings: RefCell<Findings>,
    /// The files of the gateway, which no server should reach.
    pub(super) own: RefCell<Vec<OwnFile>>,
    /// The API key that an option or a variable gives.
    pub(super) chosen_key: RefCell<Option<ChosenKey>>,
    /// The configuration keys whose secrets come from the gateway's environment.
    pub(super) from_variables: RefCell<Vec<KeyPath>>,
    /// Every key that was asked for. A test compares them with the documentation.
    #[cfg(test)]
    pub(super) known: RefCell<std::collections::BTreeSet<String>>,
}

impl<'a> Reading<'a> {
    /// The state before the first value is read. `problems` are those of `source` itself.
    pub(super) fn new(source: &'a Source, environment: &'a Environment, problems: Vec<Problem>) -> Self {
        let reading = Self {
            source,
            environment,
            findings: RefCell::new(Findings { problems, warnings: Vec::new() }),
            own: RefCell::new(vec![OwnFile::configuration(source.path.clone())]),
            chosen_key: RefCell::default(),
            from_variables: RefCell::default(),
            #[cfg(test)]
            known: RefCell::default(),
        };
        reading.warn_if_careless(&KeyPath::default(), &source.path, false);
        reading
    }

    /// Adds a problem with the value at a path.
    pub(super) fn problem(&self, path: &KeyPath, text: impl Into<String>) {
        let problem = self.source.problem(path, text.into());
        self.findings.borrow_mut().problems.push(problem);
    }

    /// Adds a warning about the value at a path.
    pub(super) fn warning(&self, path: &KeyPath, text: impl Into<String>) {
        let warning = self.source.problem(path, text.into());
        self.findings.borrow_mut().warnings.push(warning);
    }

    /// Notes that a key names a file with a secret of the gateway. Warns if others can read or change the file.
    pub(super) fn keeps_secret(&self, key: &KeyPath, path: PathBuf) {
        self.warn_if_careless(key, &path, true);
        self.own.borrow_mut().push(OwnFile { key: key.to_string(), path, is_secret: true });
    }

    /// Notes that a key names a file or folder of the gateway. Warns if others can change it.
    pub(super) fn owns(&self, key: &KeyPath, path: PathBuf, is_secret: bool) {
        self.warn_if_careless(key, &path, false);
        self.own.borrow_mut().push(OwnFile { key: key.to_string(), path, is_secret });
    }

    fn warn_if_careless(&self, key: &KeyPath, path: &Path, is_secret: bool) {
        if let Some(why) = careless(path, is_secret) {
            self.warning(key, format!("not safe as it is: {why}"));
        }
    }

    /// Resolves the value of a key, see [`resolve`]. Notes a file or a variable that the value refers to.
    pub(super) fn resolve(&self, key: &KeyPath, text: &str) -> Result<Resolved, String> {
        if let Some(path) = text.strip_prefix("file:") {
            self.keeps_secret(key, self.source.folder().join(path));
        }
        if text.starts_with("env:") {
            self.from_variables.borrow_mut().push(key.clone());
        }
        resolve(text, self.environment, self.source.folder())
    }

    /// The number of problems so far.
    pub(super) fn problems(&self) -> usize {
        self.findings.borrow().problems.len()
    }
}
