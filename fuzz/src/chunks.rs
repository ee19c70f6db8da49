//! Cuts a stream into chunks.

/// Cuts `bytes` into chunks of 0 to 63 bytes, or as many times more as there are 2 KiB. Their lengths depend on the
/// `seed` and the length only. Every eighth seed cuts nothing.
pub fn chunks(seed: u8, bytes: &[u8]) -> Vec<&[u8]> {
    let (mut rest, mut state, mut chunks) = (bytes, u32::from(seed), Vec::new());
    if seed.is_multiple_of(8) {
        return vec![bytes];
    }
    while !rest.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = (state >> 26) as usize * (1 + bytes.len() / 2048);
        let (chunk, behind) = rest.split_at(length.min(rest.len()));
        chunks.push(chunk);
        rest = behind;
    }
    chunks
}
