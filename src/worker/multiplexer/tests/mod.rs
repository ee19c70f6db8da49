//! The multiplexer, without I/O: a test for each rule, and all of them together against a model.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod model;
mod property;
mod rules;
