//! The integration tests: one binary, a module a subject. Those of the gateway run a real one with real children
//! (`harness`).
#![expect(missing_docs, reason = "tests")]
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod binary;
mod client;
mod crash;
mod environment;
mod fixture;
mod framing;
mod harness;
mod limits;
mod proc;
mod scene;
mod secrets;
mod sse;
mod start_failures;
mod stderr;
mod stdio_demo;
mod stop;
mod ugly;
