#![expect(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod fixture;
mod rmcp;
mod stdio_demo;
