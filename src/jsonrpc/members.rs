//! Reads the members of `params` and `result` that decide where a message goes (MCP). All other members stay raw bytes.
//!
//! JSON readers disagree about some objects: some fold the case of names, some accept a second spelling of a name, some
//! take the first of two members of one name and some the last. A [`Fault`] reports a member that readers may disagree
//! about.

use super::scan::{Malformed, Scanner};
use super::string::unquoted;

/// Raw values of members of `params` or `result`. `None` for a member that is absent or `null`. Of two members of one
/// name the last counts, and `fault` reports them.
#[derive(Debug, Default, Clone, Copy)]
pub struct Members<'a> {
    /// The members of `_meta`.
    pub meta: Meta<'a>,
    /// `progressToken`: in a progress notification, the token of the request that makes progress.
    pub progress_token: Option<&'a str>,
    /// `requestId`: in a cancellation, the id of the cancelled request.
    pub request_id: Option<&'a str>,
    /// `uri` of a resource.
    pub uri: Option<&'a str>,
    /// `level` of logging.
    pub level: Option<&'a str>,
    /// `taskId`.
    pub task_id: Option<&'a str>,
    /// `elicitationId`.
    pub elicitation_id: Option<&'a str>,
    /// `task`: in params, the client's wish to run the request as a task; in a result, the task that was created.
    pub task: Option<&'a str>,
    /// `tasks`, a list.
    pub tasks: Option<&'a str>,
    /// `status` of a task.
    pub status: Option<&'a str>,
    /// `name` of a tool.
    pub name: Option<&'a str>,
    /// `cursor`: the position of a later page of a list.
    pub cursor: Option<&'a str>,
    /// `protocolVersion`.
    pub protocol_version: Option<&'a str>,
    /// `capabilities`.
    pub capabilities: Option<&'a str>,
    /// The first reason found why readers may disagree, in the object or in its `_meta`.
    pub fault: Option<Fault>,
}

/// Raw values of members of `_meta`, under the rules of [`Members`].
#[derive(Debug, Default, Clone, Copy)]
pub struct Meta<'a> {
    /// `progressToken`.
    pub progress_token: Option<&'a str>,
    /// `io.modelcontextprotocol/related-task`.
    pub related_task: Option<&'a str>,
    /// `io.modelcontextprotocol/protocolVersion`.
    pub protocol_version: Option<&'a str>,
}

/// The reason why JSON readers may disagree about an object, or why MCP forbids the object. The text is the rest of a
/// sentence that begins with the name of the object, such as `params`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// This known member appears twice.
    #[error("has the member \"{0}\" twice: send it once")]
    Twice(&'static str),
    /// The name of a member is similar to this known name, and some readers take one for the other.
    #[error(
        "has a member that some readers take for \"{0}\": write \"{0}\" if that is meant, else choose another name"
    )]
    Alike(&'static str),
    /// The name of a member cannot be decoded, or contains a NUL, at which some readers end a text.
    #[error("has a member whose name has a NUL or half of a surrogate pair in it: choose another name")]
    Unreadable,
    /// This known member has a value of the wrong type, which the second text describes.
    #[error("has a member \"{0}\" that is {1}")]
    Type(&'static str, &'static str),
    /// The value is an array, not an object.
    #[error("must be an object")]
    Array,
    /// A notification carries a progress token.
    #[error("has a \"progressToken\", which only a request may have")]
    Token,
}

const META: &str = "_meta";
const TOKEN: &str = "progressToken";
const RELATED: &str = "io.modelcontextprotocol/related-task";
const VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// The known names in params, each with its folded form (see [`fold`]). Similar names are faults.
const ROUTED: [(&str, &str); 12] = [
    (META, "meta"),
    (TOKEN, "progresstoken"),
    ("requestId", "requestid"),
    ("uri", "uri"),
    ("level", "level"),
    ("taskId", "taskid"),
    ("elicitationId", "elicitationid"),
    ("task", "task"),
    ("name", "name"),
    ("cursor", "cursor"),
    ("protocolVersion", "protocolversion"),
    ("capabilities", "capabilities"),
];
/// The known names in `_meta`, each with its folded form.
const ROUTED_META: [(&str, &str); 3] = [
    (TOKEN, "progresstoken"),
    (RELATED, "iomodelcontextprotocolrelatedtask"),
    (VERSION, "iomodelcontextprotocolprotocolversion"),
];

