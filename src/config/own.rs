//! The files and folders of the gateway's own, which no server should reach: collected while the configuration that
//! names them is read.

use std::path::PathBuf;

/// A file or a folder of the gateway's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnFile {
    /// The key that names it, with dots; empty for the configuration itself.
    pub key: String,
    /// Where it is.
    pub path: PathBuf,
    /// Whether it is enough to read it to do harm. Who can change one can do harm always.
    pub is_secret: bool,
}

impl OwnFile {
    /// The file with the whole configuration.
    pub(super) fn configuration(path: PathBuf) -> Self {
        Self { key: String::new(), path, is_secret: true }
    }

    /// Whether it holds what a server is given anyway.
    pub fn is_for(&self, server: &super::ServerName) -> bool {
        self.key
            .strip_prefix("servers.")
            .and_then(|rest| rest.strip_prefix(server.as_str()))
            .is_some_and(|rest| rest.starts_with('.'))
    }
}
