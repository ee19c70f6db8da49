//! The envelope of a message, and the members that routing reads, beside what serde_json reads of the same bytes: the
//! same messages are accepted, with the same values, and a member that readers may understand differently is a fault.
#![no_main]

use sluice::jsonrpc::{
    Envelope, Kind, Members, Meta, ParseError, deeper_than, elements, is_id, member, parse, split_batch, text,
};
use sluice_fuzz::{Object, array, depth, is_json};

libfuzzer_sys::fuzz_target!(|message: &[u8]| {
    let json = is_json(message);
    let read = parse(message);
    match (json, &read) {
        (None, read) => assert!(matches!(read, Err(ParseError::NotJson(_))), "accepted, and no JSON: {read:?}"),
        (Some(json), Ok(envelope)) => {
            let expected = expected(json).unwrap_or_else(|| panic!("{json} is no message, and accepted"));
            assert_eq!(Values::of(envelope), expected);
            members(envelope);
        }
        (Some(json), Err(error)) => assert_eq!(expected(json), None, "refused: {error}"),
    }
    if let Some(json) = json {
        values(json);
    }
});

/// What an envelope says.
#[derive(Debug, PartialEq)]
struct Values<'a> {
    kind: Kind,
    id: Option<&'a str>,
    method: Option<String>,
    params: Option<&'a str>,
    result: Option<&'a str>,
    error: Option<&'a str>,
}

impl<'a> Values<'a> {
    fn of(envelope: &Envelope<'a>) -> Self {
        assert_eq!(envelope.is_error, envelope.error.is_some());
        let Envelope { kind, id, params, result, error, .. } = *envelope;
        Self { kind, id, method: envelope.method.as_deref().map(str::to_owned), params, result, error }
    }
}

/// The envelope by the rules of JSON-RPC 2.0 (sections 4 and 5) and MCP. `None` for what is no message.
fn expected(json: &str) -> Option<Values<'_>> {
    let object = Object::read(json)?;
    if ["jsonrpc", "id", "method", "params", "result", "error"].iter().any(|name| object.count(name) > 1) {
        return None;
    }
    let raw = |name: &str| object.0.iter().find(|(member, _)| member == name).map(|(_, value)| *value);
    let method = object.get("method").map(serde_json::from_str::<String>).transpose().ok()?;
    let (params, result, error) = (object.get("params"), raw("result"), object.get("error"));
    let id = object.get("id").filter(|id| id.starts_with(['"', '-']) || id.starts_with(|c: char| c.is_ascii_digit()));
    let is_structured = params.is_none_or(|params| params.starts_with(['{', '[']));
    if object.get("jsonrpc") != Some("\"2.0\"") || !is_structured || (params.is_some() && result.is_some()) {
        return None;
    }
    let kind = match (&method, raw("id")) {
        (Some(_), _) if result.is_some() || error.is_some() => return None,
        (Some(_), None) => Kind::Notification,
        (Some(_), Some(_)) => id.map(|_| Kind::Request)?,
        (None, _) if result.is_some() == error.is_some() => return None,
        (None, None) if result.is_some() => return None,
        (None, _) => Kind::Response,
    };
    Some(Values { kind, id, method, params, result, error })
}

fn members(envelope: &Envelope<'_>) {
    let Some(read) = envelope.params.or(envelope.result).filter(|value| value.starts_with('{')) else { return };
    let members = &envelope.members;
    if members.fault.is_some() {
        return;
    }
    let object = Object::read(read).unwrap_or_else(|| panic!("a name in {read} cannot be read, which is no fault"));
    let meta = object.get("_meta").map_or_else(Object::default, |meta| Object::read(meta).unwrap());
    for (name, value) in routed(members) {
        assert_eq!(value, object.get(name), "{name}");
        assert!(object.count(name) < 2, "{name} is there twice, which is no fault");
    }
    for (name, value) in routed_meta(&members.meta) {
        assert_eq!(value, meta.get(name), "_meta.{name}");
        assert!(meta.count(name) < 2, "_meta.{name} is there twice, which is no fault");
    }
    assert!(members.meta.progress_token.is_none_or(is_id));
}

fn routed<'a>(members: &Members<'a>) -> [(&'static str, Option<&'a str>); 13] {
    [
        ("progressToken", members.progress_token),
        ("requestId", members.request_id),
        ("uri", members.uri),
        ("level", members.level),
        ("taskId", members.task_id),
        ("elicitationId", members.elicitation_id),
        ("task", members.task),
        ("tasks", members.tasks),
        ("status", members.status),
        ("name", members.name),
        ("cursor", members.cursor),
        ("protocolVersion", members.protocol_version),
        ("capabilities", members.capabilities),
    ]
}

fn routed_meta<'a>(meta: &Meta<'a>) -> [(&'static str, Option<&'a str>); 3] {
    [
        ("progressToken", meta.progress_token),
        ("io.modelcontextprotocol/related-task", meta.related_task),
        ("io.modelcontextprotocol/protocolVersion", meta.protocol_version),
    ]
}

/// The readers of single values.
fn values(json: &str) {
    let trimmed = json.trim_ascii();
    if let Some(expected) = array(json) {
        let read: Result<Vec<_>, _> = elements(trimmed).collect();
        assert_eq!(read.as_ref(), Ok(&expected));
        assert_eq!(split_batch(json.as_bytes(), expected.len()).and_then(Result::ok), Some(expected.clone()));
        if let Some(fewer) = expected.len().checked_sub(1) {
            assert!(split_batch(json.as_bytes(), fewer).is_some_and(|batch| batch.is_err()));
        }
    } else {
        assert!(split_batch(json.as_bytes(), usize::MAX).is_none());
    }
    if let Some(object) = Object::read(json) {
        for (name, value) in &object.0 {
            assert_eq!(member(json, name), Some(*value).filter(|_| object.count(name) == 1), "{name}");
        }
    }
    let decoded = serde_json::from_str::<String>(trimmed).ok();
    assert_eq!(text(trimmed).as_deref(), decoded.as_deref());
    if let Some(depth) = depth(json) {
        assert_eq!(deeper_than(depth, json.as_bytes()), None);
        let shallower = depth.checked_sub(1).and_then(|less| deeper_than(less, json.as_bytes()));
        assert_eq!(shallower, (depth > 0).then_some(depth));
    }
}