impl<'a> Members<'a> {
    /// No members.
    pub(super) const NONE: Self = Self {
        meta: Meta { progress_token: None, related_task: None, protocol_version: None },
        progress_token: None,
        request_id: None,
        uri: None,
        level: None,
        task_id: None,
        elicitation_id: None,
        task: None,
        tasks: None,
        status: None,
        name: None,
        cursor: None,
        protocol_version: None,
        capabilities: None,
        fault: None,
    };

    /// Reads the members that this type has from a raw object. All are `None` if the text is no well-formed object.
    pub fn of(object: &'a str) -> Self {
        let (mut members, mut seen) = (Self::default(), Seen::default());
        let read = Scanner::new(object).object(|scanner, key| members.member(scanner, key, &mut seen));
        read.map(|_| members).unwrap_or_default()
    }

    /// Reads the value of the member with the raw name `raw`.
    pub(super) fn member(&mut self, scanner: &mut Scanner<'a>, raw: &'a str, seen: &mut Seen) -> Result<(), Malformed> {
        let Some(key) = unquoted(raw) else {
            self.blame(Fault::Unreadable);
            return scanner.value().map(drop);
        };
        let (name, slot, bit) = match &*key {
            META => return self.meta(scanner, seen),
            TOKEN => (TOKEN, &mut self.progress_token, 1),
            "requestId" => ("requestId", &mut self.request_id, 2),
            "uri" => ("uri", &mut self.uri, 3),
            "level" => ("level", &mut self.level, 4),
            "taskId" => ("taskId", &mut self.task_id, 5),
            "elicitationId" => ("elicitationId", &mut self.elicitation_id, 6),
            "task" => ("task", &mut self.task, 7),
            "tasks" => ("tasks", &mut self.tasks, 8),
            "status" => ("status", &mut self.status, 9),
            "name" => ("name", &mut self.name, 10),
            "cursor" => ("cursor", &mut self.cursor, 11),
            "protocolVersion" => ("protocolVersion", &mut self.protocol_version, 12),
            "capabilities" => ("capabilities", &mut self.capabilities, 13),
            other => {
                likeness(other, &ROUTED).into_iter().for_each(|fault| self.blame(fault));
                return scanner.value().map(drop);
            }
        };
        *slot = Some(scanner.value()?).filter(|value| *value != "null");
        seen.once(name, bit).into_iter().for_each(|fault| self.blame(fault));
        Ok(())
    }

    fn meta(&mut self, scanner: &mut Scanner<'a>, seen: &mut Seen) -> Result<(), Malformed> {
        seen.once(META, 0).into_iter().for_each(|fault| self.blame(fault));
        match scanner.peek() {
            Some(b'{') => {
                let (mut seen, mut fault) = (Seen::default(), None);
                self.meta = Meta::default();
                scanner.object(|scanner, key| self.meta.member(scanner, key, &mut seen, &mut fault))?;
                fault.into_iter().for_each(|fault| self.blame(fault));
            }
            Some(b'n') => drop(scanner.value()?),
            _ => {
                scanner.value()?;
                self.blame(Fault::Type(META, "no object"));
            }
        }
        Ok(())
    }

    fn blame(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    /// Whether the fault is a known member that appears twice, in the object or in `_meta`.
    pub fn has_twin(&self) -> bool {
        matches!(self.fault, Some(Fault::Twice(_)))
    }

    /// The raw id of the task that a message belongs to, from `_meta` (MCP 2025-11-25, "Tasks"). `None` also if the
    /// related-task object has a fault.
    pub fn related_task(&self) -> Option<&'a str> {
        let related = Self::of(self.meta.related_task?);
        related.task_id.filter(|_| related.fault.is_none())
    }
}

