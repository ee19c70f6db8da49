//! Replaces parts of a message without decoding the rest, for example the id.

use bytes::{BufMut as _, Bytes, BytesMut};

/// One replacement in a message.
#[derive(Debug, Clone, Copy)]
pub struct Splice<'a> {
    /// The text to replace: a slice of the message itself, found by its address and not by its content.
    pub old: &'a str,
    /// The new text.
    pub new: &'a str,
}

/// A copy of `message` with all `replacements` made, which may be in any order and are sorted. A replacement is ignored
/// if its `old` is not a slice of `message` or overlaps an earlier one.
pub fn splice(message: &[u8], replacements: &mut [Splice<'_>]) -> BytesMut {
    let mut out = BytesMut::with_capacity(spliced_len(message, replacements));
    put_spliced(&mut out, message, replacements);
    out
}

/// The length of `message` with all `replacements` made. A buffer of just this capacity becomes [`Bytes`] without
/// another allocation.
pub(super) fn spliced_len(message: &[u8], replacements: &[Splice<'_>]) -> usize {
    let (old, new) = replacements.iter().fold((0, 0), |(old, new), r| (old + r.old.len(), new + r.new.len()));
    (message.len() + new).saturating_sub(old)
}

/// Appends `message` to `out` with all `replacements` made, under the rules of [`splice`].
pub(super) fn put_spliced(out: &mut BytesMut, message: &[u8], replacements: &mut [Splice<'_>]) {
    let base = message.as_ptr() as usize;
    replacements.sort_unstable_by_key(|r| r.old.as_ptr() as usize);
    let mut copied = 0_usize;
    for replacement in replacements.iter() {
        let Some(start) = (replacement.old.as_ptr() as usize).checked_sub(base) else { continue };
        let Some(before) = message.get(copied..start) else { continue };
        let end = start + replacement.old.len();
        if end > message.len() {
            continue;
        }
        out.put_slice(before);
        out.put_slice(replacement.new.as_bytes());
        copied = end;
    }
    out.put_slice(message.get(copied..).unwrap_or_default());
}

/// Puts a valid JSON text on one line and appends a newline. Raw CR and LF, which can only be white space there, become
/// blanks (stdio transport: messages must not contain embedded newlines).
pub fn one_line(mut message: BytesMut) -> BytesMut {
    if memchr::memchr2(b'\n', b'\r', &message).is_some() {
        for byte in message.iter_mut().filter(|byte| matches!(**byte, b'\n' | b'\r')) {
            *byte = b' ';
        }
    }
    message.put_u8(b'\n');
    message
}

/// A short message of the gateway's own as the frame for a child: valid JSON on one line, with a newline.
pub fn own_frame(message: &[u8]) -> Bytes {
    one_line(BytesMut::from(message)).freeze()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::jsonrpc::{RawId, parse};

    #[test]
    fn only_the_id_changes() {
        let text = r#"{"id": "é\"1" ,"jsonrpc":"2.0","method":"m","params":{"id":"é\"1"}}"#;
        let envelope = parse(text.as_bytes()).unwrap();
        let there = splice(text.as_bytes(), &mut [Splice { old: envelope.id.unwrap(), new: "42" }]).freeze();
        assert_eq!(there, r#"{"id": 42 ,"jsonrpc":"2.0","method":"m","params":{"id":"é\"1"}}"#);
        let back = parse(&there).unwrap();
        let again =
            splice(&there, &mut [Splice { old: back.id.unwrap(), new: RawId::new(r#""é\"1""#).unwrap().as_str() }]);
        assert_eq!(again, text);
    }

    #[test]
    fn several_replacements_in_any_order_and_foreign_ones_left_out() {
        let text = "abc def ghi";
        let mut replacements = [
            Splice { old: &text[8..], new: "3" },
            Splice { old: &text[..3], new: "1" },
            Splice { old: "xyz", new: "?" },
        ];
        assert_eq!(splice(text.as_bytes(), &mut replacements), "1 def 3");
    }

    #[test]
    fn newlines_become_blanks() {
        assert_eq!(one_line(BytesMut::from("{\r\n\"a\": \"\\n\"}")), "{  \"a\": \"\\n\"}\n");
    }
}
