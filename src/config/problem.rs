//! Problems of a configuration, each with its place and key. The text of a problem contains no value that may be a
//! secret.

use std::fmt;
use std::path::PathBuf;

use crate::text::visible;

/// The place of a problem.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A file and a line, from 1. The line is `None` if the problem is with the whole file.
    File(PathBuf, Option<usize>),
    /// A variable of the gateway's environment, or an option of the command line.
    Variable(String),
}

/// A problem or a warning.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The place.
    pub place: Place,
    /// The path of the key, with dots. Empty if the problem is with the whole file or variable.
    pub key: String,
    /// The fault, and what to do about it.
    pub text: String,
}

/// One line: `FILE:LINE: key.path: text`, or the variable in place of file and line. Misleading characters are escaped.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File(path, line) => {
                f.write_str(&visible(&path.to_string_lossy()))?;
                line.map_or(Ok(()), |line| write!(f, ":{line}"))?;
            }
            Place::Variable(name) => f.write_str(&visible(name))?,
        }
        f.write_str(": ")?;
        if !self.key.is_empty() {
            write!(f, "{}: ", visible(&self.key))?;
        }
        f.write_str(&visible(&self.text))
    }
}

/// All problems of a configuration, at least one, and the warnings about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Problems {
    /// The problems, in the order of the file.
    pub fn list(&self) -> &[Problem] {
        &self.problems
    }

    /// The warnings, in the order of the file.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }
}

/// One line for each problem. Without the warnings.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem], warnings: Vec::new() }
    }
}

/// The problems and warnings found so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

impl Findings {
    /// The warnings, in the order of the file. If there is a problem, all problems and the warnings as the
    /// error.
    pub(super) fn conclude(self) -> Result<Vec<Problem>, Problems> {
        let Self { mut problems, mut warnings } = self;
        problems.sort();
        warnings.sort();
        if problems.is_empty() { Ok(warnings) } else { Err(Problems { problems, warnings }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_whatever_its_place_is_called() {
        let problem = |place| Problem { place, key: "a\nb".to_owned(), text: "c\rd".to_owned() }.to_string();
        let named = problem(Place::Variable("SLUICE__X\n\u{1b}[2J".to_owned()));
        assert_eq!(named, r"SLUICE__X\n\u{1b}[2J: a\nb: c\rd");
        assert_eq!(problem(Place::File("x\ny".into(), Some(7))), r"x\ny:7: a\nb: c\rd");
        assert_eq!(problem(Place::File("x".into(), None)), r"x: a\nb: c\rd");
    }
}
