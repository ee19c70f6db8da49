//! The capabilities of clients that the specification names (2025-11-25, "Lifecycle"). Everything else that a client
//! says of itself there, such as `experimental`, may hold anything.

use crate::jsonrpc::member;

/// A member of a client's capabilities, with the members that it may have. A flag has none, and is true or false.
struct Known {
    name: &'static str,
    is_flag: bool,
    members: &'static [Known],
}

const fn object(name: &'static str, members: &'static [Known]) -> Known {
    Known { name, is_flag: false, members }
}

const fn flag(name: &'static str) -> Known {
    Known { name, is_flag: true, members: &[] }
}

const ELICITATION: Known = object("elicitation", &[object("form", &[flag("applyDefaults")]), object("url", &[])]);
const SAMPLING: Known = object("sampling", &[object("context", &[]), object("tools", &[])]);

/// The capabilities that sessions of several principals can have in common, sorted by name.
const COMMON: [Known; 2] = [ELICITATION, SAMPLING];

/// All capabilities, sorted by name. Roots are private to a client, and later requests about tasks that a client keeps
/// cannot be attributed where several share a child.
const ALL: [Known; 4] = [
    ELICITATION,
    object("roots", &[flag("listChanged")]),
    SAMPLING,
    object(
        "tasks",
        &[
            object("cancel", &[]),
            object("list", &[]),
            object(
                "requests",
                &[object("elicitation", &[object("create", &[])]), object("sampling", &[object("createMessage", &[])])],
            ),
        ],
    ),
];

/// What a client's raw capabilities say in words of the specification, in canonical form; all the rest is left out.
pub fn specified_capabilities(raw: &str) -> String {
    written(raw, &ALL)
}

/// As [`specified_capabilities`], without what is private to one client: roots, and tasks.
pub fn common_capabilities(raw: &str) -> String {
    written(raw, &COMMON)
}

fn written(raw: &str, known: &[Known]) -> String {
    let mut text = String::new();
    write(raw, known, &mut text);
    text
}

/// Appends the `known` members of a raw object that are of the right kind.
fn write(raw: &str, known: &[Known], text: &mut String) {
    let mut comma = "";
    text.push('{');
    for Known { name, is_flag, members } in known {
        let Some(value) = member(raw, name).map(str::trim_ascii) else { continue };
        let is_flag_value = matches!(value, "true" | "false");
        if *is_flag != is_flag_value || !(is_flag_value || value.starts_with('{')) {
            continue;
        }
        [comma, "\"", name, "\":"].into_iter().for_each(|part| text.push_str(part));
        comma = ",";
        match is_flag {
            true => text.push_str(value),
            false => write(value, members, text),
        }
    }
    text.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonrpc::canonical;

    #[test]
    fn what_the_specification_names_is_kept_and_nothing_else() {
        let full = r#"{"tasks":{"list":{},"requests":{"sampling":{"createMessage":{}}}},"roots":{"listChanged":true},
            "sampling":{"tools":{}},"elicitation":{"form":{"applyDefaults":false},"url":{}}}"#;
        assert_eq!(specified_capabilities(full), canonical(full));
        assert_eq!(
            common_capabilities(full),
            r#"{"elicitation":{"form":{"applyDefaults":false},"url":{}},"sampling":{"tools":{}}}"#
        );
        for (raw, kept) in [
            (r#"{"experimental":{"x":{}},"sampling":{"x":1,"tools":true}}"#, r#"{"sampling":{}}"#),
            (r#"{"sampling":true,"elicitation":{"form":{"applyDefaults":"yes"}}}"#, r#"{"elicitation":{"form":{}}}"#),
            (r#"{"sampling":{},"sampling":{"tools":{}}}"#, "{}"),
            (r#"{"Sampling":{},"sampling ":{}}"#, "{}"),
            ("null", "{}"),
        ] {
            assert_eq!(specified_capabilities(raw), kept, "{raw}");
        }
    }
}
