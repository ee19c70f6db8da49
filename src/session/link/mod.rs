//! The way from a client's conversation to a child process of its server: handshake, queue, dispatch, restart and draining.

pub(super) mod acquire;
mod dispatch;
pub(super) mod draining;
pub(super) mod handshake;
pub(super) mod queue;
mod restart;
