//! The integration tests: one binary, a module a subject. Those of the gateway run a real one with real children
//! (`harness`).
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod batch;
mod commands;
mod fixture;
mod harness;
mod layers;
mod requests;
mod rmcp;
mod sse;
mod stdio_demo;
mod streamable;
