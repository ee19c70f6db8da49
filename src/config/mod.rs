//! The configuration: read, validated as a whole, and handed out as plain values.

mod model;
mod names;

pub use model::*;
pub use names::{InvalidName, ServerName, TenantId};
