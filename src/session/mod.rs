//! A client's conversation with a server, bound to its principal: it outlives connections, and its child.

mod id;
mod link;
mod registry;
#[expect(clippy::module_inception, reason = "the type, beside what serves it")]
mod session;
mod streams;

pub use id::SessionId;
pub use registry::{NewSession, Registry, Rejected};
pub use session::{Received, Session};
pub use streams::Transport;
