//! The multiplexer, without I/O: a test for each rule, and all of them together against a model.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]
#![expect(clippy::disallowed_types, reason = "tests")]

mod causes;
mod cost;
mod deadlines;
mod model;
mod property;
mod readers;
mod rules;
mod shares;
mod standing_requests;
mod story;
mod subscriptions;
mod tasks;
mod tokens;
mod whole;
