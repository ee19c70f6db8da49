//! The integration tests: one binary, a module a subject. Those of the gateway run a real one with real children
//! (`harness`).
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod access;
mod batch;
mod commands;
mod fixture;
mod guardian;
mod harness;
mod ids;
mod keep_alive;
mod layers;
mod limits;
mod messages;
mod metrics;
mod requests;
mod rmcp;
mod server_requests;
mod shutdown;
mod sse;
mod stdio_demo;
mod streamable;
