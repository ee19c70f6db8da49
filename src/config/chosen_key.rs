//! The API key that an option or a variable gives to the gateway: in a file that `--key-file` or `SLUICE_KEY_FILE`
//! names, or in `SLUICE_KEY`. A file is better: the process that started the gateway has the variable too, and a server
//! without a sandbox can read it there.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

use super::environment::Environment;
use super::own::OwnFile;
use super::problem::{Place, Problem};
use super::reference::read_secret;
use super::shown::shown_value;
use crate::text::visible;

/// The variable with the key.
pub const KEY: &str = "SLUICE_KEY";
/// The variable with the path of a file with the key.
pub const KEY_FILE: &str = "SLUICE_KEY_FILE";
/// The option with the path of a file with the key. It takes precedence over both variables. The command line puts it
/// into the [`Environment`] under this name.
pub const KEY_OPTION: &str = "--key-file";
/// The shortest key, in characters. A shorter key could be guessed.
pub const SHORTEST_KEY: usize = 32;

/// The API key that an option or a variable gives.
#[derive(Debug, Clone)]
pub struct ChosenKey {
    /// The key in plain text.
    pub key: SecretString,
    /// The setting that gives the key: `--key-file`, `SLUICE_KEY_FILE` or `SLUICE_KEY`.
    pub name: &'static str,
    /// The file with the key. `None` for `SLUICE_KEY`.
    pub file: Option<PathBuf>,
}

impl ChosenKey {
    /// The file with the key as a file that no server should reach. `None` for `SLUICE_KEY`.
    pub(super) fn own_file(&self) -> Option<OwnFile> {
        let path = self.file.clone()?;
        Some(OwnFile { key: self.name.to_owned(), path, is_secret: true })
    }

    /// The key that the environment gives: by the option, otherwise by one of the two variables. `None` if none of the
    /// three is set; a blank value counts as not set.
    ///
    /// # Errors
    /// Both variables are set and the option is not, the file cannot be read or holds no key, or the key is shorter
    /// than 32 characters or has characters other than visible ASCII.
    pub fn of(environment: &Environment) -> Result<Option<Self>, Problem> {
        let setting = key_setting(environment).map_err(|why| problem(KEY_FILE, None, why))?;
        let chosen = match setting {
            None => return Ok(None),
            Some((KEY, key)) => Self { key: key.into(), name: KEY, file: None },
            Some((name, path)) => {
                let path = Path::new(path);
                let key = key_in(path).map_err(|why| problem(name, Some(path), why))?;
                Self { key, name, file: Some(path.to_owned()) }
            }
        };
        let length = chosen.key.expose_secret().chars().count();
        if length < SHORTEST_KEY {
            let text = format!(
                "the key is too short: it has {length} characters and needs at least {SHORTEST_KEY}; make one, such as \
                 \"slk_local_$(openssl rand -hex 32)\""
            );
            return Err(chosen.problem(text));
        }
        if !chosen.key.expose_secret().bytes().all(|byte| byte.is_ascii_graphic()) {
            let text = "the key has characters that no client can send, such as a blank or the end of a line; it is one word of \
                        letters, digits, \"_\" and \"-\"";
            return Err(chosen.problem(text.to_owned()));
        }
        Ok(Some(chosen))
    }

    /// A problem with the setting that gives the key.
    pub(super) fn problem(&self, text: String) -> Problem {
        problem(self.name, self.file.as_deref(), text)
    }
}

/// The setting in `environment` that gives a key, and its value: the key for `SLUICE_KEY`, otherwise the path of a
/// file.
///
/// # Errors
/// Both variables are set, and the option is not.
pub fn key_setting(environment: &Environment) -> Result<Option<(&'static str, &str)>, String> {
    let given = |name| Some((name, environment.get(name)?.trim())).filter(|(_, text)| !text.is_empty());
    match (given(KEY_OPTION), given(KEY_FILE), given(KEY)) {
        (None, Some(_), Some(_)) => Err(format!("{KEY} is set too; unset one of them")),
        (option, file, key) => Ok(option.or(file).or(key)),
    }
}

/// A problem with an option or a variable. Names the path of the file unless the path may be a secret.
fn problem(name: &str, file: Option<&Path>, text: String) -> Problem {
    let between = if name == KEY_OPTION { ' ' } else { '=' };
    let place = match file {
        Some(file) => format!("{name}{between}{}", visible(&shown_value(&file.to_string_lossy()))),
        None => name.to_owned(),
    };
    Problem { place: Place::Variable(place), key: String::new(), text }
}

/// The key in a file, without white space around it.
///
/// # Errors
/// The file cannot be read, or holds only white space. The error is the text of a problem, without the path.
pub fn key_in(path: &Path) -> Result<SecretString, String> {
    let text = read_secret(path)?;
    match text.expose_secret().trim() {
        "" => Err("the file that is named here holds no key; write one into it".to_owned()),
        key => Ok(key.into()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const LONG: &str = "slk_local_0123456789abcdef0123456789abcdef";

    fn of(pairs: &[(&str, &str)]) -> Result<Option<ChosenKey>, String> {
        ChosenKey::of(&pairs.iter().copied().collect()).map_err(|problem| problem.to_string())
    }

    #[test]
    fn the_key_comes_from_the_file_or_the_variable_and_not_from_both() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("{LONG}\n")).unwrap();
        let path = file.path().to_str().unwrap();
        let key = |pairs: &[(&str, &str)]| of(pairs).unwrap().unwrap().key.expose_secret().to_owned();
        assert_eq!(key(&[(KEY_FILE, path)]), LONG);
        assert_eq!(key(&[(KEY, &format!(" {LONG}\n"))]), LONG);
        assert_eq!(key(&[(KEY_FILE, path), (KEY, "")]), LONG);
        assert!(of(&[]).unwrap().is_none());
        assert!(of(&[(KEY_FILE, path), (KEY, LONG)]).unwrap_err().contains("unset one of them"));
    }

    #[test]
    fn what_is_wrong_with_a_key_is_said_without_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let empty = of(&[(KEY_FILE, path)]).unwrap_err();
        assert!(empty.starts_with(&format!("SLUICE_KEY_FILE={path}: ")) && empty.contains("holds no key"), "{empty}");
        // The option goes before the variables.
        let of_option = of(&[(KEY_OPTION, path), (KEY_FILE, "/absent"), (KEY, LONG)]).unwrap_err();
        assert!(of_option.starts_with(&format!("--key-file {path}: ")), "{of_option}");
        let absent = of(&[(KEY_FILE, LONG)]).unwrap_err();
        assert!(absent.contains("cannot be read") && !absent.contains(LONG), "{absent}");
        let short = of(&[(KEY, "hunter2")]).unwrap_err();
        assert!(short.contains("7 characters and needs at least 32") && !short.contains("hunter2"), "{short}");
        assert!(short.contains("openssl rand"), "{short}");
        std::fs::write(file.path(), format!("{LONG}\n{LONG}\n")).unwrap();
        let two = of(&[(KEY_FILE, path)]).unwrap_err();
        assert!(two.contains("no client can send") && !two.contains(LONG), "{two}");
    }
}
