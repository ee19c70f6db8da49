//! The HTTP layer: accepts connections, checks, authenticates and routes requests, and answers them with JSON or event
//! streams.

mod admin;
mod answer;
mod app;
mod bind;
mod body;
mod caller;
mod connection;
mod connection_memory;
mod connection_table;
mod forwarded;
mod forwarded_element;
mod forwarded_requests;
mod frames;
mod guard;
mod head_timer;
mod headers;
mod http2_body;
mod idle;
mod limits;
mod linger;
mod listener;
mod message;
mod metadata;
mod network;
mod paths;
mod peer;
mod problem;
mod proxy_protocol;
mod request_body;
mod request_head;
mod router;
mod snapshot;
mod sse;
mod stall;
mod streamable;
mod turn;
mod wakes;
mod when_woken;

pub use admin::Admin;
pub use app::App;
#[cfg(feature = "fuzzing")]
pub use forwarded::client as forwarded_client;
pub use listener::Listener;
#[cfg(feature = "fuzzing")]
pub use paths::{endpoint, named_server, resource};
#[cfg(feature = "fuzzing")]
pub use proxy_protocol::read as read_proxy_header;
pub use router::Router;
pub use snapshot::{Loopback, Snapshot};

#[cfg(test)]
mod tests;
