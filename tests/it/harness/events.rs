//! Server-Sent Events, cut out of a body.

/// An event, or a comment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// As it was written, with the empty line.
    pub(crate) raw: String,
    /// Its `event` field.
    pub(crate) event: Option<String>,
    /// Its `data` field.
    pub(crate) data: Option<String>,
    /// Its `retry` field.
    pub(crate) retry: Option<String>,
}

impl Event {
    /// Whether there is nothing in it but a comment.
    pub(crate) fn is_comment(&self) -> bool {
        self.raw.starts_with(':') && self.data.is_none() && self.event.is_none()
    }
}

/// Takes the first whole event off the buffer.
pub(super) fn take(buffer: &mut Vec<u8>) -> Option<Event> {
    let end = memchr::memmem::find(buffer, b"\n\n")? + 2;
    let raw = String::from_utf8(buffer.drain(..end).collect()).unwrap();
    let field = |name: &str| {
        let mut values = raw.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let value = values.next().map(str::to_owned);
        assert_eq!(values.next(), None, "a second {name} in {raw:?}");
        value
    };
    let (event, data, retry) = (field("event"), field("data"), field("retry"));
    Some(Event { event, data, retry, raw })
}
