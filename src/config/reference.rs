//! Resolves references to secrets: `env:NAME` and `file:PATH`. No error here contains a secret.

use std::path::Path;

use secrecy::SecretString;

use super::environment::Environment;
use super::files::{MAX_SECRET, read_text};
use super::shown::shown_name;

/// The secret that a configured value stands for.
pub(super) struct Resolved {
    /// The secret.
    pub(super) secret: SecretString,
    /// Whether the secret stands in the configuration itself, without `literal:` before it.
    pub(super) is_plain: bool,
}

/// Resolves `env:NAME` (a variable of `environment`), `file:PATH` (the content of a file without its last line break;
/// relative to `folder`) and `literal:TEXT` (TEXT). Other text stands for itself.
///
/// # Errors
/// The variable is not set, or the file cannot be read. The error is the text of a problem.
pub(super) fn resolve(text: &str, environment: &Environment, folder: &Path) -> Result<Resolved, String> {
    let referred = |secret| Ok(Resolved { secret, is_plain: false });
    if let Some(name) = text.strip_prefix("env:") {
        let value = environment.get(name).ok_or_else(|| {
            format!(
                "the variable {} is not set (in UTF-8) in the gateway's environment; set it, or write \"literal:\" before \
                 the text if that was meant",
                shown_name(name)
            )
        })?;
        return referred(value.into());
    }
    if let Some(path) = text.strip_prefix("file:") {
        return referred(read_secret(&folder.join(path))?);
    }
    match text.strip_prefix("literal:") {
        Some(rest) => referred(rest.into()),
        None => Ok(Resolved { secret: text.into(), is_plain: true }),
    }
}

/// The content of a file of at most 64 KiB, without its last line break, which editors add. A NUL in it is an error.
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

/// The text of a file of at most 64 KiB. The error is the text of a problem, without the path.
pub(super) fn read_file(path: &Path) -> Result<String, String> {
    read_text(path, MAX_SECRET).map_err(|error| unreadable(&error))
}

/// The text of the problem that a file cannot be read. Without the path, because a secret may stand in its place.
pub(super) fn unreadable(error: &std::io::Error) -> String {
    format!("the file that is named here cannot be read: {error}; correct the path or its permissions")
}
