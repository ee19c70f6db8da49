//! The MCP client of `tools`, `call` and `connect`. A URL whose path ends in `/sse` means HTTP+SSE (2024-11-05), any
//! other Streamable HTTP (2025-03-26 … 2025-11-25).

mod access;
mod catalog;
mod conversation;
mod error;
mod events;
mod message;
mod relay;
mod remote;
mod schema;
mod sse;
mod streamable;
mod transport;
mod unshown;

pub(super) use access::{Access, parse_url};
pub(super) use catalog::list_tools;
pub(super) use conversation::converse;
pub(super) use error::{EXIT_CODES, Error, TOOL_FAILED};
#[cfg(feature = "fuzzing")]
pub use events::{ReadEvents, read_events};
pub(super) use relay::relay;
pub(super) use remote::{display, http_client, reason};
pub(super) use unshown::Unshown;

/// Runs a client command on this thread until it ends.
///
/// # Errors
/// The system gives no resources for a runtime.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(work);
    // A thread that still reads stdin is not waited for: it ends with the process.
    runtime.shutdown_background();
    Ok(outcome)
}

/// The exit code for the outcome of a command. Writes an error to stderr.
pub(super) fn exit_code(outcome: Result<u8, Error>) -> std::process::ExitCode {
    let code = outcome.unwrap_or_else(|error| {
        super::terminal::note(&error.to_string());
        error.exit_code()
    });
    code.into()
}
