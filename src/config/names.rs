//! Names of tenants and servers, for URLs, log lines and metric labels. Each is checked once, here.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The error for a text that is not a name. Contains at most 80 characters of the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a name: use 1 to 64 letters, digits, '-', '_' or '.', starting with a letter or a digit")]
pub struct InvalidName(String);

/// Checks the form of a name: 1 to 64 characters `A-Z a-z 0-9 - _ .`, of which the first is a letter or a digit.
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
    /// The name of a tenant, which pays for the use of servers and has limits.
    TenantId
}
name! {
    /// The name of a configured stdio MCP server, as in the path `/servers/{name}/…`.
    ServerName
}

impl TenantId {
    /// The only tenant, `default`, of a configuration without tenants of its own (no file, or an `mcpServers` file).
    pub fn fallback() -> Self {
        Self(Arc::from("default"))
    }
}
