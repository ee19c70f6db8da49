//! Bytes that own their charge.

use bytes::Bytes;

use super::charge::Charge;

/// What a message takes beside its bytes, in bytes: the owner of the charge, and the entry of a queue.
pub(super) const OVERHEAD: usize = 256;

/// Bytes and their charge, dropped together.
struct Held<T> {
    bytes: T,
    _charge: Charge,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Held<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

/// The same bytes, which keep the charge until their last clone or slice is dropped.
pub(super) fn holding<T: AsRef<[u8]> + Send + 'static>(bytes: T, charge: Charge) -> Bytes {
    Bytes::from_owner(Held { bytes, _charge: charge })
}
