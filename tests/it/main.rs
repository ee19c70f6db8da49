//! The integration tests: one binary, a module a subject. Those of the gateway run a real one with real children
//! (`harness`).
#![expect(missing_docs, reason = "tests")]
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod fixture;
mod harness;
mod sse;
mod stdio_demo;
