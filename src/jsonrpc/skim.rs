//! Finds the ids of the messages in a line that is too long to be kept, piece by piece, so that the callers that wait
//! for an answer can be told. An id is found before and behind a large `result`.
//!
//! Memory is bounded for any input: a counter of the nesting, one member name or id, and the ids found.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::envelope::Kind;
use super::id::RawId;

/// The longest member name that is read, in bytes as written, with its quotes. `method` with every letter escaped is
/// shorter.
const NAME: usize = 64;
/// The longest id that is read, in bytes as written, with its quotes. A message with a longer id is not found.
const ID: usize = 1024;
/// The most bytes that the ids found in one line may occupy, each counted with [`PLACE`]. Further ids are left out.
const IDS: usize = 64 * 1024;
/// The bytes that an id occupies besides its text, at most: its place in the list and an allocation.
const PLACE: usize = 64;

/// Reads the structure of a message or of a batch from pieces of any size.
#[derive(Debug, Default)]
pub(super) struct Skimmer {
    /// The number of bytes fed so far.
    bytes: usize,
    /// The number of open arrays and objects.
    depth: usize,
    /// The depth at which the members of a message stand: 1, or 2 in a batch. 0 before the first bracket.
    level: usize,
    lexeme: Lexeme,
    /// Whether an object that can be a message is open at depth `level`.
    in_message: bool,
    /// Whether the next text at depth `level` is the name of a member, and not a value.
    expects_name: bool,
    /// The member whose value is being read.
    member: Member,
    /// The bytes of the name or id that is being read. `None` while other text is read, and for a name or id that is
    /// too long.
    text: Option<Vec<u8>>,
    seen: Seen,
    found: Vec<(Kind, RawId)>,
    /// The bytes that `found` occupies, as counted for [`IDS`].
    kept: usize,
    /// Whether the message or batch has ended.
    is_over: bool,
    /// Whether the line cannot be JSON. Not every fault is noticed.
    is_broken: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Lexeme {
    #[default]
    Between,
    Text,
    /// Inside a string, directly behind a backslash.
    Escape,
    /// Inside a number or a word such as `true`.
    Scalar,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Member {
    Id,
    Method,
    /// `result` or `error`.
    Outcome,
    #[default]
    Other,
}

/// The id of the current message, and how often each member that decides about the kind of the message has appeared.
#[derive(Debug, Default)]
struct Seen {
    id: Option<RawId>,
    ids: usize,
    methods: usize,
    outcomes: usize,
}

impl Skimmer {
    /// Reads the next piece of the line.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        self.bytes += bytes.len();
        while !self.is_broken {
            bytes = match self.lexeme {
                Lexeme::Text => self.string(bytes),
                Lexeme::Between | Lexeme::Escape | Lexeme::Scalar => {
                    let Some((first, rest)) = bytes.split_first() else { return };
                    self.byte(*first);
                    rest
                }
            };
            if bytes.is_empty() {
                return;
            }
        }
    }

    /// The number of bytes fed so far.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The kinds and ids of the requests and responses in the line, in their order and within the bounds of [`ID`] and
    /// [`IDS`]. A message is left out if its `id` and its `method`, or its `result` or `error`, do not each appear
    /// once. Empty if the line is incomplete or cannot be JSON.
    pub(super) fn finish(self) -> Vec<(Kind, RawId)> {
        if self.is_over && !self.is_broken { self.found } else { Vec::new() }
    }

    /// Reads up to the end of a string or up to a backslash, and returns the bytes behind that.
    fn string<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let end = memchr::memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len());
        let (inside, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
        self.keep(inside);
        let Some((first, rest)) = rest.split_first() else { return rest };
        self.keep(std::slice::from_ref(first));
        if *first == b'\\' {
            self.lexeme = Lexeme::Escape;
        } else {
            self.lexeme = Lexeme::Between;
            self.end_of_lexeme();
        }
        rest
    }

