//! Sessions: a client's conversation with a server, bound to its principal. A session outlives connections and
//! children.

mod conversation;
mod id;
mod idle_index;
mod link;
mod place;
mod registry;
#[expect(clippy::module_inception, reason = "the type, beside its parts")]
mod session;
mod streams;

pub use conversation::{Conversation, Conversations, NewSession, Rejected};
pub use id::SessionId;
pub use link::{Client, Link, Target};
pub use registry::Registry;
pub use streams::Transport;