impl<'a> Meta<'a> {
    fn member(
        &mut self,
        scanner: &mut Scanner<'a>,
        raw: &'a str,
        seen: &mut Seen,
        fault: &mut Option<Fault>,
    ) -> Result<(), Malformed> {
        let Some(key) = unquoted(raw) else {
            fault.get_or_insert(Fault::Unreadable);
            return scanner.value().map(drop);
        };
        let (name, slot, bit) = match &*key {
            TOKEN => (TOKEN, &mut self.progress_token, 0),
            RELATED => (RELATED, &mut self.related_task, 1),
            VERSION => (VERSION, &mut self.protocol_version, 2),
            other => {
                *fault = fault.or_else(|| likeness(other, &ROUTED_META));
                return scanner.value().map(drop);
            }
        };
        let value = Some(scanner.value()?).filter(|value| *value != "null");
        if name == TOKEN && value.is_some_and(|value| !is_id(value)) {
            fault.get_or_insert(Fault::Type(TOKEN, "neither a string nor a number"));
        }
        *fault = fault.or_else(|| seen.once(name, bit));
        *slot = value;
        Ok(())
    }
}

/// The known members of one object that have been read, one bit each.
#[derive(Default)]
pub(super) struct Seen(u32);

impl Seen {
    /// Notes the member `name`, whose bit is `bit`. Returns a fault if the member was there before.
    fn once(&mut self, name: &'static str, bit: u32) -> Option<Fault> {
        let is_twice = self.0 & 1 << bit != 0;
        self.0 |= 1 << bit;
        is_twice.then_some(Fault::Twice(name))
    }
}

/// Whether a raw JSON value can be an id or a progress token: a string or a number. Looks at the first byte only.
pub fn is_id(raw: &str) -> bool {
    matches!(raw.as_bytes().first(), Some(b'"' | b'-' | b'0'..=b'9'))
}