    fn byte(&mut self, byte: u8) {
        if self.lexeme == Lexeme::Escape {
            self.keep(&[byte]);
            self.lexeme = Lexeme::Text;
            return;
        }
        let is_scalar = !matches!(byte, b'"' | b'{' | b'[' | b'}' | b']' | b',' | b':' | b' ' | b'\t' | b'\r' | b'\n');
        if self.lexeme == Lexeme::Scalar && !is_scalar {
            self.lexeme = Lexeme::Between;
            self.end_of_lexeme();
        }
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            _ if self.is_over => self.is_broken = true,
            b'{' | b'[' => self.open(byte == b'{'),
            _ if self.depth == 0 => self.is_broken = true,
            b'}' | b']' => self.close(),
            b',' if self.is_at_member() => (self.expects_name, self.member) = (true, Member::Other),
            b':' if self.is_at_member() => self.expects_name = false,
            b',' | b':' => {}
            _ => {
                if self.lexeme == Lexeme::Between {
                    let is_kept = self.is_at_member() && (self.expects_name || self.member == Member::Id);
                    self.text = is_kept.then(Vec::new);
                }
                self.lexeme = if byte == b'"' { Lexeme::Text } else { Lexeme::Scalar };
                self.keep(&[byte]);
            }
        }
    }

    fn is_at_member(&self) -> bool {
        self.in_message && self.depth == self.level
    }

    fn open(&mut self, is_object: bool) {
        if self.level == 0 {
            self.level = if is_object { 1 } else { 2 };
        }
        self.depth += 1;
        if self.depth == self.level {
            (self.in_message, self.expects_name, self.member) = (is_object, true, Member::Other);
            self.seen = Seen::default();
        }
    }

    fn close(&mut self) {
        if self.is_at_member() {
            self.in_message = false;
            self.end_of_message();
        }
        self.depth -= 1;
        self.is_over = self.depth == 0;
    }

    fn keep(&mut self, bytes: &[u8]) {
        let most = if self.expects_name { NAME } else { ID };
        if let Some(text) = &mut self.text {
            match text.len() + bytes.len() <= most {
                true => text.extend_from_slice(bytes),
                false => self.text = None,
            }
        }
    }

    fn end_of_lexeme(&mut self) {
        if !self.is_at_member() {
            return;
        }
        let text = self.text.take();
        if !self.expects_name {
            if self.member == Member::Id {
                let raw = text.as_deref().and_then(|text| serde_json::from_slice::<&RawValue>(text).ok());
                self.seen.id = raw.and_then(|raw| RawId::new(raw.get()));
            }
            return;
        }
        let name = text.as_deref().and_then(|text| serde_json::from_slice::<Name<'_>>(text).ok());
        self.member = match name.as_ref().map(|name| &*name.0) {
            Some("id") => Member::Id,
            Some("method") => Member::Method,
            Some("result" | "error") => Member::Outcome,
            _ => Member::Other,
        };
        match self.member {
            Member::Id => self.seen.ids += 1,
            Member::Method => self.seen.methods += 1,
            Member::Outcome => self.seen.outcomes += 1,
            Member::Other => {}
        }
    }

    fn end_of_message(&mut self) {
        let Seen { id, ids, methods, outcomes } = std::mem::take(&mut self.seen);
        let kind = match (ids, methods, outcomes) {
            (1, 1, 0) => Kind::Request,
            (1, 0, 1) => Kind::Response,
            // A notification, or a message that readers may understand differently.
            _ => return,
        };
        let Some(id) = id else { return };
        let kept = self.kept + id.as_str().len() + PLACE;
        if kept <= IDS {
            self.kept = kept;
            self.found.push((kind, id));
        }
    }
}

