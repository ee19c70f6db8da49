//! The multiplexer, without I/O: a test for each rule, and all of them together against a model.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod causes;
mod deadlines;
mod model;
mod property;
mod readers;
mod rules;
mod shares;
mod story;
mod subscriptions;
mod tasks;
mod tokens;
mod wishes;
