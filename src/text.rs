//! Makes text of foreign origin safe to show: control characters, characters that change the direction of text, and
//! invisible characters are written as escapes. A terminal, a log viewer or an editor would act on them. This file
//! holds the only list of such characters.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Writes bytes as lower-case hexadecimal digits, two for each.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a text does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Whether a character can mislead a reader: control characters (C0, DEL, C1, and so every ANSI sequence), characters
/// that change the direction of text, line and paragraph separators, and invisible characters
/// (`Default_Ignorable_Code_Point` of Unicode), which can make two different names look the same or carry a hidden
/// message. The joiners in some emoji and scripts belong to the latter and are escaped too.
pub fn is_misleading(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{00ad}'
                | '\u{034f}'
                | '\u{061c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// The text on one line. Every misleading character, line breaks and tabs included, becomes an escape such as
/// `\u{202e}`.
pub fn visible(text: &str) -> Cow<'_, str> {
    escape(text, is_misleading, |c, out| out.extend(c.escape_default()))
}

/// Like [`visible`], for text of several lines: line feeds and tabs stay.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    let acts = |c: char| is_misleading(c) && c != '\n' && c != '\t';
    escape(text, acts, |c, out| out.extend(c.escape_default()))
}

/// Like [`visible`], for the inside of a JSON string: the escapes are those of JSON, so that the decoded string stays
/// the same.
pub fn visible_json(text: &str) -> Cow<'_, str> {
    escape(text, is_misleading, |c, out| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\u{unit:04x}");
        }
    })
}

/// Like [`visible`], for a line that the gateway's own formatter has coloured: colour sequences (`ESC [`, digits and
/// semicolons, `m`) stay.
pub fn visible_coloured(text: &str) -> Cow<'_, str> {
    if !text.contains('\u{1b}') {
        return visible(text);
    }
    let mut parts = text.split('\u{1b}');
    let mut out = visible(parts.next().unwrap_or_default()).into_owned();
    for part in parts {
        let colour = part.strip_prefix('[').and_then(|rest| {
            let (digits, rest) = rest.split_once('m')?;
            (digits.len() <= 16 && digits.bytes().all(|b| b.is_ascii_digit() || b == b';')).then_some((digits, rest))
        });
        match colour {
            Some((digits, rest)) => {
                let _ = write!(out, "\u{1b}[{digits}m{}", visible(rest));
            }
            None => {
                let _ = write!(out, "\\u{{1b}}{}", visible(part));
            }
        }
    }
    out.into()
}

/// A value of foreign origin for use in a message: in quotes, on one line, and cut after `most` characters.
pub fn quoted(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("\"{}…\"", visible(text.get(..end).unwrap_or_default())),
        None => format!("\"{}\"", visible(text)),
    }
}

fn escape(text: &str, acts: impl Fn(char) -> bool, put: impl Fn(char, &mut String)) -> Cow<'_, str> {
    // Nearly all text is of these alone, and they can be told by the byte.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) || !text.contains(&acts) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if acts(c) { put(c, &mut out) } else { out.push(c) }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One character of each misleading kind.
    const ALL: [char; 24] = [
        '\0',
        '\r',
        '\u{1b}',
        '\u{7f}',
        '\u{9b}',
        '\u{61c}',
        '\u{200e}',
        '\u{200f}',
        '\u{2028}',
        '\u{2029}',
        '\u{202e}',
        '\u{2066}',
        '\u{feff}',
        '\u{e0041}',
        '\u{ad}',
        '\u{180e}',
        '\u{200b}',
        '\u{200c}',
        '\u{200d}',
        '\u{2060}',
        '\u{2065}',
        '\u{3164}',
        '\u{fe0f}',
        '\u{e01ef}',
    ];

    #[test]
    fn every_misleading_character_becomes_an_escape() {
        for c in ALL {
            let text = format!("a{c}b");
            for shown in [visible(&text), visible_lines(&text), visible_json(&text), visible_coloured(&text)] {
                assert!(!shown.contains(is_misleading), "{shown:?}");
                assert!(shown.starts_with("a\\") && shown.ends_with('b'), "{shown:?}");
            }
            assert!(!quoted(&text, 80).contains(is_misleading));
        }
        assert_eq!(visible("a\u{202e}\n"), "a\\u{202e}\\n");
        assert_eq!(visible_lines("a\u{202e}\n\tb"), "a\\u{202e}\n\tb");
    }

    #[test]
    fn text_of_people_stays_as_it_is() {
        for text in ["plain", "ÄÖÜ ✓ 日本語 עברית", "👩💻"] {
            assert_eq!(visible(text), text);
            assert_eq!(visible_json(text), text);
        }
    }

    #[test]
    fn json_stays_the_same_string() {
        for c in ALL {
            let text = format!("a{c}b");
            let json = serde_json::to_string(&text).unwrap_or_default();
            let shown = visible_json(&json);
            assert_eq!(serde_json::from_str::<String>(&shown).unwrap_or_default(), text, "{shown}");
        }
    }

    #[test]
    fn colours_stay_and_other_sequences_do_not() {
        assert_eq!(visible_coloured("\u{1b}[2m12:00\u{1b}[0m x"), "\u{1b}[2m12:00\u{1b}[0m x");
        assert_eq!(visible_coloured("\u{1b}[2Jx"), "\\u{1b}[2Jx");
        assert_eq!(visible_coloured("\u{1b}]0;title\u{7}"), "\\u{1b}]0;title\\u{7}");
        assert_eq!(visible_coloured("\u{1b}[1\u{202e}m"), "\\u{1b}[1\\u{202e}m");
    }

    #[test]
    fn a_quoted_value_is_cut() {
        assert_eq!(quoted("abc", 3), "\"abc\"");
        assert_eq!(quoted("abcd", 3), "\"abc…\"");
        assert_eq!(quoted("日本語", 2), "\"日本…\"");
    }
}
