//! What the fuzz targets in `fuzz/` call and nobody else outside of this crate does. Not part of the library: there
//! only with the feature `fuzzing`.

pub use crate::cli::{ReadEvents, read_events};
pub use crate::http::{endpoint, forwarded_client, named_server, read_proxy_header, resource};
pub use crate::process::sandbox::{UntrustedPaths, in_arguments};
pub use crate::stream::encode_message;
pub use crate::worker::is_part_of;
