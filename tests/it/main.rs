//! The integration tests: the real binary, real sockets on loopback, one file a subject.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod client;
mod fixture;
mod rmcp;
mod stdio_demo;
