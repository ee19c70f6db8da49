//! A client's conversation with a server, bound to its principal: it outlives connections, and its child.

mod conversation;
mod id;
mod link;
mod registry;
#[expect(clippy::module_inception, reason = "the type, beside what serves it")]
mod session;
mod streams;

pub use conversation::{Conversation, Conversations, NewSession, Rejected};
pub use id::SessionId;
pub use registry::Registry;
pub use streams::Transport;
