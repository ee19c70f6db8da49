//! A client's conversation with a server, bound to its principal: it outlives connections, and its child.

mod child;
mod handshake;
mod id;
mod predecessors;
mod registry;
mod reviving;
mod sending;
#[expect(clippy::module_inception, reason = "the type, beside what serves it")]
mod session;
mod streams;
mod waiting;

pub use id::SessionId;
pub use registry::{Registry, Rejected, Settings};
pub use session::{Received, Session};
pub use streams::Transport;
