//! The HTTP side: connections are accepted under a permit, requests checked, authenticated and routed, and answered as
//! JSON or as a stream of events.

mod admin;
mod answer;
mod app;
mod bind;
mod body;
mod caller;
mod guard;
mod headers;
mod held;
mod idle;
mod linger;
mod listener;
mod message;
mod metadata;
mod paths;
mod problem;
mod router;
mod snapshot;
mod sse;
mod stall;
mod streamable;

pub use admin::Admin;
pub use app::App;
pub use listener::{Limits, Listener};
pub use router::{admin_router, router};
pub use snapshot::{Loopback, Snapshot};

#[cfg(test)]
mod tests;
