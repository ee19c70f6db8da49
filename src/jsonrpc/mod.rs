//! JSON-RPC 2.0 as bytes: the envelope is read, the rest is carried. Nothing here knows of HTTP, sessions or children.

mod envelope;
mod error;
mod framing;
mod id;
mod skim;
mod splice;

pub use envelope::{Envelope, Kind, ParseError, depth, parse, split_batch};
pub use error::{Code, empty_response, error_response, error_response_with_data};
pub use framing::{Frame, Framer, Oversized};
pub use id::RawId;
pub use splice::{Splice, one_line, splice, under_id};
