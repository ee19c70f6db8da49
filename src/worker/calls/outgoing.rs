//! What becomes of a client's request.

use bytes::Bytes;

/// What becomes of a request.
#[derive(Debug)]
pub(in crate::worker) enum Outgoing {
    /// The number that the child knows the call by, and the frame for the child. The child's answer will come.
    Forward(u64, Bytes),
    /// The gateway's own answer.
    Local(Bytes),
    /// The answer to the subscribe of another session will be the answer.
    Wait,
}
