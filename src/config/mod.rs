//! The configuration: read, checked as a whole, and passed on as plain values. A [`Config`] is valid. For an invalid
//! file all problems are reported at once, each with its place.
//!
//! `source` merges the file and the environment, `section` reads one table by type, and one file each reads `[http]`,
//! `[auth]`, `[auth.jwt]`, `[sandbox]`, `[tenants]` and `[servers]`; `load` combines them. `mcp_servers` reads the
//! format of desktop clients.

mod accounts;
mod api_key;
mod auth;
mod authority;
mod chosen_key;
mod contenders;
mod defaults;
mod environment;
mod files;
mod http;
mod jwt;
mod load;
mod mcp_servers;
mod memory;
mod model;
mod names;
mod own;
mod pool;
mod problem;
mod program;
mod proxies;
mod reading;
mod reference;
mod resources;
mod sandbox;
mod secrets;
mod section;
mod server;
mod servers;
mod shown;
mod source;
mod suggest;
mod tenants;
mod tools;
mod units;

#[cfg(test)]
mod tests;

pub use accounts::{Account, home_of, homes};
pub use api_key::KEY_START;
pub use authority::{Authority, Host, InvalidAuthority, Origin, is_loopback_address};
pub use chosen_key::{ChosenKey, KEY, KEY_FILE, KEY_OPTION, key_in, key_setting};
pub use contenders::{Contenders, Rivals};
pub use environment::Environment;
pub use files::read_bounded;
pub use jwt::min_secret;
pub use load::Loaded;
pub use model::*;
pub use names::{InvalidName, ServerName, TenantId};
pub use own::OwnFile;
pub use problem::{Place, Problem, Problems};
pub use program::{RUNNING, SELF};
pub use proxies::{ForwardedHeader, Proxies};
pub use resources::may_raise_limits;
pub use sandbox::{Allowance, Sandbox, SandboxMode, SandboxOpen};
pub use secrets::key_warning;
pub use server::*;
pub use shown::shown_value;
pub use tools::{Resend, Tool};
pub use units::{InvalidUnit, parse_bytes, parse_duration, show_bytes, show_duration};
