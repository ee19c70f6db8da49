//! The files and folders of the gateway itself, which no server should reach.

use std::path::PathBuf;

/// A file or folder of the gateway itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnFile {
    /// The configuration key or the setting that names the file. Empty for the configuration file.
    pub key: String,
    /// The path, as configured.
    pub path: PathBuf,
    /// Whether reading the file does harm. Changing any of these files does.
    pub is_secret: bool,
}

impl OwnFile {
    /// The configuration file itself.
    pub(super) fn configuration(path: PathBuf) -> Self {
        Self { key: String::new(), path, is_secret: true }
    }

    /// Whether a key of this server names the file, so that the server gets the content anyway.
    pub fn is_for(&self, server: &super::ServerName) -> bool {
        self.key
            .strip_prefix("servers.")
            .and_then(|rest| rest.strip_prefix(server.as_str()))
            .is_some_and(|rest| rest.starts_with('.'))
    }
}
