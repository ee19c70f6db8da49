//! The client side: what `tools`, `call` and `connect` speak to a gateway with. A URL that ends in `/sse` means
//! HTTP+SSE (2024-11-05), any other Streamable HTTP (2025-03-26 … 2025-11-25).

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

pub(super) use access::{Access, parse_url};
pub(super) use catalog::list_tools;
pub(super) use conversation::converse;
pub(super) use error::{EXIT_CODES, Error, TOOL_FAILED};
pub(super) use relay::relay;
pub(super) use remote::{display, http_client, reason};

/// Runs a client command to its end, on this thread.
///
/// # Errors
/// Where the system refuses a runtime.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(work);
    // A thread that still reads stdin is not waited for: it ends with the process.
    runtime.shutdown_background();
    Ok(outcome)
}

/// Makes the outcome of a command into its exit code, and says what went wrong.
pub(super) fn exit_code(outcome: Result<u8, Error>) -> std::process::ExitCode {
    let code = outcome.unwrap_or_else(|error| {
        super::terminal::note(&error.to_string());
        error.exit_code()
    });
    code.into()
}