#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn skim(chunks: &[&[u8]]) -> Vec<(Kind, String)> {
        let mut skimmer = Skimmer::default();
        chunks.iter().for_each(|chunk| skimmer.feed(chunk));
        assert!(skimmer.text.as_ref().is_none_or(|text| text.capacity() <= 2 * ID) && skimmer.kept <= IDS);
        skimmer.finish().into_iter().map(|(kind, id)| (kind, id.as_str().to_owned())).collect()
    }

    fn one(text: &str) -> Option<(Kind, String)> {
        let mut found = skim(&[text.as_bytes()]);
        assert!(found.len() < 2, "{found:?}");
        found.pop()
    }

    #[test]
    fn an_id_is_found_wherever_it_stands() {
        for text in [
            r#"{"jsonrpc":"2.0","id":7,"result":{"id":8}}"#,
            r#"{"jsonrpc":"2.0","result":{"id":8,"x":[{"id":9}],"s":"\"id\":10,"},"id":7}"#,
            r#" { "result" : [] , "id" : 7 } "#,
            r#"{"\u0069d":7,"error":{"message":"}"}}"#,
            r#"{"result":"\\","id":7}"#,
            r#"{"id":7,"result":{"method":"x","id":1}}"#,
        ] {
            assert_eq!(one(text), Some((Kind::Response, "7".to_owned())), "{text}");
        }
        assert_eq!(
            one(r#"{"id":"a\"b","method":"x","params":{"result":1}}"#),
            Some((Kind::Request, r#""a\"b""#.into()))
        );
        let batch =
            br#"[{"id":1,"result":{}},{"method":"n"},[{"id":5,"result":1}],{"params":[],"id":"2","method":"m"}]"#;
        assert_eq!(skim(&[batch]), [(Kind::Response, "1".to_owned()), (Kind::Request, "\"2\"".to_owned())]);
    }

    #[test]
    fn nothing_is_found_where_nobody_can_tell() {
        let long = format!(r#"{{"id":"{}","result":1}}"#, "x".repeat(ID));
        for text in [
            r#"{"method":"notifications/x","params":{"id":7}}"#,
            r#"{"id":7,"id":8,"result":1}"#,
            r#"{"id":7,"result":1,"method":"x"}"#,
            r#"{"id":null,"result":1}"#,
            r#"{"id":{"id":7},"result":1}"#,
            r#"{"id":[7],"result":1}"#,
            r#"{"id":7x,"result":1}"#,
            r#"{"id":7,"result":1"#,
            r#"{"id":7,"result":1} x"#,
            r#"{"id":7,"result":1}}"#,
            r#"prose {"id":7,"result":1}"#,
            r#""{\"id\":7,\"result\":1}""#,
            "",
            "x",
            &long,
        ] {
            assert_eq!(one(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_kept_of_a_batch_without_end_is_bounded() {
        for (length, most) in [(1000, 61), (1, 978)] {
            let id = format!(r#"{{"id":"{}","result":1}}"#, "x".repeat(length));
            let batch = format!("[{}]", vec![id; 100_000 / length].join(","));
            assert_eq!(skim(&[batch.as_bytes()]).len(), most);
        }
        assert_eq!(skim(&[&vec![b'['; 1 << 20]]), []);
    }

    proptest! {
        #[test]
        fn it_finds_what_reading_all_of_it_finds_in_any_pieces(
            id in "(-?[1-9][0-9]{0,12}|\"[a-z\\\\]{0,4}\"|null|true)",
            value in "(\\{\"id\":1,\"a\":\"[\"\\\\{}\\[\\],: a]{0,6}\"\\}|\\[1,\\{\\}\\]|\"x\\\\\"y\"|1e5)",
            kind in 0_u8..3,
            id_last in any::<bool>(),
            cuts in prop::collection::vec(0_usize..200, 0..8),
        ) {
            let rest = match kind {
                0 => format!(r#""result":{value}"#),
                1 => format!(r#""method":"m","params":[{value}]"#),
                _ => format!(r#""error":{value}"#),
            };
            let text = match id_last {
                true => format!(r#"{{"jsonrpc":"2.0",{rest},"id":{id}}}"#),
                false => format!(r#"{{"jsonrpc":"2.0","id":{id},{rest}}}"#),
            };
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.array_windows().filter_map(|[from, to]| bytes.get(*from..*to)).collect();
            if let Ok(envelope) = crate::jsonrpc::parse(bytes) {
                let expected: Vec<_> = envelope.id.map(|id| (envelope.kind, id.to_owned())).into_iter().collect();
                prop_assert_eq!(skim(&chunks), expected);
            }
        }
    }
}
