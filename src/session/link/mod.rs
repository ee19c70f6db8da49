//! The way from a client's conversation to the children of a server: handshake, queue, dispatch, restart and draining.
//! Nothing here knows how the client is connected.

mod acquire;
mod children;
mod client;
mod context;
mod dispatch;
mod handshake;
#[expect(clippy::module_inception, reason = "the type, beside its parts")]
mod link;
mod queue;
mod slot;
mod state;

pub use client::Client;
pub use context::Target;
pub use link::Link;
