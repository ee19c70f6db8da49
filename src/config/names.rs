//! The names that appear in URLs, log lines and metric labels: checked once, here, and bounded in length.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Why a string cannot be a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a name: use 1 to 64 letters, digits, '-', '_' or '.', starting with a letter or a digit")]
pub struct InvalidName(String);

fn check(text: &str) -> Result<Arc<str>, InvalidName> {
    let starts = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if starts && rest && text.len() <= 64 { Ok(text.into()) } else { Err(InvalidName(text.chars().take(80).collect())) }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                check(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// Who pays: the unit that servers, quotas and secrets belong to.
    TenantId
}
name! {
    /// A configured stdio MCP server, as it stands in `/servers/{name}/…`.
    ServerName
}

impl TenantId {
    /// The tenant of a configuration that names none (no file, or an `mcpServers` file): `default`.
    pub fn fallback() -> Self {
        Self(Arc::from("default"))
    }
}
