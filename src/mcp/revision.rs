//! The revisions of MCP that the gateway, its client and the built-in server speak.

/// The revisions that are spoken, the latest first.
pub const SPOKEN: [&str; 4] = [LATEST, "2025-06-18", WITH_BATCHES, "2024-11-05"];

/// The latest of [`SPOKEN`]: what the client offers, and what the built-in server offers for an unknown revision.
pub const LATEST: &str = "2025-11-25";

/// The only revision with JSON-RPC batches over HTTP.
pub const WITH_BATCHES: &str = "2025-03-26";

/// The first revision without JSON-RPC batches. Revisions are dates: earlier ones compare as less.
pub const WITHOUT_BATCHES: &str = "2025-06-18";

/// The stateless revision. The gateway recognises this revision so that clients can be told to fall back.
pub const STATELESS: &str = "2026-07-28";
