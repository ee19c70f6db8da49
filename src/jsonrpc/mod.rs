//! JSON-RPC 2.0 as bytes: reads the envelope of a message and carries the rest unchanged. Independent of HTTP, sessions
//! and child processes.

mod canonical;
mod envelope;
mod error;
mod frame;
mod framing;
mod id;
mod members;
mod read_members;
mod scan;
mod skim;
mod splice;
mod string;

pub use canonical::{canonical, without};
pub use envelope::{BatchError, Envelope, Kind, ParseError, deeper_than, parse, split_batch};
pub use error::{Code, empty_response, error_response, error_response_with_data};
pub use frame::{notification_frame, own_request, quoted, request_frame, response_frame, under_id};
pub use framing::{FREE, Frame, Framer, Oversized};
pub use id::RawId;
pub use members::{Fault, Members, Meta, find_like, is_id, is_like};
pub use read_members::ReadMembers;
pub use scan::{Malformed, all_members, batch, elements, member};
pub use splice::{Splice, one_line, own_frame, splice};
pub use string::text;
