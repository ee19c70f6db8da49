//! The multiplexer, without I/O, rule by rule.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod rules;
