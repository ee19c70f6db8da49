//! The client commands against a gateway that does on purpose what a good one never does.
#![expect(clippy::disallowed_methods, reason = "what is run, read and served here is the test's own, and small")]

mod call;
mod connect;
mod failures;
mod program;
mod stub;
