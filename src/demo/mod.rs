//! The stdio MCP server that is built into the binary: something to share when nothing else is installed. It reaches
//! one workspace folder, and nothing outside it.
//!
//! It speaks newline-delimited JSON-RPC by itself, in the legacy revisions; it is a small server, not the gateway's
//! data path, and shares no code with it.
//!
//! - [`serve`] runs the conversation: lines in, lines out, calls side by side.
//! - [`Workspace`] is the folder; every path is resolved by the kernel, beneath one directory descriptor.
//! - [`Runner`] starts the programs of `run_command` through [`confine`], which restricts itself before it runs them.
#![expect(clippy::disallowed_types, reason = "a server of one client, whose lines are bounded")]

pub mod confine;
mod context;
mod error;
mod lines;
mod protocol;
mod run_command;
mod server;
mod tools;
mod workspace;

pub use error::Error;
pub use run_command::Runner;
pub use server::serve;
pub use tools::Toolbox;
pub use workspace::Workspace;
