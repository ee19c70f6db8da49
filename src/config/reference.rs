//! A secret may stand elsewhere: `env:NAME` and `file:PATH` lead there. No error here repeats what was found.

use std::path::Path;

use secrecy::SecretString;

use super::environment::Environment;
use super::files::{MAX_SECRET, read_text};
use super::shown::shown_name;

/// What a configured value turned out to be.
pub(super) enum Resolved {
    /// It was a reference, or said to be literal.
    Referred(SecretString),
    /// It stands in the file itself.
    Literal(SecretString),
}

impl Resolved {
    pub(super) fn into_secret(self) -> SecretString {
        match self {
            Self::Referred(secret) | Self::Literal(secret) => secret,
        }
    }
}

/// Resolves `env:NAME` (a variable of the gateway), `file:PATH` (its content without the last line break, relative to
/// `folder`), `literal:TEXT` (TEXT, whatever it starts with) or a plain text.
///
/// # Errors
/// What is wrong and what to do, as the text of a problem.
pub(super) fn resolve(text: &str, environment: &Environment, folder: &Path) -> Result<Resolved, String> {
    if let Some(name) = text.strip_prefix("env:") {
        let value = environment.get(name).ok_or_else(|| {
            format!(
                "the variable {} is not set (in UTF-8) in the gateway's environment; set it, or write \"literal:\" before \
                 the text if that was meant",
                shown_name(name)
            )
        })?;
        return Ok(Resolved::Referred(value.into()));
    }
    if let Some(path) = text.strip_prefix("file:") {
        return read_secret(&folder.join(path)).map(Resolved::Referred);
    }
    Ok(match text.strip_prefix("literal:") {
        Some(rest) => Resolved::Referred(rest.into()),
        None => Resolved::Literal(text.into()),
    })
}

/// The content of a file without its last line break, which editors add.
pub(super) fn read_secret(path: &Path) -> Result<SecretString, String> {
    let mut text = read_file(path)?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.contains('\0') {
        return Err("the file that is named here holds a NUL character; it is not a text".to_owned());
    }
    Ok(text.into())
}

/// The text of a file that the configuration names.
pub(super) fn read_file(path: &Path) -> Result<String, String> {
    read_text(path, MAX_SECRET).map_err(|error| unreadable(&error))
}

/// What to say of a file that cannot be read. Its name is not repeated: a secret may stand in its place.
pub(super) fn unreadable(error: &std::io::Error) -> String {
    format!("the file that is named here cannot be read: {error}; correct the path or its permissions")
}
