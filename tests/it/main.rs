//! The integration tests: one binary, a module a subject. Those of the gateway run a real one with real children
//! (`harness`).
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]
#![expect(clippy::print_stdout, reason = "tests that measure print what they measured")]

mod access;
mod batch;
mod binary;
mod child_limits;
mod client;
mod crash;
mod environment;
mod escape;
mod fixture;
mod framing;
mod guardian;
mod harness;
mod ids;
mod keep_alive;
mod killed;
mod layers;
mod limits;
mod messages;
mod metrics;
mod pool;
mod proc;
mod requests;
mod resend;
mod rmcp;
mod sandbox;
mod scene;
mod secrets;
mod server_requests;
mod shared;
mod shared_neighbours;
mod shared_restart;
mod shutdown;
mod sse;
mod start_failures;
mod stderr;
mod stdio_demo;
mod stop;
mod streamable;
mod talk;
mod tenant_limits;
mod tool_timeouts;
mod ugly;
mod wedged;