/// The fault of an unknown name: a NUL, or likeness to one of the `routed` names, which come with their folded forms.
fn likeness(name: &str, routed: &[(&'static str, &str)]) -> Option<Fault> {
    if name.contains('\0') {
        return Some(Fault::Unreadable);
    }
    let mut letters = [0; LETTERS];
    let letters = fold(name, &mut letters)?;
    routed.iter().find(|(_, folded)| folded.as_bytes() == letters).map(|(routed, _)| Fault::Alike(routed))
}

/// Whether two names are equal, or some reader takes them for the same name.
pub fn is_like(name: &str, other: &'static str) -> bool {
    find_like(name, [other]).is_some()
}

/// The first of the `known` names that is equal to `name`, or that some reader takes for `name`.
pub fn find_like(name: &str, known: impl IntoIterator<Item = &'static str>) -> Option<&'static str> {
    let (mut letters, mut others) = ([0; LETTERS], [0; LETTERS]);
    let letters = fold(name, &mut letters)?;
    known.into_iter().find(|known| fold(known, &mut others) == Some(letters))
}

/// The largest number of letters in the folded form of a name. A longer name is similar to no known name.
const LETTERS: usize = 40;

/// The folded form of a name: its ASCII letters and digits in lower case, with full-width letters and letters that fold
/// to ASCII among them. Names with equal folded forms are the same name to some reader: one that folds case (Go's
/// encoding/json), accepts snake case as well (protobuf's JSON, Python models populated by name), or drops other
/// characters. `None` if the name has other letters or digits outside ASCII, or more than [`LETTERS`] letters and
/// digits.
fn fold<'b>(name: &str, letters: &'b mut [u8; LETTERS]) -> Option<&'b [u8]> {
    let mut count = 0;
    let mut put = |letter: u8| {
        *letters.get_mut(count)? = letter;
        count += 1;
        Some(())
    };
    for character in name.chars() {
        match character {
            'a'..='z' | '0'..='9' => put(character as u8)?,
            'A'..='Z' => put((character as u8).to_ascii_lowercase())?,
            '\0'..='\x7f' => {}
            // The dotted I and the dotless i, which some readers fold to i.
            '\u{130}' | '\u{131}' => put(b'i')?,
            // Full-width forms.
            '\u{ff01}'..='\u{ff5e}' => {
                let narrow = u8::try_from(u32::from(character) - 0xfee0).ok()?;
                if narrow.is_ascii_alphanumeric() {
                    put(narrow.to_ascii_lowercase())?;
                }
            }
            other => {
                for letter in
                    other.to_uppercase().flat_map(char::to_lowercase).filter(|letter| letter.is_alphanumeric())
                {
                    put(u8::try_from(letter).ok().filter(u8::is_ascii)?)?;
                }
            }
        }
    }
    letters.get(..count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(object: &str) -> Option<Fault> {
        Members::of(object).fault
    }

    #[test]
    fn names_that_some_reader_takes_for_a_routed_one_are_found() {
        for name in [
            "_Meta",
            "_META",
            "meta",
            "Meta",
            "_me\\u0054a",
            "_m\\u00e9ta\\u0000",
            "_meta\\u0000",
            "_meta ",
            "__meta",
            "ｍeta",
            "ProgressToken",
            "progresstoken",
            "progress_token",
            "progress-token",
            "PROGRESSTOKEN",
            "progre\u{17f}sToken",
            "progre\u{df}Token",
            "progre\\u017f\\u017fToken",
            "progressTo\u{212a}en",
            "requestid",
            "request_id",
            "reque\u{fb06}Id",
            "RequestID",
            "task\u{131}d",
            "TASK\u{130}D",
            "ta\u{17f}kId",
            "tas\u{212a}Id",
            "task_id",
            "Task",
            "URI",
            "Uri",
            "Level",
            "LEVEL",
            "Name",
            "elicitationID",
            "Cursor",
            "protocol_version",
            "half\\ud800",
        ] {
            let object = format!(r#"{{"arguments":{{"Uri":1}},"{name}":{{}}}}"#);
            assert!(
                matches!(fault(&object), Some(Fault::Alike(_) | Fault::Unreadable)),
                "{name}: {:?}",
                fault(&object)
            );
        }
        for name in
            ["ProgressToken", "progress\\u0054oken\\u0000", "progress_token", "IO.modelcontextprotocol/related-task"]
        {
            let object = format!(r#"{{"_meta":{{"x.y/z":1,"{name}":7}}}}"#);
            assert!(fault(&object).is_some(), "{name}");
        }
    }

    #[test]
    fn other_names_pass() {
        let object = r#"{"arguments":{"_Meta":1,"_Meta":2,"uri":1,"uri":2},"metadata":1,"levels":2,"uris":3,"tasking":4,
            "names":5,"x":{"Level":7},"x":8,"ref":{},"messages":[],"ttl":1,"_meta":{"x/progress":1,"a":{"progressToken":1}}}"#;
        assert_eq!(fault(object), None);
        assert_eq!(fault(r#"{"_meta":null,"cursor":null,"task":null}"#), None);
    }

    #[test]
    fn members_are_found_however_their_names_are_written() {
        let object = r#"{"\u005fmeta":{"progress\u0054oken": 77 ,"io.modelcontextprotocol\/related-task":{"taskId":"t"}},
            "ur\u0069": "a" ,"task":null}"#;
        let members = Members::of(object);
        assert_eq!((members.meta.progress_token, members.uri, members.task), (Some("77"), Some("\"a\""), None));
        assert_eq!((members.related_task(), members.fault), (Some("\"t\""), None));
    }

    #[test]
    fn what_is_there_twice_or_of_another_type_is_found() {
        for (object, expected) in [
            (r#"{"uri":"a","ur\u0069":"b"}"#, Fault::Twice("uri")),
            (r#"{"uri":null,"uri":"b"}"#, Fault::Twice("uri")),
            (r#"{"_meta":{},"\u005fmeta":{}}"#, Fault::Twice("_meta")),
            (r#"{"_meta":null,"_meta":{}}"#, Fault::Twice("_meta")),
            (r#"{"_meta":{"progressToken":1,"progressToken":1}}"#, Fault::Twice("progressToken")),
            (r#"{"_meta":{"progressToken":null,"progressToken":1}}"#, Fault::Twice("progressToken")),
            (r#"{"_meta":[1]}"#, Fault::Type("_meta", "no object")),
            (r#"{"_meta":{"progressToken":[1]}}"#, Fault::Type("progressToken", "neither a string nor a number")),
            (r#"{"_meta":{"progressToken":true}}"#, Fault::Type("progressToken", "neither a string nor a number")),
        ] {
            assert_eq!(fault(object), Some(expected), "{object}");
        }
        let related = r#"{"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"a","TaskId":"b"}}}"#;
        assert_eq!(Members::of(related).related_task(), None);
    }
}
