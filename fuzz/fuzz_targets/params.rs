//! What the gateway replaces in a message: ids and progress tokens. Everything else stays byte for byte, but for line
//! breaks between the parts of a message, which become blanks in a frame. What is replaced back is what it was.
#![no_main]

use sluice::jsonrpc::{
    Envelope, Kind, RawId, Splice, canonical, notification_frame, parse, quoted, request_frame, response_frame, splice,
    under_id, without,
};
use sluice_fuzz::{Object, is_json};

const NUMBER: u64 = 12_345_678_901_234;
const NEW: &str = "12345678901234";

libfuzzer_sys::fuzz_target!(|message: &[u8]| {
    if let Some(json) = is_json(message) {
        forms(json);
    }
    let Ok(envelope) = parse(message) else { return };
    match envelope.kind {
        Kind::Response => response(message, &envelope),
        Kind::Request | Kind::Notification => call(&envelope),
    }
    identity(message, &envelope);
});

/// The frame of a call.
fn call(envelope: &Envelope<'_>) {
    let is_request = envelope.kind == Kind::Request;
    let old = match is_request {
        true => envelope.members.meta.progress_token,
        false => envelope.members.request_id.or(envelope.members.progress_token),
    };
    let mut replacements: Vec<_> = old.map(|old| Splice { old, new: NEW }).into_iter().collect();
    let frame = match is_request {
        true => request_frame(NUMBER, envelope, &mut replacements),
        false => notification_frame(envelope, &mut replacements),
    };
    let params = envelope.params.map_or_else(String::new, |params| format!(",\"params\":{}", replaced(params, old)));
    let id = if is_request { format!(",\"id\":{NEW}") } else { String::new() };
    let method = envelope.method.as_deref().unwrap_or_default();
    let expected = format!("{{\"jsonrpc\":\"2.0\"{id},\"method\":{}{params}}}", quoted(method));
    let written = std::str::from_utf8(&frame).unwrap();
    // A method may be written with fewer escapes than it needs to be, which says the same.
    let read = parse(frame.trim_ascii_end()).unwrap();
    assert_eq!(read.method.as_deref(), Some(method));
    assert_eq!((read.kind, read.id), (envelope.kind, is_request.then_some(NEW)));
    let one_line = |text: &str| text.replace(['\r', '\n'], " ");
    assert_eq!(written.strip_suffix('\n').map(|line| line.contains(['\r', '\n'])), Some(false));
    if written.contains(&quoted(method)) {
        assert_eq!(written, one_line(&expected) + "\n");
    }
    assert_eq!(read.params, envelope.params.map(|params| one_line(&replaced(params, old))).as_deref());
}

/// `text` with [`NEW`] in the place of its part `old`.
fn replaced(text: &str, old: Option<&str>) -> String {
    let Some(old) = old else { return text.to_owned() };
    let start = old.as_ptr() as usize - text.as_ptr() as usize;
    format!("{}{NEW}{}", &text[..start], &text[start + old.len()..])
}

/// The frame of a response.
fn response(message: &[u8], envelope: &Envelope<'_>) {
    let (name, outcome) = match envelope.result {
        Some(result) => ("result", result),
        None => ("error", envelope.error.unwrap()),
    };
    let expected = format!("{{\"jsonrpc\":\"2.0\",\"id\":{NEW},\"{name}\":{outcome}}}").replace(['\r', '\n'], " ");
    assert_eq!(response_frame(NEW, envelope), expected + "\n");
    let renamed = under_id(message, &RawId::from(NUMBER));
    let read = parse(&renamed).unwrap();
    assert_eq!(read.id, envelope.id.map(|_| NEW));
    assert_eq!((read.kind, read.result, read.error), (envelope.kind, envelope.result, envelope.error));
}

/// Another id and back again.
fn identity(message: &[u8], envelope: &Envelope<'_>) {
    let Some(old) = envelope.id else { return };
    let there = splice(message, &mut [Splice { old, new: NEW }]);
    let start = old.as_ptr() as usize - message.as_ptr() as usize;
    assert_eq!(there, [&message[..start], NEW.as_bytes(), &message[start + old.len()..]].concat());
    let read = parse(&there).unwrap();
    assert_eq!(read.id, Some(NEW));
    let back = splice(&there, &mut [Splice { old: read.id.unwrap(), new: old }]);
    assert_eq!(back, message);
    assert_eq!(envelope.raw_id().as_ref().map(RawId::as_str), Some(old));
}

/// Values that are written anew.
fn forms(json: &str) {
    let form = canonical(json);
    assert_eq!(canonical(&form), form, "the canonical form has another");
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    assert_eq!(value(json), value(&form), "the canonical form is another value");
    let kept = without(json, |name| name == "_meta");
    if let Some(object) = Object::read(json) {
        let expected: Vec<_> = object.0.into_iter().filter(|(name, _)| name != "_meta").collect();
        assert_eq!(Object::read(&kept).map(|kept| format!("{:?}", kept.0)), Some(format!("{expected:?}")));
    }
}
