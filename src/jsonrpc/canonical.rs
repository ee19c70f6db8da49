//! Writes JSON values in a canonical form, so that equal values have equal texts.

use std::borrow::Cow;

use super::frame::quoted;
use super::scan::{Malformed, Scanner, elements};
use super::string::{text, unquoted};

/// The longest value that is written in canonical form, in bytes.
const LENGTH: usize = 16 * 1024;
/// The largest number of members and elements, at all levels together, of a value that is written in canonical form.
const PARTS: usize = 256;
/// The deepest nesting of a value that is written in canonical form.
const DEPTH: usize = 32;

/// The canonical form of a raw value: no white space, members sorted by name, one spelling for each string. Numbers
/// stay as written. A value above the bounds, or with an unpaired surrogate in a string, is returned unchanged.
pub fn canonical(raw: &str) -> Cow<'_, str> {
    let (mut form, mut parts) = (String::new(), PARTS);
    let written = (raw.len() <= LENGTH).then(|| write(raw, DEPTH, &mut parts, &mut form)).flatten();
    written.map_or(Cow::Borrowed(raw), |()| Cow::Owned(form))
}

/// Appends the canonical form of `raw` to `form`. `depth` is the number of levels that `raw` may have; `parts` is the
/// number of members and elements that are still allowed. `None` above one of these bounds, or for an unpaired
/// surrogate.
fn write(raw: &str, depth: usize, parts: &mut usize, form: &mut String) -> Option<()> {
    let raw = raw.trim_ascii();
    match raw.as_bytes().first()? {
        b'{' => {
            let (depth, mut members) = (depth.checked_sub(1)?, Vec::new());
            let read = Scanner::new(raw).object(|scanner, key| {
                // Any error ends the reading.
                *parts = parts.checked_sub(1).ok_or(Malformed::TooShort)?;
                let name = unquoted(key).ok_or(Malformed::Surrogate(scanner.at()))?;
                members.push((name, scanner.value()?));
                Ok(())
            });
            read.ok()?;
            members.sort_by(|(a, _), (b, _)| a.cmp(b));
            form.push('{');
            for (place, (name, value)) in members.into_iter().enumerate() {
                form.push_str(if place > 0 { "," } else { "" });
                form.push_str(&quoted(&name));
                form.push(':');
                write(value, depth, parts, form)?;
            }
            form.push('}');
        }
        b'[' => {
            let depth = depth.checked_sub(1)?;
            form.push('[');
            for (place, element) in elements(raw).enumerate() {
                *parts = parts.checked_sub(1)?;
                form.push_str(if place > 0 { "," } else { "" });
                write(element.ok()?, depth, parts, form)?;
            }
            form.push(']');
        }
        b'"' => form.push_str(&quoted(&text(raw)?)),
        _ => form.push_str(raw),
    }
    Some(())
}

/// The raw object without the members whose decoded names `is_left_out` accepts, and without those whose names cannot
/// be decoded. `{}` for a value that is not an object.
pub fn without(object: &str, is_left_out: impl Fn(&str) -> bool) -> String {
    let mut kept = String::from("{");
    let _ = Scanner::new(object).object(|scanner, key| {
        let value = scanner.value()?;
        if unquoted(key).is_some_and(|name| !is_left_out(&name)) {
            let comma = if kept.len() > 1 { "," } else { "" };
            [comma, "\"", key, "\":", value].into_iter().for_each(|part| kept.push_str(part));
        }
        Ok(())
    });
    kept.push('}');
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_have_one_form() {
        let form = r#"{"a":[1,true,{"b":"é\n","c":null}],"d":1e400}"#;
        assert_eq!(canonical("{ \"d\":1e400 , \"\\u0061\": [ 1,true, {\"c\":null,\"b\":\"\\u00e9\\n\"} ] }"), form);
        assert_eq!(canonical(form), form);
        assert_ne!(canonical(r#"{"a":1,"a":2}"#), canonical(r#"{"a":2,"a":1}"#));
    }

    #[test]
    fn what_is_larger_than_can_be_wanted_stays_as_it_is() {
        let (deep, wide) = ("[".repeat(40) + &"]".repeat(40), format!("[{}{{}}]", "{}, ".repeat(400)));
        let long = format!("[ \"{}\"]", "x".repeat(LENGTH));
        let many = format!("{{{}\"a\": 1}}", "\"\":0, ".repeat(400));
        for value in [deep, wide, long, many] {
            assert_eq!(canonical(&value), value);
        }
    }

    #[test]
    fn members_are_left_out_by_their_names_however_these_are_written() {
        let object = r#"{"a":1,"\u0062":2 , "c":{"b":3}}"#;
        assert_eq!(without(object, |name| name == "b"), r#"{"a":1,"c":{"b":3}}"#);
        assert_eq!((without("[1]", |_| false), without("{}", |_| false)), ("{}".to_owned(), "{}".to_owned()));
    }
}
