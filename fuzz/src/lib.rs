//! What several targets need: chunks of a stream, and another reader of JSON to compare with.

mod chunks;
mod json;

pub use chunks::chunks;
pub use json::{Object, array, depth, is_json};
