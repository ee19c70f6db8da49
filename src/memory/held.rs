//! Bytes that own their charge.

use bytes::Bytes;

use super::charge::Charge;

/// What a message takes beside its bytes, in bytes: the owner of the charge, and the entry of a queue.
pub(super) const OVERHEAD: usize = 256;

/// Bytes and their charge, dropped together.
struct Held {
    bytes: Bytes,
    _charge: Charge,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The same bytes, which keep the charge until their last clone or slice is dropped.
pub(super) fn holding(bytes: Bytes, charge: Charge) -> Bytes {
    Bytes::from_owner(Held { bytes, _charge: charge })
}
