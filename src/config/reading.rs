//! Collects what the reading of one configuration finds: problems, warnings, and the gateway's own files and secrets.

use std::cell::RefCell;
use std::path::PathBuf;

use super::chosen_key::ChosenKey;
use super::environment::Environment;
use super::files::careless;
use super::own::OwnFile;
use super::problem::{Findings, Problem};
use super::reference::{Resolved, resolve};
use super::source::{KeyPath, Source};

/// What the reading of one configuration shares.
pub(super) struct Reading<'a> {
    pub(super) source: &'a Source,
    /// The gateway's environment, for references.
    pub(super) environment: &'a Environment,
    pub(super) findings: RefCell<Findings>,
    /// What no server should reach.
    pub(super) own: RefCell<Vec<OwnFile>>,
    /// The key that was chosen outside of the file.
    pub(super) chosen_key: RefCell<Option<ChosenKey>>,
    /// The keys whose secrets come from the gateway's environment.
    pub(super) from_variables: RefCell<Vec<KeyPath>>,
    /// Every key that was asked for, so that a test can compare them with the documentation.
    #[cfg(test)]
    pub(super) known: RefCell<std::collections::BTreeSet<String>>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(source: &'a Source, environment: &'a Environment, problems: Vec<Problem>) -> Self {
        let reading = Self {
            source,
            environment,
            findings: RefCell::new(Findings { problems, warnings: Vec::new() }),
            own: RefCell::new(vec![OwnFile::configuration(source.path().to_owned())]),
            chosen_key: RefCell::default(),
            from_variables: RefCell::default(),
            #[cfg(test)]
            known: RefCell::default(),
        };
        if let Some(why) = careless(source.path(), false) {
            reading.warning(&KeyPath::default(), format!("not safe as it is: {why}"));
        }
        reading
    }

    pub(super) fn problem(&self, path: &KeyPath, text: impl Into<String>) {
        let problem = self.source.problem(path, text.into());
        self.findings.borrow_mut().problems.push(problem);
    }

    pub(super) fn warning(&self, path: &KeyPath, text: impl Into<String>) {
        let warning = self.source.problem(path, text.into());
        self.findings.borrow_mut().warnings.push(warning);
    }

    /// Notes that a key names a file of the gateway's own that holds a secret.
    pub(super) fn keeps_secret(&self, key: &KeyPath, path: PathBuf) {
        match careless(&path, true) {
            // What else is careless about it is said there.
            Some(why) if careless(&path, false).is_none() => self.warning(key, format!("not safe as it is: {why}")),
            _ => {}
        }
        self.owns(key, path, true);
    }

    /// Notes that a key names a file, or a folder, of the gateway's own.
    pub(super) fn owns(&self, key: &KeyPath, path: PathBuf, is_secret: bool) {
        if let Some(why) = careless(&path, false) {
            self.warning(key, format!("not safe as it is: {why}"));
        }
        self.own.borrow_mut().push(OwnFile { key: key.to_string(), path, is_secret });
    }

    /// The text of a key, or what it refers to.
    pub(super) fn resolve(&self, key: &KeyPath, text: &str) -> Result<Resolved, String> {
        if let Some(path) = text.strip_prefix("file:") {
            self.keeps_secret(key, self.source.folder().join(path));
        }
        if text.starts_with("env:") {
            self.from_variables.borrow_mut().push(key.clone());
        }
        resolve(text, self.environment, self.source.folder())
    }

    /// How many problems there are so far.
    pub(super) fn problems(&self) -> usize {
        self.findings.borrow().problems.len()
    }
}
